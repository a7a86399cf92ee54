//! Dot products of a few rows of a weight with one row of the input: the inner loop of all that runs token by token.
//!
//! Threads walk the columns chunk by chunk; a chunk of the input is read once and used for all rows, whose loads do not
//! depend on each other. A norm before the product costs no pass of its own. With `s = 1 / sqrt(mean(x²) + eps)`, one number
//! for the whole row, `Σ w · (x · s · g) = s · Σ w · (x · g)`: the input times the norm's weight `g` goes into the dot
//! products, squares of the input are summed on the way, and `s` is applied to the totals.

use kiln_bundle::Access;

use super::Prologue;
use super::builder::{Bool, Builder, F32, KernelError, Pointer, Reduction, Totals, U32, Vec4};
use super::names::lettered;
use super::quads::Quads;
use super::weight::{Chunk, Weight, offset_sum};

/// The input of a product, and what is done to it while it is read.
#[derive(Clone)]
pub struct Input<'b> {
    b: &'b Builder,
    cols: u32,
    x: Quads<'b>,
    norm_weight: Option<Quads<'b>>,
    prologue: Prologue,
}

impl<'b> Input<'b> {
    /// Binds x (`[.., cols]`, as `name`) and the norm weight if there is one.
    pub fn bind(b: &'b Builder, name: &str, cols: u32, prologue: &Prologue) -> Self {
        let x = Quads::bind(b, name, cols, Access::Read);
        let norm_weight = match prologue {
            Prologue::Direct => None,
            Prologue::Norm { .. } => Some(Quads::bind(b, "norm_weight", cols, Access::Read)),
        };
        Input {
            b,
            cols,
            x,
            norm_weight,
            prologue: prologue.clone(),
        }
    }

    /// Columns `4 quad .. 4 quad + 4` of `row`: as they are, and as they go into products. Zeros beyond the last
    /// column, which are only looked for if `guarded`.
    pub fn quad(&self, row: u32, quad: U32<'b>, guarded: bool) -> (Vec4<'b>, Vec4<'b>) {
        let x = self.x.load(row, quad, guarded).named("x_quad");
        let weighted = match self.norm_weight {
            Some(weight) => x * norm_factor(self.b, &self.prologue, weight, quad, guarded),
            None => x,
        };
        (x, weighted.named("weighted"))
    }

    /// The norm's factor for the whole row, from the sum of its squares; `None` without a norm.
    pub fn scale(&self, squares: impl FnOnce() -> F32<'b>) -> Option<F32<'b>> {
        match self.prologue {
            Prologue::Direct => None,
            Prologue::Norm { eps, .. } => {
                let mean = squares() * (1.0 / self.cols as f32);
                Some((mean + eps).inverse_sqrt().named("norm_scale"))
            }
        }
    }
}

/// The chunks of a row that one thread takes: `first`, `first + step` ...
#[derive(Clone, Copy)]
pub struct Walk<'b> {
    pub first: U32<'b>,
    pub step: u32,
    /// Words of the weight that a thread has asked for before it uses the first of them: memory takes long to answer, and
    /// requests that are under way at once wait together. 0: one chunk at a time, enough where many workgroups share a
    /// processor and one computes while others wait.
    pub words_in_flight: u32,
}

impl Walk<'_> {
    /// Chunks taken at a time: no more than as many rounds need, as those that are not there take time too.
    fn together(&self, weight: &Weight, rows: usize, chunks: u32) -> u32 {
        let words = weight.chunk_words() * rows as u32;
        let most = (self.words_in_flight / words).max(1);
        let taken = chunks.div_ceil(self.step);
        taken.div_ceil(taken.div_ceil(most))
    }
}

/// A chunk that a thread takes. All threads take equally many; one that has run out of chunks takes the last one again,
/// and what it makes of it counts as zero.
#[derive(Clone, Copy)]
struct Taken<'b> {
    chunk: U32<'b>,
    /// Whether it counts; `None` where that is certain.
    there: Option<Bool<'b>>,
}

impl<'b> Taken<'b> {
    fn or_zero(&self, value: F32<'b>) -> F32<'b> {
        match self.there {
            Some(there) => there.select(value, 0.0),
            None => value,
        }
    }
}

/// What one thread has summed so far.
pub struct Dots<'b> {
    input: Input<'b>,
    /// Of each row.
    pub sums: Vec<Pointer<'b, f32>>,
    squares: Option<Pointer<'b, f32>>,
}

impl<'b> Dots<'b> {
    /// Zero for each of `rows` rows.
    pub fn new(input: &Input<'b>, rows: u32) -> Self {
        let b = input.b;
        Dots {
            input: input.clone(),
            sums: (0..rows as usize)
                .map(|i| b.variable(&lettered("sum", i), 0.0))
                .collect(),
            squares: input.norm_weight.map(|_| b.variable("squares", 0.0)),
        }
    }

