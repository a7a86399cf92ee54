use kiln_compiler::kernels::BankSpec;
use kiln_compiler::weights::WeightFormat;

/// A bank `[experts][rows, cols]` that one binding holds and one dispatch works on.
pub fn whole_bank(experts: u32, rows: u32, cols: u32, format: WeightFormat) -> BankSpec {
    BankSpec {
        of: experts,
        first: 0,
        experts,
        per_binding: experts,
        rows,
        cols,
        format,
    }
}
