//! Attention of one token over a long cache, divided among workgroups (split-KV, "flash decoding": Dao et al. 2023).
//!
//! Each workgroup takes an equal part of the visible positions, a tile of as many positions as it has threads at a
//! time. In a tile each thread scores one position; then the threads go over to the width, a group of them for each
//! of several positions, and sum the weighted values. The softmax is online (Milakov & Gimelshein 2018): a thread
//! keeps the largest score so far and rescales its sums when a tile raises it. [`join`] adds the parts up.

use half::f16;
use kiln_bundle::{Access, StepWord};

use super::attention::lowest;
use super::builder::{Array, Builder, F32, Float, KernelError, KernelSource, Place, Reduction, U32};
use super::cache::{Plane, convert};
use super::names::lettered;
use super::step::Step;
use super::{AttentionReduceSpec, AttentionSplitSpec, CacheType, Variant};

const WORKGROUP: u32 = 128;

/// Results of one part: a row of `width` sums, the largest score, and the sum of the weights.
const fn partial_width(width: u32) -> u32 {
    width + 2
}

/// One part of the cache for one head. See [`AttentionSplitSpec`].
pub fn split(spec: &AttentionSplitSpec, variant: Variant) -> Result<KernelSource, KernelError> {
    let shape = &spec.attention;
    let name = format!("attention_split{}_{}", spec.splits, shape.name());
    shape.check(&name, variant)?;
    let b = Builder::new(name, WORKGROUP, variant);
    match (shape.cache.by_fours(), shape.cache.element) {
        (true, CacheType::F32) => body::<[f32; 4], [f32; 4]>(&b, spec, 4),
        (true, CacheType::F16) => body::<[f32; 4], [f16; 4]>(&b, spec, 4),
        (false, CacheType::F32) => body::<f32, f32>(&b, spec, 1),
        (false, CacheType::F16) => body::<f32, f16>(&b, spec, 1),
    }
    b.finish()
}

/// What a thread keeps from tile to tile.
struct Running<'b, T> {
    largest: Place<'b, f32>,
    /// Sum of this thread's weights.
    weights: Place<'b, f32>,
    /// Sums of weighted values, for each element of the row that the thread works on.
    values: Vec<Place<'b, T>>,
}

