//! The core of tiled products: a tile of weight rows by tokens.
//!
//! A workgroup walks the columns in slices. Each slice of weights is unpacked into workgroup memory once, and so is
//! that of the input; then each thread multiplies some rows by some tokens in registers. Which rows and tokens these
//! are, and where they lie, is the caller's.
//!
//! ```text
//!                columns, 16 a slice                     tokens of the tile (16, 32 or 64)
//!              ┌───────┬───────┬────                    ┌─────────────────────────────────┐
//!   64 rows of │ slice │ slice │ ..                     │     t      t+8     t+16   ..    │
//!   the weight │   0   │   1   │           64 slots     │ s   x       x       x           │ products of one
//!              └───────┴───────┴────       (a row each) │ s+8 x       x       x           │ thread of LARGE:
//!              ┌───────┬───────┬────                    │ ..                              │ s = thread % 8,
//!   tokens of  │ slice │ slice │ ..                     │     8 slots by 8 tokens         │ t = thread / 8
//!   the input  │   0   │   1   │                        └─────────────────────────────────┘
//!              └───────┴───────┴────
//!
//!   a slice in workgroup memory, in quads (four columns in a vector); one quad after each line stays unused:
//!
//!   line 0 (slot or token)                line 1
//!   [ 0-3 ][ 4-7 ][ 8-11 ][ 12-15 ][   ]  [ 0-3 ][ 4-7 ][ 8-11 ][ 12-15 ][   ]  ..
//!   |<--------- SLICE_STRIDE --------->|
//! ```
//!
//! Neighbouring threads read neighbouring lines, which the odd stride puts into different banks of workgroup memory. Where
//! gate and up must meet in one thread, rows are dealt to slots so that both lie in slots of the same thread.

use super::builder::{Array, Builder, F32, KernelError, Pointer, U32, Vec4};
use super::names::lettered;
use super::weight::Weight;
use crate::weights::WeightFormat;

/// How a tile is divided among threads.
#[derive(Clone, Copy)]
pub struct TileShape {
    pub tokens: u32,
    pub threads: u32,
    /// Rows and tokens of one thread; tokens come in fours.
    thread_rows: u32,
    thread_tokens: u32,
}

impl TileShape {
    /// Weight rows of every tile.
    pub const ROWS: u32 = 64;

    /// A tile of 64 tokens.
    pub const LARGE: TileShape = TileShape {
        tokens: 64,
        threads: 64,
        thread_rows: 8,
        thread_tokens: 8,
    };
    const MEDIUM: TileShape = TileShape {
        tokens: 32,
        threads: 64,
        thread_rows: 8,
        thread_tokens: 4,
    };
    const SMALL: TileShape = TileShape {
        tokens: 16,
        threads: 64,
        thread_rows: 4,
        thread_tokens: 4,
    };

    /// The shape of tiles of `tokens` tokens.
    ///
    /// # Errors
    /// There is none.
    pub fn of(tokens: u32, kernel: &str) -> Result<Self, KernelError> {
        [Self::SMALL, Self::MEDIUM, Self::LARGE]
            .into_iter()
            .find(|shape| shape.tokens == tokens)
            .ok_or_else(|| KernelError::Unsupported {
                kernel: kernel.to_string(),
                what: format!("tiles of {tokens} tokens; there are tiles of 16, 32 and 64"),
            })
    }

    /// Words of a row (of 4 that make a vector) that a thread loads at once, for [`Weight::bind`].
    pub fn weight_words(self, format: WeightFormat) -> u32 {
        let elements = 4 * self.quads_loaded(Self::ROWS);
        (4 * elements / format.elements_per_vec4()).clamp(1, 4)
    }

    /// As many tokens as rows: a thread loads the same quads of a weight row and of a token, so one place serves both.
    fn square(self) -> bool {
        self.tokens == Self::ROWS
    }

    fn row_threads(self) -> u32 {
        Self::ROWS / self.thread_rows
    }

    fn token_threads(self) -> u32 {
        self.tokens / self.thread_tokens
    }

    /// Quads of a slice of `lines` rows or tokens that one thread loads.
    fn quads_loaded(self, lines: u32) -> u32 {
        SLICE_QUADS * lines / self.threads
    }
}

/// Columns of a slice: both slices fit in workgroup memory.
const SLICE: u32 = 16;
const SLICE_QUADS: u32 = SLICE / 4;
/// Quads from one row of a slice to the next; odd, so that threads of neighbouring rows meet different banks.
const SLICE_STRIDE: u32 = SLICE_QUADS + 1;

