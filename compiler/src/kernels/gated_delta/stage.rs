//! What the gated delta rule needs of a few tokens, in workgroup memory: keys, queries, values, and all factors that do
//! not depend on the state.

use super::{COLUMNS, DeltaDivision, QUAD};
use crate::kernels::activation::{sigmoid, softplus};
use crate::kernels::builder::{Array, Builder, F32, Pointer, U32, Vec4};
use crate::kernels::names::lettered;
use crate::kernels::{GatedDeltaSpec, Strided};

/// Added to the sum of squares of a key or query before its root.
const EPS: f32 = 1e-6;
/// Most threads that share a product of two tokens.
const MOST_LANES: u32 = 8;

/// The bindings that are read, and where the workgroup is in them.
pub struct Inputs<'b> {
    pub spec: &'b GatedDeltaSpec,
    pub qkv: Array<'b, f32>,
    pub a: Array<'b, f32>,
    pub b: Array<'b, f32>,
    /// Of each value head: a_log, then dt_bias.
    pub parameters: Array<'b, f32>,
    pub tokens: U32<'b>,
    pub head: U32<'b>,
    pub key_head: U32<'b>,
    pub first_column: U32<'b>,
}

impl<'b> Inputs<'b> {
    /// A token of the step; past the end, the last.
    fn token(&self, token: U32<'b>) -> U32<'b> {
        match self.spec.single {
            true => self.head.builder().literal(0),
            false => token.min(self.tokens - 1).named("token"),
        }
    }

    /// Four elements of the key head of a token; zeros past its end.
    fn quad(&self, lies: Strided, token: U32<'b>, quad: U32<'b>) -> Vec4<'b> {
        let key_dim = self.spec.key_dim;
        let b = quad.builder();
        let start = (token * lies.stride + lies.offset + self.key_head * key_dim).named("start");
        let elements: Vec<F32> = (0..QUAD)
            .map(|element| {
                let element = quad * QUAD + element;
                match key_dim.is_multiple_of(QUAD) {
                    true => self.qkv.load(start + element),
                    false => {
                        let value = self.qkv.load(start + element.min(key_dim - 1));
                        element.lt(key_dim).select(value, 0.0)
                    }
                }
            })
            .collect();
        b.vector::<[f32; 4]>(&elements)
    }

    /// The value of a token in a column of the workgroup; past the end of the head, its last.
    fn value(&self, token: U32<'b>, column: U32<'b>) -> F32<'b> {
        let Strided { stride, offset } = self.spec.v;
        let value_dim = self.spec.value_dim;
        let column = self.first_column + column;
        let column = match value_dim.is_multiple_of(COLUMNS) {
            true => column,
            false => column.min(value_dim - 1),
        };
        self.qkv.load(token * stride + offset + self.head * value_dim + column)
    }

    /// The head's number of a token.
    fn of_head(&self, numbers: Array<'b, f32>, lies: Strided, token: U32<'b>) -> F32<'b> {
        numbers.load(token * lies.stride + lies.offset + self.head)
    }
}

/// A thread's share of a stage, on its way to workgroup memory.
pub struct Fetched<'b> {
    b: &'b Builder,
    division: DeltaDivision,
    keys: Vec<Pointer<'b, [f32; 4]>>,
    queries: Vec<Pointer<'b, [f32; 4]>>,
    values: Vec<Pointer<'b, f32>>,
    /// a and b, in the threads that have a token.
    gates: Pointer<'b, [f32; 2]>,
}

impl<'b> Fetched<'b> {
    pub fn new(b: &'b Builder, division: DeltaDivision) -> Self {
        let places = |name: &str, elements: u32| {
            (0..elements.div_ceil(b.workgroup()))
                .map(|i| lettered(name, i as usize))
                .collect()
        };
        let quads = |name| -> Vec<String> { places(name, division.staged * division.pitch()) };
        let values: Vec<String> = places("fetched_value", division.staged * COLUMNS);
        let zeros = |name: &String| b.variable(name, b.zero::<[f32; 4]>());
        Fetched {
            b,
            division,
            keys: quads("fetched_key").iter().map(zeros).collect(),
            queries: quads("fetched_query").iter().map(zeros).collect(),
            values: values.iter().map(|name| b.variable(name, 0.0)).collect(),
            gates: b.variable("fetched_gates", b.zero::<[f32; 2]>()),
        }
    }

