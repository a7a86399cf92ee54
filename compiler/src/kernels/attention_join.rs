//! Joins what the workgroups of [`super::attention_split`] found of one token.
//!
//! Each thread first weighs one part; then the threads go over to the width, as many parts side by side as there
//! are threads for.

use kiln_bundle::Access;

use super::attention::{Sinks, lowest, partial_width};
use super::builder::{Builder, KernelError, KernelSource, Reduction, U32};
use super::names::flag;
use super::{AttentionReduceSpec, Capability};

const THREADS: u32 = 256;
/// Parts that a thread has under way at a time, to hide the latency of memory.
const AT_ONCE: u32 = 4;

pub fn build(spec: &AttentionReduceSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    let AttentionReduceSpec {
        heads,
        width,
        splits,
        sinks,
    } = *spec;
    let name = format!("attention_join{splits}_{heads}x{width}{}", flag(sinks, "_sinks"));
    if width > THREADS || splits > THREADS {
        let what = format!("{splits} parts of {width} elements, at most {THREADS} of each are supported");
        return Err(KernelError::Unsupported { kernel: name, what });
    }
    let b = Builder::new(name, THREADS, capability);
    body(&b, spec);
    b.finish()
}

/// One head.
fn body<'b>(b: &'b Builder, spec: &AttentionReduceSpec) {
    let AttentionReduceSpec { width, splits, .. } = *spec;
    let partials = b.storage::<f32>("partials", Access::Read);
    let sinks = spec.sinks.then(|| Sinks::bind(b));
    let out = b.storage::<f32>("out", Access::ReadWrite);
    // Padded with parts that weigh nothing, so that all threads take equally many.
    let rows = (THREADS / width).min(splits);
    let padded = splits.next_multiple_of(rows * AT_ONCE);
    let part_weights = b.shared::<f32>("part_weights", padded.max(THREADS));
    let sums = b.shared::<f32>("sums", THREADS);

    let head = b.group().x();
    let first = (head * (splits * partial_width(width))).named("first_partial");
    let part = |index: U32<'b>| first + index.min(splits - 1) * partial_width(width);

    let lowest = lowest(b);
    let mine = part(b.thread()).named("my_part");
    let is_part = b.thread().lt(splits).named("is_part");
    let score = is_part.select(partials.load(mine + width), lowest).named("my_largest");
    let mut largest = b.reduce_one("largest", Reduction::Max, score);
    let sink = sinks.map(|sinks| sinks.score(head));
    if let Some(sink) = sink {
        largest = largest.max(sink);
    }
    let largest = largest.named("largest_score");
    let weight = is_part.select((score - largest).exp2(), 0.0).named("my_weight");
    part_weights.store(b.thread(), weight);
    let mut whole = b.reduce_one("whole", Reduction::Sum, weight * partials.load(mine + width + 1));
    if let Some(sink) = sink {
        whole = whole + (sink - largest).exp2();
    }

    let column = (b.thread() % width).named("column");
    let row = (b.thread() / width).named("row");
    let sum = b.variable("sum", 0.0);
    b.if_(row.lt(rows), || {
        b.range("index", row, padded, rows * AT_ONCE, |index| {
            let indices: Vec<U32> = (0..AT_ONCE).map(|i| index + i * rows).collect();
            let values: Vec<_> = indices
                .iter()
                .map(|&index| partials.load(part(index) + column))
                .collect();
            for (index, value) in indices.into_iter().zip(values) {
                sum.add(value * part_weights.load(index));
            }
        });
    });
    sums.store(b.thread(), sum.load());
    b.barrier();
    b.if_(b.thread().lt(width), || {
        let of_row = |row: u32| sums.load(b.thread() + row * width);
        let total = (1..rows).fold(of_row(0), |total, row| total + of_row(row));
        out.store(head * width + b.thread(), total / whole);
    });
}
