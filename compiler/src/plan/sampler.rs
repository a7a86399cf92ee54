//! The programs from logits to the next token: `adjust`, and `sample`, whose end is `greedy`.

use super::calls::{Call, Extent, Operand, SectionPlan};
use crate::kernels::KernelSpec;

/// Slots of the ring of sampled ids: more than steps are ever encoded ahead.
pub const OUTPUT_SLOTS: u32 = 1024;
/// Workgroups that look for the most likely token.
const SAMPLE_GROUPS: u32 = 64;
/// Dispatches of `sample` before the part that `greedy` needs: what narrows the choice.
pub const BEFORE_GREEDY: usize = 1;
/// Workgroups that go over the history: one round for 8,192 tokens.
const HISTORY_GROUPS: u32 = 32;
/// Bytes for rules: 13,000 of single tokens.
pub const RULES_BYTES: u64 = 256 << 10;
/// Bytes of a position's entry in the history.
pub const HISTORY_ENTRY_BYTES: u64 = 8;

/// The calls that do to `vocab` logits, the plan's input, what a generation asks for.
pub fn adjuster(vocab: u32) -> SectionPlan {
    let mut plan = SectionPlan::default();
    let logits = plan.value(Extent::Fixed(vocab));
    plan.input = Some(logits);
    let back = [Operand::Step, Operand::History, Operand::Rules, Operand::Write(logits)];
    let calls = [
        (
            KernelSpec::TokenRules,
            vec![
                Operand::Step,
                Operand::Tokens,
                Operand::Rules,
                Operand::AppendHistory,
                Operand::Write(logits),
            ],
            "biases and bans",
        ),
        (
            KernelSpec::Penalties { groups: HISTORY_GROUPS },
            back.to_vec(),
            "penalties",
        ),
        (
            KernelSpec::RepeatBan { groups: HISTORY_GROUPS },
            back.to_vec(),
            "repeated sequences",
        ),
    ];
    plan.calls.extend(calls.map(single_row));
    plan
}

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
            "top-k, top-p and min-p",
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
    plan.calls.extend(calls.map(single_row));
    plan
}

fn single_row((spec, operands, label): (KernelSpec, Vec<Operand>, &str)) -> Call {
    Call {
        spec,
        operands,
        label: label.to_string(),
        single_row: true,
        residual: None,
    }
}
