//! Attention of many tokens, tiled: online softmax (Milakov & Gimelshein 2018, Dao 2022).
//!
//! A workgroup takes 32 queries of one head and walks over the visible positions, 32 keys at a time. Its threads form
//! a grid of 16 query lanes by 8 key lanes. Each has 2 queries (`query_lane`, `+ 16`): of these it computes the scores
//! against 4 keys (`key_lane`, `+ 8`, ..) and then every eighth column of the output. Queries, keys and values pass
//! through workgroup memory in slices of the head, all through the same array; the next slice is read from memory while
//! the one before is computed with.
//!
//! ```text
//!   scores                  32 keys                     one thread, (query_lane q, key_lane k), has
//!                   k  ..  k+8 ..  k+16 ..  k+24        2 queries by 4 keys; the weights of its keys
//!            q      x      x       x        x           are one vector:
//!   32       ..                                             weights[k][q]  = (k, k+8, k+16, k+24)
//!   queries  q+16   x      x       x        x               weights[k][q + 16]
//!
//!   output                elements of the head          the same thread has, for its 2 queries,
//!            q      k      k+8     k+16     ..          every eighth element
//!            q+16   k      k+8     k+16     ..
//!
//!   tile, for scores:   element 0: [ 32 queries ] -   element 1: [ 32 queries ] - ..   PITCH = 33: one place
//!                       element 0: [ 32 keys    ] -   element 1: [ 32 keys    ] - ..   of each line is unused
//!   tile, for values:   key 0: [ 64 numbers ]  key 1: [ 64 numbers ] ..
//! ```

use half::f16;
use kiln_bundle::{Access, StepWord};

use super::attention::{Sinks, lowest};
use super::builder::{Array, Builder, F32, Float, KernelError, KernelSource, Pointer, U32, Value, Vec4};
use super::cache::{Plane, convert};
use super::names::lettered;
use super::step::Step;
use super::{AttentionPrefillSpec, AttentionShape, CacheType, Capability};

const QUERIES: u32 = AttentionPrefillSpec::QUERIES;
/// As many as queries: both move alike.
const KEYS: u32 = QUERIES;
const QUERY_LANES: u32 = 16;
const KEY_LANES: u32 = 8;
const THREADS: u32 = QUERY_LANES * KEY_LANES;
const QUERIES_PER_THREAD: u32 = QUERIES / QUERY_LANES;
const KEYS_PER_THREAD: u32 = KEYS / KEY_LANES;
/// Distance of rows in workgroup memory: odd, so that lanes that write one column meet different banks.
const PITCH: u32 = 33;
/// Most elements of queries and keys in a slice.
const MOST_IN_SLICE: u32 = 8;
/// Numbers of values: heads that are no whole fours have as many in a slice, so that a long one is not many slices, whose
/// text and barriers are all written out.
const MOST_NUMBERS: u32 = 64;

pub fn build(spec: &AttentionPrefillSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    let shape = &spec.attention;
    let name = format!("attention_prefill_{}", shape.name());
    shape.check(&name, capability)?;
    let b = Builder::new(name, THREADS, capability);
    match (shape.cache.by_fours(), shape.cache.element) {
        (true, CacheType::F32) => TiledAttention::<[f32; 4], [f32; 4]>::new(&b, shape, 4).body(),
        (true, CacheType::F16) => TiledAttention::<[f32; 4], [f16; 4]>::new(&b, shape, 4).body(),
        (false, CacheType::F32) => TiledAttention::<f32, f32>::new(&b, shape, 1).body(),
        (false, CacheType::F16) => TiledAttention::<f32, f16>::new(&b, shape, 1).body(),
    }
    b.finish()
}