    /// Reads the tokens from `first` on.
    pub fn fetch(&self, inputs: &Inputs<'b>, first: U32<'b>) {
        let spec = inputs.spec;
        for (index, (key, query)) in (0..).zip(self.keys.iter().zip(&self.queries)) {
            self.each_quad(spec, index, |token, quad| {
                let token = inputs.token(first + token);
                key.store(inputs.quad(spec.k, token, quad));
                query.store(inputs.quad(spec.q, token, quad));
            });
        }
        for (index, value) in (0..).zip(&self.values) {
            self.each_value(index, |token, column| {
                value.store(inputs.value(inputs.token(first + token), column))
            });
        }
        self.b.if_(self.b.thread().lt(self.division.staged), || {
            let token = inputs.token(first + self.b.thread());
            let a = inputs.of_head(inputs.a, spec.a, token);
            let b = inputs.of_head(inputs.b, spec.b, token);
            self.gates.store(self.b.vector::<[f32; 2]>(&[a, b]));
        });
    }

    /// Runs `body` with token and quad of the thread's quad number `index`, if it has so many.
    fn each_quad(&self, spec: &GatedDeltaSpec, index: u32, body: impl FnOnce(U32<'b>, U32<'b>)) {
        self.each(spec.key_dim.div_ceil(QUAD), index, body);
    }

    /// Runs `body` with token and column of the thread's value number `index`, if it has so many.
    fn each_value(&self, index: u32, body: impl FnOnce(U32<'b>, U32<'b>)) {
        self.each(COLUMNS, index, body);
    }

    fn each(&self, width: u32, index: u32, body: impl FnOnce(U32<'b>, U32<'b>)) {
        let b = self.b;
        let threads = b.workgroup();
        let all = self.division.staged * width;
        let i = (b.thread() + index * threads).named("i");
        let run = || body(i / width, i % width);
        if (index + 1) * threads <= all {
            run();
        } else if index * threads < all {
            b.if_(i.lt(all), run);
        }
    }
}

/// Some tokens in workgroup memory. "Block" is the token's in the stage.
pub struct Stage<'b> {
    b: &'b Builder,
    division: DeltaDivision,
    /// `[token][pitch]`, zeros past the end of the head.
    pub keys: Array<'b, [f32; 4]>,
    pub queries: Array<'b, [f32; 4]>,
    /// `[token][COLUMNS]`
    pub values: Array<'b, f32>,
    /// Logarithm of the decay, and β: `[token]`.
    gates: Array<'b, [f32; 2]>,
    /// Parts of k(t)·k(j), q(t)·k(j), q(t)·q(t), for t of the stage and j of its block: `[t][j][lane]`.
    products: Array<'b, [f32; 4]>,
    /// Factors of the product of state and key, of state and query, of what is written to the state, and β: `[token]`.
    pub factors: Array<'b, [f32; 4]>,
    /// What is written by j takes part in what t writes, and reads: `[t][j]`, for j up to t of its block.
    pub couplings: Array<'b, [f32; 2]>,
    /// Of a whole block.
    pub decays: Array<'b, f32>,
}

impl<'b> Stage<'b> {
    pub fn new(b: &'b Builder, division: DeltaDivision) -> Self {
        let DeltaDivision { staged, block, .. } = division;
        Stage {
            b,
            division,
            keys: b.shared("keys", staged * division.pitch()),
            queries: b.shared("queries", staged * division.pitch()),
            values: b.shared("values", staged * COLUMNS),
            gates: b.shared("gates", staged),
            products: b.shared("products", staged * block * lanes(division)),
            factors: b.shared("factors", staged),
            couplings: b.shared("couplings", staged * block),
            decays: b.shared("decays", staged / block),
        }
    }

    /// Takes over what was fetched: the tokens from `first` on. Past the end of the step they decay and write nothing.
    pub fn put(&self, inputs: &Inputs<'b>, fetched: &Fetched<'b>, first: U32<'b>) {
        let b = self.b;
        for (index, (key, query)) in (0..).zip(fetched.keys.iter().zip(&fetched.queries)) {
            fetched.each_quad(inputs.spec, index, |token, quad| {
                let at = (token * self.division.pitch() + quad).named("at");
                self.keys.store(at, key.load());
                self.queries.store(at, query.load());
            });
        }
        for (index, value) in (0..).zip(&fetched.values) {
            fetched.each_value(index, |token, column| {
                self.values.store(token * COLUMNS + column, value.load())
            });
        }
        b.if_(b.thread().lt(self.division.staged), || {
            let rate = inputs.parameters.load(inputs.head).exp().named("rate");
            let bias = inputs.parameters.load(inputs.head + inputs.spec.value_heads);
            let gates = fetched.gates.load();
            let gates = [-(rate * softplus(gates.x() + bias)), sigmoid(gates.y())];
            let gates = match inputs.spec.single {
                true => gates,
                false => {
                    let in_step = (first + b.thread()).lt(inputs.tokens).named("in_step");
                    gates.map(|gate| in_step.select(gate, 0.0))
                }
            };
            self.gates.store(b.thread(), b.vector::<[f32; 2]>(&gates));
        });
        b.barrier();
    }