/// Whether the last slice of `cols` columns reaches beyond them, so that inputs must be guarded.
pub fn guarded(cols: u32) -> bool {
    !cols.is_multiple_of(SLICE)
}

/// The part of a slice that a thread loads: some quads of one line (a row or a token).
#[derive(Clone, Copy)]
pub struct Loader<'b> {
    /// The line in the slice.
    pub slot: U32<'b>,
    /// Which of the threads of this line.
    pub part: U32<'b>,
    quads: u32,
}

impl<'b> Loader<'b> {
    fn new(b: &'b Builder, shape: TileShape, lines: u32, names: [&str; 2]) -> Self {
        let quads = shape.quads_loaded(lines);
        let (slot, part) = match lines == shape.threads {
            true => (b.thread(), b.literal(0)),
            false => (b.thread() % lines, b.thread() / lines),
        };
        let [slot_name, part_name] = names;
        Loader {
            slot: slot.named(slot_name),
            part: part.named(part_name),
            quads,
        }
    }

    fn first_quad(&self, slice: U32<'b>) -> U32<'b> {
        slice * SLICE_QUADS + self.part * self.quads
    }

    fn place(&self) -> U32<'b> {
        self.slot * SLICE_STRIDE + self.part * self.quads
    }
}

/// Dot products of neighbouring rows with one token: one row, or a gate and an up row.
pub struct RowProducts<'b> {
    /// The first row, in the tile.
    pub row: U32<'b>,
    pub products: Vec<F32<'b>>,
}

pub struct Tile<'b> {
    b: &'b Builder,
    shape: TileShape,
    /// Neighbouring rows that one thread must have together.
    together: u32,
    /// What this thread loads of weights and of inputs.
    pub rows: Loader<'b>,
    pub tokens: Loader<'b>,
    /// `[slot][quad of columns]`.
    weights: Array<'b, [f32; 4]>,
    /// `[token][quad of columns]`.
    inputs: Array<'b, [f32; 4]>,
    /// For each row of this thread, the products with its tokens, four to a vector.
    sums: Vec<Vec<Pointer<'b, [f32; 4]>>>,
}

impl<'b> Tile<'b> {
    /// A tile of zeros. A thread gets `together` (1 or 2) neighbouring rows.
    pub fn new(b: &'b Builder, shape: TileShape, together: u32) -> Self {
        debug_assert_eq!(shape.row_threads() * shape.token_threads(), shape.threads);
        let fours = shape.thread_tokens / 4;
        let name = |row: u32, four: u32| lettered("sums", (row * fours + four) as usize);
        let rows = Loader::new(b, shape, TileShape::ROWS, ["slot", "part"]);
        Tile {
            b,
            shape,
            together,
            rows,
            tokens: match shape.square() {
                true => rows,
                false => Loader::new(b, shape, shape.tokens, ["token_slot", "token_part"]),
            },
            weights: b.shared("weight_slice", TileShape::ROWS * SLICE_STRIDE),
            inputs: b.shared("input_slice", shape.tokens * SLICE_STRIDE),
            sums: (0..shape.thread_rows)
                .map(|row| (0..fours).map(|four| b.variable(&name(row, four), b.zero())).collect())
                .collect(),
        }
    }

