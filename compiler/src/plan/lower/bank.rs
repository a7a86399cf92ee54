//! Expert banks: which experts a dispatch can reach, and how its bindings hold them.

use egg::Id;

use super::{Lowering, MAX_BINDINGS};
use crate::kernels::BankSpec;
use crate::plan::calls::Operand;
use crate::term::{BankLeaf, LeafDef};

/// The experts of one dispatch and their bindings.
pub(super) struct BankPart {
    pub spec: BankSpec,
    pub operands: Vec<Operand>,
}

impl Lowering<'_> {
    pub(super) fn bank(&self, id: Id) -> BankLeaf {
        match self.rewritten.leaf(id) {
            LeafDef::Bank(bank) => bank.clone(),
            other => unreachable!("a bank, found {other:?}"),
        }
    }

    /// The dispatches that reach all experts, beside `others` bindings of another kind. A bank over the binding limit
    /// takes several bindings of elements; the scales of all experts are one.
    pub(super) fn bank_parts(&self, bank: &BankLeaf, others: usize) -> Vec<BankPart> {
        let scaled = bank.matrix.format.block().is_some();
        let free = MAX_BINDINGS.saturating_sub(others + usize::from(scaled)).max(1);
        self.bank_parts_of(bank, free as u32)
    }

    /// As [`Self::bank_parts`], with so many bindings of elements in each dispatch.
    pub(super) fn bank_parts_of(&self, bank: &BankLeaf, bindings: u32) -> Vec<BankPart> {
        let (rows, matrix) = (bank.rows(), &bank.matrix);
        let expert_bytes = matrix.format.data_bytes(rows.into(), matrix.cols.into());
        let fits = (self.options.binding_limit / expert_bytes.max(1)).max(1);
        let per_binding = bank.experts.min(u32::try_from(fits).unwrap_or(u32::MAX));
        let step = per_binding.saturating_mul(bindings);
        let firsts = (0..bank.experts).step_by(step as usize);
        firsts
            .map(|first| {
                let end = bank.experts.min(first.saturating_add(step));
                let elements = (first..end).step_by(per_binding as usize).map(|from| {
                    let to = end.min(from + per_binding);
                    Operand::Elements(matrix.clone(), from * rows..to * rows)
                });
                let scales = matrix
                    .format
                    .block()
                    .map(|_| Operand::Scales(matrix.clone(), 0..matrix.rows));
                BankPart {
                    spec: BankSpec {
                        of: bank.experts,
                        first,
                        experts: end - first,
                        per_binding,
                        rows,
                        cols: matrix.cols,
                        format: matrix.format,
                    },
                    operands: elements.chain(scales).collect(),
                }
            })
            .collect()
    }
}