/// `T`: elements of a head as computed with (`lanes` numbers each); `C`: as cached.
struct TiledAttention<'b, T, C> {
    b: &'b Builder,
    shape: &'b AttentionShape,
    lanes: u32,
    /// Elements of a head.
    elements: u32,
    q: Array<'b, T>,
    cache: Array<'b, C>,
    sinks: Option<Sinks<'b>>,
    out: Array<'b, T>,
    /// Queries then keys, `[element][PITCH]`; or values, `[key][most_columns]`.
    tile: Array<'b, T>,
    /// Most elements of values in a slice.
    most_columns: u32,
    /// Weights of four keys (`key_lane`, `+ 8`, ..): `[key_lane][PITCH queries]`.
    weights: Array<'b, [f32; 4]>,
    /// One number of each thread: `[key_lane][query]`.
    exchange: Array<'b, f32>,
    tokens: U32<'b>,
    head: U32<'b>,
    kv_head: U32<'b>,
    query_lane: U32<'b>,
    key_lane: U32<'b>,
    /// First token of the step in this workgroup.
    first_token: U32<'b>,
    first_position: U32<'b>,
    /// Past the last position that any query of the workgroup sees.
    end: U32<'b>,
}

impl<'b, T: Float<Component = f32>, C: Float> TiledAttention<'b, T, C> {
    fn new(b: &'b Builder, shape: &'b AttentionShape, lanes: u32) -> Self {
        let q = b.storage::<T>("q", Access::Read);
        let cache = b.storage::<C>("cache", Access::Read);
        let sinks = shape.sinks.then(|| Sinks::bind(b));
        let step = Step::bind(b);
        let out = b.storage::<T>("out", Access::ReadWrite);
        let elements = shape.cache.width / lanes;
        let slice = slice_of(elements);
        let most_columns = MOST_NUMBERS / lanes;
        let tile = b.shared::<T>("tile", (2 * slice * PITCH).max(KEYS * most_columns));
        let weights = b.shared::<[f32; 4]>("weights", KEY_LANES * PITCH);
        let exchange = b.shared::<f32>("exchange", KEY_LANES * QUERIES);

        let tokens = step.word(StepWord::Tokens).named("tokens");
        let position = step.word(StepWord::Position).named("position");
        let head = b.group().y().named("head");
        // The last queries see the most: start with them.
        let block = ((tokens + (QUERIES - 1)) / QUERIES - 1 - b.group().x()).named("block");
        let first_token = (block * QUERIES).named("first_token");
        TiledAttention {
            b,
            shape,
            lanes,
            elements,
            q,
            cache,
            sinks,
            out,
            tile,
            most_columns,
            weights,
            exchange,
            tokens,
            head,
            kv_head: (head / shape.heads_per_kv()).named("kv_head"),
            query_lane: (b.thread() / KEY_LANES).named("query_lane"),
            key_lane: (b.thread() % KEY_LANES).named("key_lane"),
            first_token,
            first_position: (position + first_token).named("first_position"),
            end: (position + (first_token + QUERIES).min(tokens)).named("end"),
        }
    }

