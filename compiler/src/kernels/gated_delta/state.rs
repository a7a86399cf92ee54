//! The part that depends on the state: what each block of tokens reads from it and writes to it.

use kiln_bundle::{Access, StepWord};

use super::stage::{Fetched, Inputs, Stage};
use super::{COLUMNS, DeltaDivision, QUAD};
use crate::kernels::GatedDeltaSpec;
use crate::kernels::builder::{Array, Builder, F32, Pointer, U32, Value, Vec4};
use crate::kernels::names::lettered;
use crate::kernels::step::Step;

pub struct DeltaRule<'b> {
    b: &'b Builder,
    spec: &'b GatedDeltaSpec,
    division: DeltaDivision,
    inputs: Inputs<'b>,
    stage: Stage<'b>,
    state: Array<'b, f32>,
    out: Array<'b, f32>,
    /// Sums of each thread for the key and the query of each token of a block: `[token][part][column]`. Unused by
    /// neighbours.
    exchange: Option<Array<'b, [f32; 2]>>,
    tokens: U32<'b>,
    head: U32<'b>,
    /// The thread's part of the rows.
    part: U32<'b>,
    /// The thread's column, in the workgroup and of the head.
    column: U32<'b>,
    head_column: U32<'b>,
}

impl<'b> DeltaRule<'b> {
    pub fn new(b: &'b Builder, spec: &'b GatedDeltaSpec, division: DeltaDivision) -> Self {
        let DeltaDivision {
            parts,
            block,
            neighbours,
            ..
        } = division;
        let head = b.group().y().named("head");
        let first_column = (b.group().x() * COLUMNS).named("first_column");
        let qkv = b.storage::<f32>("qkv", Access::Read);
        let a = b.storage::<f32>("a", Access::Read);
        let beta = b.storage::<f32>("b", Access::Read);
        let parameters = b.storage::<f32>("parameters", Access::Read);
        // A single token needs no count.
        let step = (!spec.single).then(|| Step::bind(b));
        let state = b.storage::<f32>("state", Access::ReadWrite);
        let out = b.storage::<f32>("out", Access::ReadWrite);
        let tokens = match step {
            None => b.literal(1),
            Some(step) => step.word(StepWord::Tokens).named("tokens"),
        };
        // Devices number the threads of a subgroup in the order of those of the workgroup. Threads next to each other
        // that share a column can add by shuffles; ones that share rows read the state in whole lines.
        let (part, column) = match neighbours {
            true => (b.thread() % parts, b.thread() / parts),
            false => (b.thread() / COLUMNS, b.thread() % COLUMNS),
        };
        let column = column.named("column");
        DeltaRule {
            b,
            spec,
            division,
            inputs: Inputs {
                spec,
                qkv,
                a,
                b: beta,
                parameters,
                tokens,
                head,
                key_head: (head / (spec.value_heads / spec.key_heads)).named("key_head"),
                first_column,
            },
            stage: Stage::new(b, division),
            state,
            out,
            exchange: (!neighbours).then(|| b.shared("exchange", block * parts * COLUMNS)),
            tokens,
            head,
            part: part.named("part"),
            column,
            head_column: (first_column + column).named("head_column"),
        }
    }

    pub fn body(self) {
        let b = self.b;
        let DeltaDivision {
            block,
            staged,
            neighbours,
            ..
        } = self.division;
        let state = self.load_state();
        let fetched = Fetched::new(b, self.division);
        fetched.fetch(&self.inputs, b.literal(0));
        if self.spec.single {
            self.stage.put(&self.inputs, &fetched, b.literal(0));
            self.stage.prepare(&self.inputs);
            self.block(b.literal(0), b.literal(0), &state);
        } else {
            b.range("first_token", 0, self.tokens, staged, |first_token| {
                self.stage.put(&self.inputs, &fetched, first_token);
                // On its way while this stage is computed with.
                fetched.fetch(&self.inputs, first_token + staged);
                self.stage.prepare(&self.inputs);
                b.range("first", 0, staged, block, |first| {
                    self.block(first_token, first, &state);
                    if !neighbours {
                        b.barrier();
                    }
                });
                if neighbours {
                    b.barrier();
                }
            });
        }
        self.store_state(&state);
    }