    /// Computes the factors of the tokens there are. Ends with a barrier.
    pub fn prepare(&self, inputs: &Inputs<'b>) {
        let b = self.b;
        let DeltaDivision { staged, block, .. } = self.division;
        let lanes = lanes(self.division);
        b.if_(b.thread().lt(staged * block * lanes), || {
            let lane = (b.thread() % lanes).named("lane");
            let pair = (b.thread() / lanes).named("pair");
            self.products
                .store(b.thread(), self.part_of_products(inputs.spec, pair, lane));
        });
        b.barrier();
        b.if_(b.thread().lt(staged * block), || {
            self.factors_of(inputs.spec, b.thread())
        });
        b.barrier();
    }

    /// The tokens t and j of a pair.
    fn pair(&self, pair: U32<'b>) -> (U32<'b>, U32<'b>) {
        let block = self.division.block;
        let token = (pair / block).named("token");
        (token, (token / block * block + pair % block).named("other"))
    }

    fn part_of_products(&self, spec: &GatedDeltaSpec, pair: U32<'b>, lane: U32<'b>) -> Vec4<'b> {
        let b = self.b;
        let (token, other) = self.pair(pair);
        let pitch = self.division.pitch();
        let sums = ["key_key", "query_key", "query_query"].map(|name| b.variable(name, 0.0));
        b.range(
            "quad",
            lane,
            spec.key_dim.div_ceil(QUAD),
            lanes(self.division),
            |quad| {
                let key = self.keys.load(token * pitch + quad).named("key");
                let query = self.queries.load(token * pitch + quad).named("query");
                let other = self.keys.load(other * pitch + quad).named("other_key");
                sums[0].add(key.dot(other));
                sums[1].add(query.dot(other));
                sums[2].add(query.dot(query));
            },
        );
        let [key_key, query_key, query_query] = sums.map(|sum| sum.load());
        b.vector::<[f32; 4]>(&[key_key, query_key, query_query, b.literal(0.0)])
    }

    /// Stores the coupling of a pair, and the factors of a token where the pair is that with itself.
    fn factors_of(&self, spec: &GatedDeltaSpec, pair: U32<'b>) {
        let b = self.b;
        let block = self.division.block;
        let (token, other) = self.pair(pair);
        let first = (token / block * block).named("first_of_block");
        let products = self.joined_products(pair);
        let of_token = self.joined_products(token * block + token % block);
        let of_other = self.joined_products(other * block + other % block);
        let norm = |squares: F32<'b>| b.literal(1.0) / (squares + EPS).sqrt();
        let key = norm(of_token.component(0)).named("key_factor");
        let query = (norm(of_token.component(2)) * (1.0 / spec.key_dim as f32).sqrt()).named("query_factor");
        let other_key = norm(of_other.component(0)).named("other_key_factor");

        // Sums of logarithms, so that a decay of almost nothing loses nothing of the others.
        let [before, between, after] = ["before", "between", "after"].map(|name| b.variable(name, 0.0));
        for index in 0..block {
            let index = first + index;
            let gate = self.gates.load(index).x().named("log_decay");
            let up_to_token = index.le(token);
            before.add(up_to_token.select(gate, 0.0));
            after.add(up_to_token.select(0.0, gate));
            between.add((up_to_token & index.gt(other)).select(gate, 0.0));
        }
        let between = between.load().exp().named("decay_between");
        let writes = products.component(0) * key * other_key * between;
        let reads = products.component(1) * query * other_key * between;
        self.couplings.store(pair, b.vector::<[f32; 2]>(&[writes, reads]));
        b.if_(token.eq(other), || {
            let before = before.load().exp().named("decay_before");
            let after = after.load().exp().named("decay_after");
            let beta = self.gates.load(token).y();
            let factors = [before * key, before * query, after * key, beta];
            self.factors.store(token, b.vector::<[f32; 4]>(&factors));
            b.if_((token % block).eq(block - 1), || {
                self.decays.store(token / block, before)
            });
        });
    }

    fn joined_products(&self, pair: U32<'b>) -> Vec4<'b> {
        let lanes = lanes(self.division);
        let first = (pair * lanes).named("first_product");
        let part = |lane: u32| self.products.load(first + lane);
        (1..lanes)
            .fold(part(0), |sum, lane| sum + part(lane))
            .named("products_of_pair")
    }
}

/// Threads that share the products of a pair.
fn lanes(division: DeltaDivision) -> u32 {
    (division.threads() / (division.staged * division.block)).min(MOST_LANES)
}
