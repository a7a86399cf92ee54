//! Attention of one token over a long cache, divided among workgroups (split-KV, "flash decoding": Dao et al. 2023).
//!
//! Each workgroup takes an equal part of the visible positions (but no fewer than 32: the last may have none), for up to
//! four query heads that share a key/value head, in tiles of 128 positions. For the scores four neighbouring threads
//! share a position and take every fourth element of its key; their products meet in workgroup memory, and each thread
//! then weighs one position. For the values the threads go over to the width: each sums one element of the rows of some
//! positions. The softmax is online (Milakov & Gimelshein 2018): a tile that raises the largest score makes all sums be
//! scaled down.
//!
//! ```text
//!   the cache       slot 0: keys [head 0][head 1]..  values [head 0][head 1]..  | slot 1: keys ..
//!
//!   visible         oldest ............................................ newest
//!   positions       |     part 0      |     part 1      |  ..  |  part n - 1  |   one workgroup each
//!                   |tile|tile|tile|..|                                           128 positions a tile
//!
//!   keys of a tile, each a line:                     values of a tile, each a line:
//!
//!               elements                                          elements
//!               0 1 2 3 4 5 6 7 ..                                0   1   2   ..
//!   position 0  a b c d a b c d ..  threads 0 to 3   position 0   t0  t1  t2  ..   thread = element + elements · row
//!   position 1  a b c d a b c d ..  threads 4 to 7   position 1   tE  tE+1    ..   (E elements), rows at a distance
//!   ..                                               ..                            of THREADS / E
//!
//!   products    [query head][position][a b c d]  ->  weights [query head][position]
//! ```

use half::f16;
use kiln_bundle::{Access, StepWord};

use super::attention::{lowest, partial_width};
use super::builder::{Array, Builder, F32, Float, KernelError, KernelSource, Pointer, Reduction, Totals, U32, Value};
use super::cache::{Plane, convert};
use super::names::lettered;
use super::step::Step;
use super::{AttentionSplitSpec, CacheType, Capability};

const THREADS: u32 = 128;
/// Positions in a tile: one for each thread to weigh.
const TILE: u32 = THREADS;
/// Threads that share a key, and keys that such a group works on at a time.
const KEY_LANES: u32 = 4;
const KEY_GROUPS: u32 = THREADS / KEY_LANES;
const KEYS_PER_GROUP: u32 = TILE / KEY_GROUPS;
/// Rows of values that a thread has under way at a time, to hide the latency of memory.
const ROWS_AT_ONCE: u32 = 4;

impl AttentionSplitSpec {
    /// Whether a workgroup has a thread for each element, or for four, of a head so wide.
    pub fn holds(width: u32) -> bool {
        width <= THREADS || width.is_multiple_of(4) && width / 4 <= THREADS
    }
}

pub fn build(spec: &AttentionSplitSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    let shape = &spec.attention;
    let name = format!("attention_split{}_{}", spec.splits, shape.name());
    shape.check(&name, capability)?;
    let lanes = if shape.cache.by_fours() { 4 } else { 1 };
    if !AttentionSplitSpec::holds(shape.cache.width) {
        let what = format!(
            "heads of more than {THREADS} elements must be multiples of 4, not {}",
            shape.cache.width
        );
        return Err(KernelError::Unsupported { kernel: name, what });
    }
    let b = Builder::new(name, THREADS, capability);
    match (lanes, shape.cache.element) {
        (4, CacheType::F32) => SplitAttention::<[f32; 4], [f32; 4]>::new(&b, spec, lanes).body(),
        (4, CacheType::F16) => SplitAttention::<[f32; 4], [f16; 4]>::new(&b, spec, lanes).body(),
        (_, CacheType::F32) => SplitAttention::<f32, f32>::new(&b, spec, lanes).body(),
        (_, CacheType::F16) => SplitAttention::<f32, f16>::new(&b, spec, lanes).body(),
    }
    b.finish()
}

/// `T`: elements of a head as computed with (`lanes` numbers each); `C`: as cached.
struct SplitAttention<'b, T, C> {
    b: &'b Builder,
    spec: &'b AttentionSplitSpec,
    lanes: u32,
    /// Elements of a head.
    elements: u32,
    /// Query heads of the workgroup.
    heads: u32,
    /// Positions whose values are summed side by side: threads / elements, down to a power of two.
    rows: u32,
    q: Array<'b, T>,
    cache: Array<'b, C>,
    partials: Array<'b, f32>,
    /// `[head][position][KEY_LANES]`; at the end, sums of values `[head][thread][lane]`.
    products: Array<'b, f32>,
    /// `[head][position]`
    weights: Array<'b, f32>,
    first_head: U32<'b>,
    /// The first head that the workgroup stores, where those before it are the workgroup's before it too.
    first_stored: Option<U32<'b>>,
    kv_head: U32<'b>,
    /// The workgroup's positions.
    begin: U32<'b>,
    end: U32<'b>,
}