    /// The rows of a quad of the thread, each with its index in the state.
    fn rows(&self, quad: u32) -> Vec<(U32<'b>, U32<'b>)> {
        let GatedDeltaSpec { key_dim, value_dim, .. } = *self.spec;
        let first = ((self.part + quad * self.division.parts) * QUAD).named("first_row");
        let column = match value_dim.is_multiple_of(COLUMNS) {
            true => self.head_column,
            false => self.head_column.min(value_dim - 1),
        };
        (0..QUAD)
            .map(|row| {
                let row = first + row;
                let within = match self.rows_fit() {
                    true => row,
                    false => row.min(key_dim - 1),
                };
                (row, (self.head * key_dim + within) * value_dim + column)
            })
            .collect()
    }

    /// Whether the threads' rows are exactly those of the state.
    fn rows_fit(&self) -> bool {
        self.division.pitch() * QUAD == self.spec.key_dim
    }

    /// The thread's quads. Where there is no such row or column, copies of others: keys and queries have zeros there.
    fn load_state(&self) -> Vec<Pointer<'b, [f32; 4]>> {
        (0..self.division.quads)
            .map(|quad| {
                let rows: Vec<F32> = self.rows(quad).into_iter().map(|(_, at)| self.state.load(at)).collect();
                self.b
                    .variable(&lettered("state", quad as usize), self.b.vector::<[f32; 4]>(&rows))
            })
            .collect()
    }

    fn store_state(&self, state: &[Pointer<'b, [f32; 4]>]) {
        self.within_columns(|| {
            for (quad, state) in (0..).zip(state) {
                let state = state.load();
                for (component, (row, at)) in (0..).zip(self.rows(quad)) {
                    let store = || self.state.store(at, state.component(component));
                    match self.rows_fit() {
                        true => store(),
                        false => self.b.if_(row.lt(self.spec.key_dim), store),
                    }
                }
            }
        });
    }

    /// Runs `body` in the threads that have a column of the head.
    fn within_columns(&self, body: impl FnOnce()) {
        match self.spec.value_dim.is_multiple_of(COLUMNS) {
            true => body(),
            false => self.b.if_(self.head_column.lt(self.spec.value_dim), body),
        }
    }

    /// The tokens from `first` on of the stage that starts at `first_token`.
    fn block(&self, first_token: U32<'b>, first: U32<'b>, state: &[Pointer<'b, [f32; 4]>]) {
        let products = self.products(first, state);
        let block = products.len();
        let factors: Vec<Vec4> = (0u32..)
            .zip(&products)
            .map(|(token, _)| self.stage.factors.load(first + token).named("factors"))
            .collect();
        let couplings: Vec<Vec<_>> = (0..block)
            .map(|token| (0..=token).map(|other| self.coupling(first, token, other)).collect())
            .collect();
        let mut written: Vec<F32> = Vec::new();
        for (token, (key_product, _)) in products.iter().enumerate() {
            let value = self.stage.values.load((first + token as u32) * COLUMNS + self.column);
            let mut difference = value - factors[token].component(0) * *key_product;
            for (other, &earlier) in written.iter().enumerate() {
                difference = difference - couplings[token][other].x() * earlier;
            }
            written.push((difference * factors[token].component(3)).named(&lettered("written", token)));
        }
        self.within_columns(|| {
            self.b.if_(self.part.eq(0), || {
                for (token, (_, query_product)) in products.iter().enumerate() {
                    let seen = factors[token].component(1) * *query_product;
                    let read = (0..=token).fold(seen, |sum, other| sum + couplings[token][other].y() * written[other]);
                    self.store_out(first_token + first + token as u32, read);
                }
            });
        });
        self.update(first, state, &factors, &written);
    }

    fn coupling(&self, first: U32<'b>, token: usize, other: usize) -> Value<'b, [f32; 2]> {
        let block = self.division.block;
        let at = first * block + (token as u32 * block + other as u32);
        self.stage.couplings.load(at).named("coupling")
    }

    fn store_out(&self, token: U32<'b>, value: F32<'b>) {
        let GatedDeltaSpec {
            value_heads, value_dim, ..
        } = *self.spec;
        let store = || {
            let at = (token * value_heads + self.head) * value_dim + self.head_column;
            self.out.store(at, value);
        };
        match self.spec.single {
            true => store(),
            false => self.b.if_(token.lt(self.tokens), store),
        }
    }

    /// Products of key and query of each token of a block with the thread's column of the state.
    fn products(&self, first: U32<'b>, state: &[Pointer<'b, [f32; 4]>]) -> Vec<(F32<'b>, F32<'b>)> {
        let b = self.b;
        let sums: Vec<(Pointer<f32>, Pointer<f32>)> = (0..self.division.block as usize)
            .map(|token| {
                let sum = |name| b.variable(&lettered(name, token), 0.0);
                (sum("key_sum"), sum("query_sum"))
            })
            .collect();
        let start = self.row_start(first).named("first_quad");
        for (quad, state) in (0u32..).zip(state) {
            let state = state.load();
            for (token, (key_sum, query_sum)) in (0u32..).zip(&sums) {
                let at = start + (token * self.division.pitch() + quad * self.division.parts);
                key_sum.add(state.dot(self.stage.keys.load(at)));
                query_sum.add(state.dot(self.stage.queries.load(at)));
            }
        }
        let sums: Vec<(F32, F32)> = sums.iter().map(|(key, query)| (key.load(), query.load())).collect();
        self.joined(&sums)
    }

    /// Where the thread's first quad of a token of the stage lies.
    fn row_start(&self, token: U32<'b>) -> U32<'b> {
        token * self.division.pitch() + self.part
    }

    /// The sums over all threads of a column, in all of them.
    fn joined(&self, sums: &[(F32<'b>, F32<'b>)]) -> Vec<(F32<'b>, F32<'b>)> {
        let b = self.b;
        let parts = self.division.parts;
        let Some(exchange) = self.exchange else {
            let joined = |mut sum: F32<'b>| {
                for step in 0..parts.ilog2() {
                    sum = sum + b.subgroup_shuffle_xor(sum, 1 << step);
                }
                sum
            };
            return sums.iter().map(|&(key, query)| (joined(key), joined(query))).collect();
        };
        let mine = (self.part * COLUMNS + self.column).named("mine");
        for (token, &(key, query)) in (0u32..).zip(sums) {
            exchange.store(mine + token * (parts * COLUMNS), b.vector::<[f32; 2]>(&[key, query]));
        }
        b.barrier();
        (0..sums.len() as u32)
            .map(|token| {
                let part = |part: u32| exchange.load(self.column + (token * parts + part) * COLUMNS);
                let sum = (1..parts).fold(part(0), |sum, next| sum + part(next)).named("sums");
                (sum.x(), sum.y())
            })
            .collect()
    }

    fn update(&self, first: U32<'b>, state: &[Pointer<'b, [f32; 4]>], factors: &[Vec4<'b>], written: &[F32<'b>]) {
        let b = self.b;
        let decay = b.splat::<[f32; 4]>(self.stage.decays.load(first / self.division.block));
        let decay = decay.named("decay");
        let weights: Vec<F32> = factors
            .iter()
            .zip(written)
            .enumerate()
            .map(|(token, (factors, &written))| (factors.component(2) * written).named(&lettered("weight", token)))
            .collect();
        let start = self.row_start(first);
        for (quad, state) in (0u32..).zip(state) {
            let mut new = state.load() * decay;
            for (token, &weight) in (0u32..).zip(&weights) {
                let at = start + (token * self.division.pitch() + quad * self.division.parts);
                new = new + self.stage.keys.load(at) * weight;
            }
            state.store(new);
        }
    }
}