    fn body(self) {
        let b = self.b;
        let lowest = lowest(b);
        let per_query = |name: &str, start: F32<'b>| -> Vec<Pointer<'b, f32>> {
            (0..QUERIES_PER_THREAD)
                .map(|query| b.variable(&format!("{name}_{query}_"), start))
                .collect()
        };
        // A sink is there from the start, with weight 1. The sums of the key lanes are joined in the end: one has it.
        let (first_maximum, first_sum) = match self.sinks {
            Some(sinks) => (sinks.score(self.head), self.key_lane.eq(0).select(1.0, 0.0)),
            None => (lowest, b.literal(0.0)),
        };
        let maxima = per_query("maximum", first_maximum);
        let sums = per_query("sum", first_sum);
        let totals: Vec<Vec<Pointer<'b, T>>> = (0..QUERIES_PER_THREAD)
            .map(|query| {
                (0..self.elements.div_ceil(KEY_LANES))
                    .map(|column| b.variable(&format!("total_{query}_{column}_"), b.zero::<T>()))
                    .collect()
            })
            .collect();

        let start = self.shape.first_visible(b, self.first_position).named("start");
        let fetched = Fetched::new(b, slice_of(self.elements));
        self.fetch_queries_and_keys(start, b.literal(0), &fetched);
        b.range("first_key", start, self.end, KEYS, |first_key| {
            let scores = self.scores(first_key, &fetched, lowest);
            let values = self.fetch_values(first_key, 0);
            for (query, scores) in (0..).zip(&scores) {
                let largest = scores.iter().copied().reduce(|a, b| a.max(b)).expect("several keys");
                self.exchange.store(self.exchanged(self.key_lane, query), largest);
            }
            b.barrier();
            for (query, scores) in (0..).zip(&scores) {
                let at = query as usize;
                let old = maxima[at].load().named("old_maximum");
                let maximum = self.joined(query, old, |a, b| a.max(b)).named("new_maximum");
                let weight = |&score: &F32<'b>| score.gt(lowest).select((score - maximum).exp2(), 0.0);
                let weights: Vec<F32> = scores.iter().map(weight).collect();
                let weights = b.vector::<[f32; 4]>(&weights).named("weights_of_keys");
                self.weights.store(self.key_lane * PITCH + self.query(query), weights);
                let decay = (old - maximum).exp2().named("decay");
                sums[at].store(sums[at].load() * decay + weights.dot(b.splat(1.0)));
                for total in &totals[at] {
                    total.store(total.load() * b.splat::<T>(decay));
                }
                maxima[at].store(maximum);
            }
            self.add_values(first_key, values, &totals);
        });
        self.store(&sums, &totals);
    }

