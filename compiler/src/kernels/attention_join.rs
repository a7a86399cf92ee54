//! Joins what the workgroups of [`super::attention_split`] found of one token.

use kiln_bundle::Access;

use super::attention::{lowest, partial_width};
use super::builder::{Builder, F32, KernelError, KernelSource, U32};
use super::{AttentionReduceSpec, Variant};

/// Joins the parts of each head. See [`AttentionReduceSpec`].
pub fn build(spec: &AttentionReduceSpec, variant: Variant) -> Result<KernelSource, KernelError> {
    let AttentionReduceSpec { heads, width, splits } = *spec;
    let b = Builder::new(format!("attention_join{splits}_{heads}x{width}"), 64, variant);
    body(&b, width, splits);
    b.finish()
}

fn body<'b>(b: &'b Builder, width: u32, splits: u32) {
    let partials = b.storage::<f32>("partials", Access::Read);
    let out = b.storage::<f32>("out", Access::ReadWrite);
    let head = b.group().x();
    let first = (head * (splits * partial_width(width))).named("first_partial");
    let part = |index: U32<'b>| (first + index * partial_width(width)).named("partial");

    let largest = b.variable("largest", lowest(b));
    b.range("part", 0, splits, 1, |index| {
        largest.store(largest.load().max(partials.load(part(index) + width)));
    });
    let largest = largest.load().named("largest_score");
    b.range("i", b.thread(), width, b.workgroup(), |i| {
        let sum = b.variable("sum", 0.0);
        let weights = b.variable("weights", 0.0);
        b.range("part", 0, splits, 1, |index| {
            let partial = part(index);
            let scale: F32 = (partials.load(partial + width) - largest).exp2().named("scale");
            sum.add(partials.load(partial + i) * scale);
            weights.add(partials.load(partial + width + 1) * scale);
        });
        out.store(head * width + i, sum.load() / weights.load());
    });
}