    /// Row in the tile whose weights this thread loads.
    pub fn load_row(&self) -> U32<'b> {
        self.row_of_slot(self.rows.slot)
    }

    /// Row in the tile whose weights lie in `slot`. A thread has slots `s`, `s + row_threads` ..; where it needs rows `2i`
    /// (gate) and `2i + 1` (up) together, they are put into two such slots, and not side by side.
    fn row_of_slot(&self, slot: U32<'b>) -> U32<'b> {
        let (together, threads) = (self.together, self.shape.row_threads());
        if together == 1 {
            return slot;
        }
        let within = slot % threads * together + slot / threads % together;
        slot / (together * threads) * (together * threads) + within
    }

    /// Adds the products over `cols` columns of `row` of the weight and what `input` loads: the given quads of columns
    /// of this thread's token, zeros beyond the last column.
    pub fn accumulate(
        &self,
        cols: u32,
        weight: &Weight<'b>,
        row: U32<'b>,
        mut input: impl FnMut(&[U32<'b>]) -> Vec<Vec4<'b>>,
    ) {
        let b = self.b;
        let (rows, tokens) = (self.rows, self.tokens);
        let slices = b.constant("SLICES", cols.div_ceil(SLICE));
        b.range("slice", 0, slices, 1, |slice| {
            let first_quad = rows.first_quad(slice).named("first_quad");
            let chunk_quads = weight.chunk / 4;
            let chunks: Vec<_> = (0..rows.quads / chunk_quads)
                .map(|i| {
                    let label = label(i, rows.quads / chunk_quads);
                    weight.load(row, first_quad / chunk_quads + i, &label)
                })
                .collect();
            let first_quad = match self.shape.square() {
                true => first_quad,
                false => tokens.first_quad(slice).named("first_input_quad"),
            };
            let quads: Vec<U32> = (0..tokens.quads).map(|i| first_quad + i).collect();
            let input = input(&quads);
            let weights: Vec<Vec4> = chunks.iter().flat_map(|chunk| chunk.values()).collect();
            b.barrier();
            let place = rows.place().named("place");
            for (i, weight) in (0..).zip(weights) {
                self.weights.store(place + i, weight);
            }
            let place = match self.shape.square() {
                true => place,
                false => tokens.place().named("input_place"),
            };
            for (i, input) in (0..).zip(input) {
                self.inputs.store(place + i, input);
            }
            b.barrier();
            self.multiply();
        });
    }

    /// First slot and first token of this thread; its others follow at the distances of the threads.
    fn origin(&self) -> (U32<'b>, U32<'b>) {
        let threads = self.shape.row_threads();
        (self.b.thread() % threads, self.b.thread() / threads)
    }

    /// Adds the products of the slice.
    fn multiply(&self) {
        let b = self.b;
        let (row_distance, token_distance) = (self.shape.row_threads(), self.shape.token_threads());
        b.range("quad", 0, SLICE_QUADS, 1, |quad| {
            let (slot, token) = self.origin();
            let weight_at = (slot * SLICE_STRIDE + quad).named("weight_at");
            let input_at = (token * SLICE_STRIDE + quad).named("input_at");
            let inputs: Vec<Vec4> = (0..self.shape.thread_tokens)
                .map(|j| self.inputs.load(input_at + j * token_distance * SLICE_STRIDE))
                .collect();
            // For each four tokens, one vector for each column.
            let columns: Vec<Vec<Vec4>> = inputs
                .chunks(4)
                .enumerate()
                .map(|(i, four)| {
                    (0..4u32)
                        .map(|k| {
                            let column: Vec<F32> = four.iter().map(|input| input.component(k)).collect();
                            b.vector::<[f32; 4]>(&column)
                                .named(&lettered("inputs", 4 * i + k as usize))
                        })
                        .collect()
                })
                .collect();
            for (i, sums) in (0..).zip(&self.sums) {
                let weights = self.weights.load(weight_at + i * row_distance * SLICE_STRIDE);
                let weights = weights.named(&lettered("weights", i as usize));
                for (sum, columns) in sums.iter().zip(&columns) {
                    let total = (0..).zip(columns).fold(sum.load(), |total, (k, &column)| {
                        column.fma(b.splat(weights.component(k)), total)
                    });
                    sum.store(total);
                }
            }
        });
    }

    /// Runs `body` for each of this thread's tokens, with the token's number in the tile and the products that the
    /// thread has for it.
    pub fn each_token(&self, mut body: impl FnMut(U32<'b>, Vec<RowProducts<'b>>)) {
        let b = self.b;
        let (row_distance, token_distance) = (self.shape.row_threads(), self.shape.token_threads());
        let (slot, first_token) = self.origin();
        let totals: Vec<Vec<Vec4>> = (0..)
            .zip(&self.sums)
            .map(|(row, sums)| {
                let fours = sums.len();
                (0..)
                    .zip(sums)
                    .map(|(four, sum)| sum.load().named(&lettered("total", row * fours + four)))
                    .collect()
            })
            .collect();
        for four in 0..self.shape.thread_tokens / 4 {
            b.range("j", 0, 4, 1, |j| {
                let token = first_token + (j + 4 * four) * token_distance;
                let products = (0..)
                    .zip(totals.chunks(self.together as usize))
                    .map(|(i, rows): (u32, _)| RowProducts {
                        row: self.row_of_slot(slot + i * self.together * row_distance),
                        products: rows.iter().map(|row| row[four as usize].component_at(j)).collect(),
                    })
                    .collect();
                body(token.named("token_in_tile"), products);
            });
        }
    }
}

fn label(index: u32, count: u32) -> String {
    match count {
        1 => String::new(),
        _ => lettered("", index as usize),
    }
}