    /// Adds the products of `rows` of `weight` with row `x_row` of the input, over the chunks of `walk`.
    pub fn add(&self, weight: &Weight<'b>, rows: &[U32<'b>], x_row: U32<'b>, walk: Walk<'b>) {
        let Input { b, cols, .. } = self.input;
        let chunks = weight.chunks(cols);
        let together = walk.together(weight, rows.len(), chunks);
        let step = walk.step * together;
        let whole = chunks.is_multiple_of(step);
        let count = b.constant("CHUNKS", chunks);
        b.range("chunk", walk.first, count, step, |first| {
            let taken: Vec<Taken> = (0..together)
                .map(|i| {
                    let chunk = (first + i * walk.step).named("next");
                    match i == 0 || whole {
                        true => Taken { chunk, there: None },
                        false => Taken {
                            chunk: chunk.min(chunks - 1).named("nearest"),
                            there: Some(chunk.lt(count).named("there")),
                        },
                    }
                })
                .collect();
            let load = |taken: &Taken<'b>| -> Vec<Chunk<'b>> {
                let rows = rows.iter().enumerate();
                rows.map(|(i, &row)| weight.load(row, taken.chunk, &lettered("", i)))
                    .collect()
            };
            let loaded: Vec<Vec<Chunk>> = taken.iter().map(load).collect();
            let inputs: Vec<Vec<Vec4>> = taken.iter().map(|taken| self.read(weight, x_row, taken)).collect();
            for ((taken, input), loaded) in taken.iter().zip(inputs).zip(loaded) {
                let offset_sum = offset_sum(weight.format, &input);
                for (sum, chunk) in self.sums.iter().zip(loaded) {
                    sum.add(taken.or_zero(chunk.dot(&input, offset_sum)));
                }
            }
        });
    }

    /// A chunk of the input as it goes into the products.
    fn read(&self, weight: &Weight<'b>, x_row: U32<'b>, taken: &Taken<'b>) -> Vec<Vec4<'b>> {
        let Input { b, cols, x, .. } = self.input;
        let guarded = !cols.is_multiple_of(weight.chunk);
        let quads = weight.chunk / 4;
        let numbers = (0..quads).map(|i| (taken.chunk * quads + i, i));
        let mut input: Vec<Vec4> = numbers
            .clone()
            .map(|(quad, i)| x.load(x_row, quad, guarded).named(&lettered("x", i as usize)))
            .collect();
        if let (Some(norm_weight), Some(squares)) = (self.input.norm_weight, self.squares) {
            let terms = input.iter().map(|&x| x.dot(x));
            let sum = terms.reduce(|sum, term| sum + term).expect("a chunk has elements");
            squares.add(taken.or_zero(sum));
            for (value, (quad, i)) in input.iter_mut().zip(numbers) {
                *value = (*value * norm_factor(b, &self.input.prologue, norm_weight, quad, guarded))
                    .named(&lettered("normed", i as usize));
            }
        }
        input
    }

    /// The sum of the squares of what this thread has read, with a norm.
    pub fn squares(&self) -> Option<F32<'b>> {
        self.squares.map(|squares| squares.load())
    }

    /// Joins the sums of all threads of the workgroup.
    pub fn reduce(self) -> Products<'b> {
        let mut partial: Vec<F32> = self.sums.iter().map(|sum| sum.load()).collect();
        partial.extend(self.squares());
        Products {
            totals: self.input.b.reduce("partial", Reduction::Sum, &partial),
            rows: self.sums.len() as u32,
            input: self.input,
        }
    }
}

/// Finished dot products, but for the norm's scale.
pub struct Products<'b> {
    input: Input<'b>,
    totals: Totals<'b>,
    rows: u32,
}

impl<'b> Products<'b> {
    /// `count` finished products from number `first` on. To be called once.
    pub fn finished(&self, first: U32<'b>, count: u32) -> Vec<F32<'b>> {
        let scale = self.input.scale(|| self.totals.total(self.rows));
        (0..count)
            .map(|i| {
                let total = self.totals.total(first + i);
                scale.map_or(total, |scale| total * scale)
            })
            .collect()
    }
}

/// What the norm multiplies a quad of the input with, but for the scale of the whole row.
pub fn norm_factor<'b>(
    b: &'b Builder,
    prologue: &Prologue,
    weight: Quads<'b>,
    quad: U32<'b>,
    guarded: bool,
) -> Vec4<'b> {
    let weight = weight.load(0, quad, guarded);
    match prologue {
        Prologue::Norm { unit_offset: true, .. } => weight + b.splat(1.0),
        _ => weight,
    }
}

/// `count` rows from `first`, a multiple of `count`, of a matrix with `rows`. Beyond the last they are the last again,
/// whose results are not to be stored.
pub fn rows_from<'b>(first: U32<'b>, count: u32, rows: u32) -> Vec<U32<'b>> {
    let whole = rows.is_multiple_of(count);
    (0..count)
        .map(|i| match whole {
            true if i == 0 => first,
            true => (first + i).named("row"),
            false => (first + i).min(rows - 1).named("row"),
        })
        .collect()
}

/// How a product is divided among threads: see [`super::MatvecSpec`].
#[derive(Clone, Copy)]
pub struct Division {
    pub workgroup: u32,
    pub rows_per_workgroup: u32,
    pub lane_words: u32,
}

impl Division {
    /// Refuses what these kernels cannot do; `gated` ones need pairs of rows.
    pub fn check(self, kernel: &str, gated: bool) -> Result<(), KernelError> {
        let Division {
            workgroup,
            rows_per_workgroup: rows,
            lane_words,
        } = self;
        let what = if !(workgroup.is_power_of_two() && workgroup >= 32) {
            format!("a workgroup of {workgroup} threads, expected a power of two from 32")
        } else if gated && !rows.is_multiple_of(2) {
            format!("{rows} rows a workgroup with a gated unit, expected an even number")
        } else if rows == 0 || rows > workgroup {
            format!("{rows} rows for {workgroup} threads")
        } else if ![1, 2, 4].contains(&lane_words) {
            format!("{lane_words} words a lane, expected 1, 2 or 4")
        } else {
            return Ok(());
        };
        Err(KernelError::Unsupported {
            kernel: kernel.to_string(),
            what,
        })
    }

    /// The part of a kernel's name that tells divisions apart.
    pub fn name(self) -> String {
        let Division {
            workgroup,
            rows_per_workgroup,
            lane_words,
        } = self;
        format!("{workgroup}t{rows_per_workgroup}r{lane_words}w")
    }
}
