//! Embedding rows of the step's tokens.

use kiln_bundle::Access;

use super::builder::{Builder, KernelError, KernelSource, U32};
use super::names::number;
use super::quads::Quads;
use super::weight::Weight;
use super::{Capability, GatherSpec};

/// Words that a thread takes at a time.
const CHUNK_WORDS: u32 = 1;
/// Most threads of a workgroup, which copies one row.
const MAX_THREADS: u32 = 256;

impl GatherSpec {
    fn name(&self) -> String {
        let GatherSpec {
            rows,
            first_row,
            per_binding,
            width,
            format,
            scale,
        } = self;
        let part = match first_row {
            0 => String::new(),
            _ => format!("_from{first_row}"),
        };
        let bindings = match self.bindings() {
            1 => String::new(),
            _ => format!("_by{per_binding}"),
        };
        let scale = match scale {
            1.0 => String::new(),
            _ => format!("_times{}", number(*scale)),
        };
        format!("gather_{format}_{rows}x{width}{part}{bindings}{scale}")
    }

    /// Threads: as few as copy the row in the fewest rounds.
    fn threads(&self) -> u32 {
        let chunks = self.width.div_ceil(Weight::chunk_elements(self.format, CHUNK_WORDS));
        let rounds = chunks.div_ceil(MAX_THREADS).max(1);
        chunks.div_ceil(rounds).next_multiple_of(32)
    }

    /// Weights that hold the rows.
    fn bindings(&self) -> u32 {
        self.rows.div_ceil(self.per_binding.max(1))
    }
}

pub fn build(spec: &GatherSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    let b = Builder::new(spec.name(), spec.threads(), capability);
    let tables = Weight::bind_each(&b, spec.format, spec.width, CHUNK_WORDS, spec.bindings());
    let tokens = b.storage::<u32>("tokens", Access::Read);
    let out = Quads::bind(&b, "out", spec.width, Access::ReadWrite);

    let token = b.group().x();
    // Below the first row this wraps to a large number.
    let row = (tokens.load(token) - spec.first_row).named("row");
    b.if_(row.lt(spec.rows), || copy_row(&b, spec, &tables, row, token, &out));
    b.finish()
}

/// Copies `row` of the rows that `tables` hold together; the first of them holds it or is passed over.
fn copy_row<'b>(
    b: &'b Builder,
    spec: &GatherSpec,
    tables: &[Weight<'b>],
    row: U32<'b>,
    token: U32<'b>,
    out: &Quads<'b>,
) {
    let [table, others @ ..] = tables else { return };
    let copy = || {
        let quads = table.chunk / 4;
        let chunks = b.constant("CHUNKS", table.chunks(spec.width));
        b.range("chunk", b.thread(), chunks, b.workgroup(), |chunk| {
            let values = table.load(row, chunk, "").values();
            for (i, value) in (0..).zip(values) {
                let value = if spec.scale == 1.0 { value } else { value * spec.scale };
                out.store(token, chunk * quads + i, value, !spec.width.is_multiple_of(table.chunk));
            }
        });
    };
    match others {
        [] => copy(),
        _ => b.if_else(row.lt(spec.per_binding), copy, || {
            let row = (row - spec.per_binding).named("row");
            copy_row(b, spec, others, row, token, out);
        }),
    }
}