impl<'b, T: Float<Component = f32>, C: Float> SplitAttention<'b, T, C> {
    fn new(b: &'b Builder, spec: &'b AttentionSplitSpec, lanes: u32) -> Self {
        let shape = &spec.attention;
        let q = b.storage::<T>("q", Access::Read);
        let cache = b.storage::<C>("cache", Access::Read);
        let step = Step::bind(b);
        let partials = b.storage::<f32>("partials", Access::ReadWrite);
        let heads = spec.heads_together();
        let products = b.shared::<f32>("products", heads * TILE * KEY_LANES);
        let weights = b.shared::<f32>("weights", heads * TILE);

        let newest = step.word(StepWord::Position).named("newest");
        let oldest = shape.first_visible(b, newest).named("oldest");
        let per_part = ((newest - oldest + spec.splits) / spec.splits)
            .max(KEY_GROUPS)
            .named("positions_per_part");
        let begin = (oldest + b.group().x() * per_part).named("begin");
        let end = (begin + per_part).min(newest + 1).named("end");
        let elements = shape.cache.width / lanes;
        let (first_head, first_stored, kv_head) = query_heads(b, spec);
        let rows = 1 << (THREADS / elements).ilog2();
        SplitAttention {
            b,
            spec,
            lanes,
            elements,
            heads,
            rows,
            q,
            cache,
            partials,
            products,
            weights,
            first_head,
            first_stored,
            kv_head,
            begin,
            end,
        }
    }

    fn body(self) {
        let b = self.b;
        let per_head = |name: &str, start: F32<'b>| -> Vec<Pointer<'b, f32>> {
            (0..self.heads)
                .map(|head| b.variable(&lettered(name, head as usize), start))
                .collect()
        };
        let lowest = lowest(b);
        let largest = per_head("largest", lowest);
        let weight_sums = per_head("weight_sum", b.literal(0.0));
        let value_sums: Vec<Pointer<'b, T>> = (0..self.heads)
            .map(|head| b.variable(&lettered("value_sum", head as usize), b.zero::<T>()))
            .collect();

        b.range("tile", self.begin, self.end, TILE, |tile| {
            self.multiply_keys(tile);
            b.barrier();
            let inside = (tile + b.thread()).lt(self.end).named("inside");
            let scores: Vec<F32> = (0..self.heads)
                .map(|head| {
                    inside
                        .select(self.score(head), lowest)
                        .named(&lettered("score", head as usize))
                })
                .collect();
            let tile_largest = b.reduce("tile_largest", Reduction::Max, &scores);
            for (head, score) in (0..).zip(scores) {
                let at = head as usize;
                let new = largest[at]
                    .load()
                    .max(tile_largest.total(head))
                    .named(&lettered("new_largest", at));
                let rescale = (largest[at].load() - new).exp2().named(&lettered("rescale", at));
                let weight = inside.select((score - new).exp2(), 0.0).named(&lettered("weight", at));
                self.weights.store(b.thread() + head * TILE, weight);
                weight_sums[at].store(weight_sums[at].load() * rescale + weight);
                value_sums[at].store(value_sums[at].load() * b.splat::<T>(rescale));
                largest[at].store(new);
            }
            b.barrier();
            self.add_values(tile, &value_sums);
            b.barrier();
        });
        self.store(&largest, &weight_sums, &value_sums);
    }

    /// Where a row of the cache starts; past the end, that of the last position.
    fn row(&self, position: U32<'b>, plane: Plane) -> U32<'b> {
        let position = position.min(self.end - 1).named("past");
        self.spec.attention.cache.row(position, plane, self.kv_head, self.lanes)
    }

    /// Products of the tile's keys and the queries, in four parts each.
    fn multiply_keys(&self, tile: U32<'b>) {
        let b = self.b;
        let lane = (b.thread() % KEY_LANES).named("key_lane");
        let group = (b.thread() / KEY_LANES).named("key_group");
        let rows: Vec<U32> = (0..KEYS_PER_GROUP)
            .map(|key| {
                self.row(tile + group + key * KEY_GROUPS, Plane::Keys)
                    .named(&lettered("key_row", key as usize))
            })
            .collect();
        let products: Vec<Vec<Pointer<'b, f32>>> = (0..self.heads as usize)
            .map(|head| {
                let name = lettered("product", head);
                (0..rows.len())
                    .map(|key| b.variable(&lettered(&name, key), 0.0))
                    .collect()
            })
            .collect();
        b.range("element", lane, self.elements, KEY_LANES, |element| {
            let keys: Vec<Value<'b, T>> = rows
                .iter()
                .map(|&row| convert::<C, T>(self.cache.load(row + element)))
                .collect();
            for (head, products) in (0..).zip(&products) {
                let query = self.q.load((self.first_head + head) * self.elements + element);
                for (&key, product) in keys.iter().zip(products) {
                    product.add(query.dot(key));
                }
            }
        });
        for (head, products) in (0..).zip(&products) {
            for (key, product) in (0..).zip(products) {
                let first = head * TILE * KEY_LANES + key * KEY_GROUPS * KEY_LANES;
                self.products.store(b.thread() + first, product.load());
            }
        }
    }

    /// Score of the thread's position.
    fn score(&self, head: u32) -> F32<'b> {
        let first = (self.b.thread() * KEY_LANES + head * TILE * KEY_LANES).named("first_product");
        let part = |lane: u32| self.products.load(first + lane);
        let product = (1..KEY_LANES).fold(part(0), |sum, lane| sum + part(lane));
        self.spec.attention.score(product)
    }

