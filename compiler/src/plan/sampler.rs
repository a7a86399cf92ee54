//! The `sample` program: logits to the next token.

use super::calls::{Call, Extent, Operand, SectionPlan};
use crate::kernels::KernelSpec;

/// Slots of the ring of sampled ids: more than steps are ever encoded ahead.
pub const OUTPUT_SLOTS: u32 = 1024;
/// Workgroups that look for the most likely token.
const SAMPLE_GROUPS: u32 = 64;

/// The calls that sample from `vocab` logits, which are the plan's input.
pub fn sampler(vocab: u32) -> SectionPlan {
    let mut plan = SectionPlan::default();
    let logits = plan.value(Extent::Fixed(vocab));
    let threshold = plan.value(Extent::Fixed(1));
    let partials = plan.value(Extent::Fixed(2 * SAMPLE_GROUPS));
    plan.input = Some(logits);
    let calls = [
        (
            KernelSpec::SampleThreshold { vocab },
            vec![Operand::Read(logits), Operand::Step, Operand::Write(threshold)],
            "top-k and top-p",
        ),
        (
            KernelSpec::SamplePartial {
                vocab,
                groups: SAMPLE_GROUPS,
            },
            vec![
                Operand::Read(logits),
                Operand::Step,
                Operand::Read(threshold),
                Operand::Write(partials),
            ],
            "most likely token",
        ),
        (
            KernelSpec::SampleFinal {
                groups: SAMPLE_GROUPS,
                slots: OUTPUT_SLOTS,
            },
            vec![
                Operand::Read(partials),
                Operand::AdvanceStep,
                Operand::NextToken,
                Operand::Output,
            ],
            "next token",
        ),
    ];
    plan.calls.extend(calls.map(|(spec, operands, label)| Call {
        spec,
        operands,
        label: label.to_string(),
        single_row: true,
        residual: None,
    }));
    plan
}