    /// The thread's query number `index`, in the workgroup.
    fn query(&self, index: u32) -> U32<'b> {
        self.query_lane + index * QUERY_LANES
    }

    fn exchanged(&self, key_lane: U32<'b>, query: u32) -> U32<'b> {
        key_lane * QUERIES + self.query(query)
    }

    /// What all key lanes exchanged about a query, joined with `first`.
    fn joined(&self, query: u32, first: F32<'b>, join: impl Fn(F32<'b>, F32<'b>) -> F32<'b>) -> F32<'b> {
        let of_lane = |lane: u32| self.exchange.load(self.exchanged(self.b.literal(lane), query));
        (0..KEY_LANES).fold(first, |joined, lane| join(joined, of_lane(lane)))
    }

    /// Scores of the thread's queries against its keys; [`lowest`] where the query does not see the key.
    fn scores(&self, first_key: U32<'b>, fetched: &Fetched<'b, T>, lowest: F32<'b>) -> Vec<Vec<F32<'b>>> {
        let b = self.b;
        let slice = slice_of(self.elements);
        let products: Vec<Vec<Pointer<'b, T>>> = (0..QUERIES_PER_THREAD)
            .map(|query| {
                (0..KEYS_PER_THREAD)
                    .map(|key| b.variable(&format!("product_{query}_{key}_"), b.zero::<T>()))
                    .collect()
            })
            .collect();
        b.range("first_element", 0, self.elements, slice, |first_element| {
            self.put_queries_and_keys(fetched);
            b.barrier();
            // The next slice is on its way while this one is computed with; after the last comes the next tile's first.
            let next = (first_element + slice).named("next_element");
            let wraps = next.ge(self.elements).named("wraps");
            let next_keys = wraps.select(first_key + KEYS, first_key).named("next_keys");
            self.fetch_queries_and_keys(next_keys, wraps.select(0, next), fetched);
            b.range("element", 0, slice, 1, |element| {
                let queries = (element * PITCH + self.query_lane).named("queries");
                let keys = (element * PITCH + slice * PITCH + self.key_lane).named("keys");
                let load = |start: U32<'b>, distance: u32, count: u32| -> Vec<Value<'b, T>> {
                    (0..count)
                        .map(|index| self.tile.load(start + index * distance))
                        .collect()
                };
                let keys = load(keys, KEY_LANES, KEYS_PER_THREAD);
                for (query, products) in load(queries, QUERY_LANES, QUERIES_PER_THREAD)
                    .into_iter()
                    .zip(&products)
                {
                    for (&key, product) in keys.iter().zip(products) {
                        product.add(query * key);
                    }
                }
            });
            b.barrier();
        });
        (0..)
            .zip(&products)
            .map(|(query, products)| {
                let position = (self.first_position + self.query(query)).named("query_position");
                (0..)
                    .zip(products)
                    .map(|(key, product)| {
                        let past = first_key + self.key_lane + key * KEY_LANES;
                        let score = self.shape.score(product.load().dot(b.splat(1.0)));
                        self.shape.visible(past, position).select(score, lowest).named("score")
                    })
                    .collect()
            })
            .collect()
    }

    /// Reads a slice of the queries, and of the keys from `first_key` on.
    fn fetch_queries_and_keys(&self, first_key: U32<'b>, first_element: U32<'b>, fetched: &Fetched<'b, T>) {
        let slice = slice_of(self.elements);
        for (index, (query, key)) in (0..).zip(fetched.queries.iter().zip(&fetched.keys)) {
            let [row, element] = self.row_and_column(index, slice);
            let token = (self.first_token + row).min(self.tokens - 1).named("token");
            query.store(self.q.load(self.row_of_query(token) + first_element + element));
            let start = self.row_of_cache(first_key + row, Plane::Keys);
            key.store(convert::<C, T>(self.cache.load(start + first_element + element)));
        }
    }

    fn put_queries_and_keys(&self, fetched: &Fetched<'b, T>) {
        let slice = slice_of(self.elements);
        for (index, (query, key)) in (0..).zip(fetched.queries.iter().zip(&fetched.keys)) {
            let [row, element] = self.row_and_column(index, slice);
            self.within(index, slice, || {
                let at = (element * PITCH + row).named("at");
                self.tile.store(at, query.load());
                self.tile.store(at + slice * PITCH, key.load());
            });
        }
    }

    /// Reads some columns of the values from `first_key` on.
    fn fetch_values(&self, first_key: U32<'b>, first_column: u32) -> Vec<Value<'b, T>> {
        let columns = self.columns_from(first_column);
        (0..per_thread(columns))
            .map(|index| {
                let [row, column] = self.row_and_column(index, columns);
                let start = self.row_of_cache(first_key + row, Plane::Values);
                convert::<C, T>(self.cache.load(start + column + first_column)).named("fetched_value")
            })
            .collect()
    }

    fn put_values(&self, first_column: u32, values: &[Value<'b, T>]) {
        let columns = self.columns_from(first_column);
        for (index, &value) in (0..).zip(values) {
            let [row, column] = self.row_and_column(index, columns);
            self.within(index, columns, || {
                self.tile.store(row * self.most_columns + column, value)
            });
        }
    }

    /// Columns of values in the slice that starts at `first_column`.
    fn columns_from(&self, first_column: u32) -> u32 {
        (self.elements - first_column).min(self.most_columns)
    }

    /// Row and column of the thread's element number `index` of a tile that is `columns` wide.
    fn row_and_column(&self, index: u32, columns: u32) -> [U32<'b>; 2] {
        let i = self.b.thread() + index * THREADS;
        [(i / columns).named("row"), (i % columns).named("column")]
    }

    /// Runs `body` where that element is in the tile.
    fn within(&self, index: u32, columns: u32, body: impl FnOnce()) {
        match (index + 1) * THREADS <= KEYS * columns {
            true => body(),
            false => self.b.if_((self.b.thread() + index * THREADS).lt(KEYS * columns), body),
        }
    }

    /// Adds the weighted values of a tile of positions to the totals; `values` are those of the first columns.
    fn add_values(&self, first_key: U32<'b>, mut values: Vec<Value<'b, T>>, totals: &[Vec<Pointer<'b, T>>]) {
        let b = self.b;
        for first_column in (0..self.elements).step_by(self.most_columns as usize) {
            self.put_values(first_column, &values);
            b.barrier();
            let next_column = first_column + self.most_columns;
            if next_column < self.elements {
                values = self.fetch_values(first_key, next_column);
            }
            let first_total = (first_column / KEY_LANES) as usize;
            let totals_per_thread = self.columns_from(first_column).div_ceil(KEY_LANES) as usize;
            b.range("lane", 0, KEY_LANES, 1, |lane| {
                let weights: Vec<Vec4> = (0..QUERIES_PER_THREAD)
                    .map(|query| {
                        self.weights
                            .load(lane * PITCH + self.query(query))
                            .named("weights_of_keys")
                    })
                    .collect();
                for key in 0..KEYS_PER_THREAD {
                    let row = ((lane + key * KEY_LANES) * self.most_columns + self.key_lane).named("row");
                    for column in 0..totals_per_thread {
                        let value = self.tile.load(row + column as u32 * KEY_LANES);
                        for (weights, totals) in weights.iter().zip(totals) {
                            totals[first_total + column].add(value * b.splat::<T>(weights.component(key)));
                        }
                    }
                }
            });
            b.barrier();
        }
    }

    fn store(&self, sums: &[Pointer<'b, f32>], totals: &[Vec<Pointer<'b, T>>]) {
        let b = self.b;
        for (query, sum) in (0..).zip(sums) {
            self.exchange.store(self.exchanged(self.key_lane, query), sum.load());
        }
        b.barrier();
        for (query, totals) in (0..).zip(totals) {
            let sum = self.joined(query, b.literal(0.0), |a, b| a + b);
            let factor = b.splat::<T>(b.literal(1.0) / sum).named("factor");
            let token = (self.first_token + self.query(query)).named("token");
            let row = self.row_of_query(token).named("row");
            b.if_(token.lt(self.tokens), || {
                for (index, total) in (0..).zip(totals) {
                    let column = (self.key_lane + index * KEY_LANES).named("column");
                    let store = || self.out.store(row + column, total.load() * factor);
                    match (index + 1) * KEY_LANES <= self.elements {
                        true => store(),
                        false => b.if_(column.lt(self.elements), store),
                    }
                }
            });
        }
    }

    /// Where the head of a token starts in `q` and `out`.
    fn row_of_query(&self, token: U32<'b>) -> U32<'b> {
        (token * self.shape.heads + self.head) * self.elements
    }

    /// Where a row of the cache starts; past the end, that of the last position.
    fn row_of_cache(&self, position: U32<'b>, plane: Plane) -> U32<'b> {
        let position = position.min(self.end - 1).named("past");
        self.shape.cache.row(position, plane, self.kv_head, self.lanes)
    }
}

/// Elements of queries and keys that are in workgroup memory at once: divides `elements`.
fn slice_of(elements: u32) -> u32 {
    (1..=MOST_IN_SLICE)
        .rev()
        .find(|slice| elements.is_multiple_of(*slice))
        .expect("1 divides all")
}

/// Elements of a tile that each thread moves.
fn per_thread(columns: u32) -> u32 {
    (KEYS * columns).div_ceil(THREADS)
}

/// A thread's share of a slice of queries and keys, on its way to workgroup memory.
struct Fetched<'b, T> {
    queries: Vec<Pointer<'b, T>>,
    keys: Vec<Pointer<'b, T>>,
}

impl<'b, T: Float> Fetched<'b, T> {
    fn new(b: &'b Builder, slice: u32) -> Self {
        let places = |name: &str| {
            (0..per_thread(slice))
                .map(|i| b.variable(&lettered(name, i as usize), b.zero::<T>()))
                .collect()
        };
        Fetched {
            queries: places("fetched_query"),
            keys: places("fetched_key"),
        }
    }
}