    /// Adds the tile's weighted values: each thread one element of every `rows`th position.
    fn add_values(&self, tile: U32<'b>, sums: &[Pointer<'b, T>]) {
        let b = self.b;
        let element = (b.thread() % self.elements).named("element");
        let first = (b.thread() / self.elements).named("value_group");
        let count = (self.end - tile).min(TILE).named("positions_in_tile");
        // Past the count weights are 0, and all of a tile's weights are there.
        let at_once = ROWS_AT_ONCE.min(TILE / self.rows);
        b.if_(first.lt(self.rows), || {
            b.range("position", first, count, self.rows * at_once, |position| {
                let values: Vec<Value<'b, T>> = (0..at_once)
                    .map(|index| {
                        let row = self.row(tile + position + index * self.rows, Plane::Values);
                        convert::<C, T>(self.cache.load(row + element))
                    })
                    .collect();
                for (index, value) in (0..).zip(values) {
                    for (head, sum) in (0..).zip(sums) {
                        let weight = self.weights.load(position + (head * TILE + index * self.rows));
                        sum.add(value * b.splat::<T>(weight));
                    }
                }
            });
        });
    }

    /// Joins the threads' sums and stores the part's results.
    fn store(&self, largest: &[Pointer<'b, f32>], weight_sums: &[Pointer<'b, f32>], value_sums: &[Pointer<'b, T>]) {
        let b = self.b;
        let weights: Vec<F32> = weight_sums.iter().map(|sum| sum.load()).collect();
        let weights = b.reduce("weight_sums", Reduction::Sum, &weights);
        for (head, sum) in (0..).zip(value_sums) {
            let sum = sum.load().named("value_sum");
            for lane in 0..self.lanes {
                let at = b.thread() * self.lanes + (head * THREADS * self.lanes + lane);
                self.products.store(at, component(sum, lane));
            }
        }
        b.barrier();
        for (head, largest) in (0..).zip(largest) {
            let store = || self.store_head(head, *largest, &weights);
            match self.first_stored {
                Some(first) => b.if_((self.first_head + head).ge(first), store),
                None => store(),
            }
        }
    }

    /// Stores what the part makes of one of the workgroup's heads.
    fn store_head(&self, head: u32, largest: Pointer<'b, f32>, weights: &Totals<'b>) {
        let b = self.b;
        let width = self.elements * self.lanes;
        let partial = ((self.first_head + head) * self.spec.splits + b.group().x()) * partial_width(width);
        let partial = partial.named("partial");
        b.range("column", b.thread(), width, THREADS, |column| {
            let first = (column + head * THREADS * self.lanes).named("first_sum");
            let row = |row: u32| self.products.load(first + row * width);
            let sum = (1..self.rows).fold(row(0), |sum, next| sum + row(next));
            self.partials.store(partial + column, sum);
        });
        b.if_(b.thread().eq(0), || {
            self.partials.store(partial + width, largest.load());
            self.partials.store(partial + width + 1, weights.total(head));
        });
    }
}

/// The workgroup's first query head, the first that it stores if it does not store all, and their key/value head.
fn query_heads<'b>(b: &'b Builder, spec: &AttentionSplitSpec) -> (U32<'b>, Option<U32<'b>>, U32<'b>) {
    let (sharing, together) = (spec.sharing(), spec.heads_together());
    if sharing.is_multiple_of(together) {
        let first = (b.group().y() * together).named("first_head");
        return (first, None, (first / sharing).named("kv_head"));
    }
    let groups = AttentionSplitSpec::groups_of(sharing);
    let kv_head = (b.group().y() / groups).named("kv_head");
    let group = (b.group().y() % groups).named("group_of_heads");
    let own = (group * together).named("first_own");
    let first = (kv_head * sharing + own.min(sharing - together)).named("first_head");
    (first, Some((kv_head * sharing + own).named("first_stored")), kv_head)
}

fn component<T: Float<Component = f32>>(value: Value<'_, T>, lane: u32) -> F32<'_> {
    match T::SIZE {
        Some(_) => value.component(lane),
        None => value.same(),
    }
}