/// Elements hold `lanes` numbers: `T` in f32, `C` as the cache has them.
fn body<T: Float<Component = f32>, C: Float>(b: &Builder, spec: &AttentionSplitSpec, lanes: u32) {
    let shape = &spec.attention;
    let layout = &shape.cache;
    let q = b.storage::<T>("q", Access::Read);
    let cache = b.storage::<C>("cache", Access::Read);
    let step = Step::bind(b);
    let partials = b.storage::<f32>("partials", Access::ReadWrite);

    let (part, head) = (b.group().x(), b.group().y());
    let kv_head = (head / shape.heads_per_kv()).named("kv_head");
    let elements = layout.width / lanes;
    let newest = step.word(StepWord::Position).named("newest");
    let oldest = shape.first_visible(b, newest).named("oldest");
    let per_part = ((newest - oldest + spec.splits) / spec.splits).named("positions_per_part");
    let begin = (oldest + part * per_part).named("begin");
    let end = (begin + per_part).min(newest + 1).named("end");

    // Threads that share a position when values are summed; a wide row takes several elements a thread.
    let group = elements.min(WORKGROUP);
    let groups = WORKGROUP / group;
    let element = (b.thread() % group).named("element");
    let group_of_thread = (b.thread() / group).named("position_group");
    let running = Running {
        largest: b.variable("largest", lowest(b)),
        weights: b.variable("weights", 0.0),
        values: (0..elements.div_ceil(group))
            .map(|i| b.variable(&lettered("values", i as usize), b.zero::<T>()))
            .collect(),
    };
    let tile_weights = b.shared::<f32>("tile_weights", WORKGROUP);

    b.range("tile", begin, end, WORKGROUP, |tile| {
        let position = (tile + b.thread()).named("position");
        let scored = b.variable("score", lowest(b));
        b.if_(position.lt(end), || {
            let row = layout.row(position, Plane::Keys, kv_head, lanes).named("key_row");
            let product = b.variable("product", 0.0);
            b.range("i", 0, elements, 1, |i| {
                product.add(q.load(head * elements + i).dot(convert::<C, T>(cache.load(row + i))));
            });
            scored.store(shape.score(product.load()));
        });
        let tile_largest = b.reduce_one("tile_largest", Reduction::Max, scored.load());
        let largest = running.largest.load().max(tile_largest).named("new_largest");
        let rescale = (running.largest.load() - largest).exp2().named("rescale");
        let weight = position
            .lt(end)
            .select((scored.load() - largest).exp2(), 0.0)
            .named("weight");
        running.largest.store(largest);
        running.weights.store(running.weights.load() * rescale + weight);
        tile_weights.store(b.thread(), weight);
        b.barrier();

        for values in &running.values {
            values.store(values.load() * b.splat::<T>(rescale));
        }
        let count = (end - tile).min(WORKGROUP).named("positions_in_tile");
        b.if_(group_of_thread.lt(groups), || {
            b.range("i", group_of_thread, count, groups, |i| {
                let row = layout.row(tile + i, Plane::Values, kv_head, lanes).named("value_row");
                let weight = b.splat::<T>(tile_weights.load(i));
                for (step, values) in (0u32..).zip(&running.values) {
                    let at = element + step * group;
                    let add = || values.add(convert::<C, T>(cache.load(row + at)) * weight);
                    if elements.is_multiple_of(group) {
                        add()
                    } else {
                        b.if_(at.lt(elements), add)
                    }
                }
            });
        });
        b.barrier();
    });
    store(
        b,
        spec,
        lanes,
        partials,
        (head * spec.splits + part) * partial_width(layout.width),
        &running,
    );
}

/// Joins the threads' sums and stores the part's result.
fn store<'b, T: Float<Component = f32>>(
    b: &'b Builder,
    spec: &AttentionSplitSpec,
    lanes: u32,
    partials: Array<'b, f32>,
    start: U32<'b>,
    running: &Running<'b, T>,
) {
    let width = spec.attention.cache.width;
    let elements = width / lanes;
    let group = elements.min(WORKGROUP);
    let groups = WORKGROUP / group;
    let start = start.named("partial");
    let weights = b.reduce_one("weight_sums", Reduction::Sum, running.weights.load());
    let sums = b.shared::<T>("value_sums", WORKGROUP);
    for (step, values) in (0u32..).zip(&running.values) {
        b.barrier();
        sums.store(b.thread(), values.load());
        b.barrier();
        let at = (b.thread() + step * group).named("at");
        b.if_(b.thread().lt(group) & at.lt(elements), || {
            let sum = b.variable("sum", sums.load(b.thread()));
            b.range("other", 1, groups, 1, |other| {
                sum.add(sums.load(b.thread() + other * group))
            });
            let sum = sum.load().named("value_sum");
            for lane in 0..lanes {
                partials.store(
                    start + at * lanes + lane,
                    if lanes == 1 {
                        sum.same::<f32>()
                    } else {
                        sum.component(lane)
                    },
                );
            }
        });
    }
    b.if_(b.thread().eq(0), || {
        partials.store(start + width, running.largest.load());
        partials.store(start + width + 1, weights);
    });
}

/// Joins the parts of each head. See [`AttentionReduceSpec`].
pub fn join(spec: &AttentionReduceSpec, variant: Variant) -> Result<KernelSource, KernelError> {
    let AttentionReduceSpec { heads, width, splits } = *spec;
    let b = Builder::new(format!("attention_join{splits}_{heads}x{width}"), 64, variant);
    join_body(&b, width, splits);
    b.finish()
}

fn join_body<'b>(b: &'b Builder, width: u32, splits: u32) {
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
