//! Matrix times matrix for prefill.
//!
//! A workgroup computes a tile of weight rows by tokens, walking the columns in slices. Each slice of weights is
//! unpacked into workgroup memory once, and so is the input; then each thread multiplies some rows by some tokens in
//! registers. A norm before the product is handled as in the matvec: squares are summed while the input is loaded,
//! and each token's scale is applied to its finished products.

use kiln_bundle::{Access, StepWord};

use super::builder::{Array, Builder, F32, KernelError, KernelSource, Place, U32, Vec4};
use super::dots::norm_factor;
use super::epilogue::{self, Operands, Part, Tail};
use super::names::lettered;
use super::weight::{Quads, Weight};
use super::{Epilogue, GemmSpec, Prologue, Variant};

impl GemmSpec {
    /// Weight rows of one workgroup.
    pub const TILE_ROWS: u32 = 64;
    /// Tokens of one workgroup.
    pub const TILE_TOKENS: u32 = 64;

    fn name(&self) -> String {
        let GemmSpec { rows, cols, format, .. } = self;
        let outputs = if self.gated() { rows / 2 } else { *rows };
        let part = match (self.out_offset, self.out_columns) {
            (0, columns) if columns == outputs => String::new(),
            (offset, columns) => format!("_to{offset}of{columns}"),
        };
        let fused = epilogue::suffix(&self.prologue, &self.epilogue);
        format!("gemm_{format}{fused}{part}_{rows}x{cols}")
    }

    fn gated(&self) -> bool {
        self.epilogue.iter().any(|entry| matches!(entry, Epilogue::Glu(_)))
    }
}

const WORKGROUP: u32 = 128;
/// Columns of a slice: both slices fit in workgroup memory.
const SLICE: u32 = 16;
const SLICE_QUADS: u32 = SLICE / 4;
/// Quads from one row of a slice to the next; odd, so that threads of neighbouring rows meet different banks.
const SLICE_STRIDE: u32 = SLICE_QUADS + 1;
/// Threads that load a row (or a token) of a slice together.
const LOADERS: u32 = WORKGROUP / GemmSpec::TILE_ROWS;
/// Quads of a slice that one thread loads.
const LOAD_QUADS: u32 = SLICE_QUADS / LOADERS;

/// Rows and tokens of one thread, and how the threads are spread over the tile.
const THREAD_ROWS: u32 = 8;
const THREAD_TOKENS: u32 = 4;
const ROW_THREADS: u32 = GemmSpec::TILE_ROWS / THREAD_ROWS;
const TOKEN_THREADS: u32 = GemmSpec::TILE_TOKENS / THREAD_TOKENS;

pub fn build(spec: &GemmSpec, variant: Variant) -> Result<KernelSource, KernelError> {
    const { assert!(ROW_THREADS * TOKEN_THREADS == WORKGROUP && GemmSpec::TILE_ROWS == GemmSpec::TILE_TOKENS) };
    let name = spec.name();
    epilogue::check(&spec.epilogue, spec.rows, &name)?;
    let b = Builder::new(name, WORKGROUP, variant);
    body(&b, spec);
    b.finish()
}

fn body(b: &Builder, spec: &GemmSpec) {
    let x = Quads::bind(b, "x", spec.cols, Access::Read);
    let norm_weight = match spec.prologue {
        Prologue::Direct => None,
        Prologue::Norm { .. } => Some(Quads::bind(b, "norm_weight", spec.cols, Access::Read)),
    };
    // As many words as make the 8 elements that a thread loads.
    let words = 4 * LOAD_QUADS * 4 / spec.format.elements_per_vec4();
    let weight = Weight::bind(b, spec.format, spec.cols, words.clamp(1, 4));
    let operands = Operands::bind(b, &spec.epilogue, spec.rows);
    let step = b.storage::<u32>("step_buffer", Access::Read);
    let tail = operands.output(Part {
        offset: spec.out_offset,
        columns: spec.out_columns,
    });
    let tile = Tile {
        b,
        weights: b.shared("weight_slice", GemmSpec::TILE_ROWS * SLICE_STRIDE),
        inputs: b.shared("input_slice", GemmSpec::TILE_TOKENS * SLICE_STRIDE),
        sums: (0..THREAD_ROWS as usize)
            .map(|i| b.variable(&lettered("sums", i), b.zero()))
            .collect(),
    };

    let tokens = step.load(StepWord::Tokens as u32).named("tokens");
    let first_row = (b.group().x() * GemmSpec::TILE_ROWS).named("first_row");
    let first_token = (b.group().y() * GemmSpec::TILE_TOKENS).named("first_token");
    b.if_(first_token.ge(tokens), || b.return_());

    // What this thread loads: a part of one row and of one token. Beyond the last it loads the last again.
    let slot = (b.thread() % GemmSpec::TILE_ROWS).named("slot");
    let part = (b.thread() / GemmSpec::TILE_ROWS).named("part");
    let load_row = (first_row + row_of_slot(spec, slot))
        .min(spec.rows - 1)
        .named("load_row");
    let load_token = (first_token + slot).min(tokens - 1).named("load_token");
    let squares = norm_weight.map(|_| b.variable("squares", 0.0));

    let guarded = !spec.cols.is_multiple_of(SLICE);
    b.range(
        "slice",
        0,
        b.constant("SLICES", spec.cols.div_ceil(SLICE)),
        1,
        |slice| {
            let first_quad = (slice * SLICE_QUADS + part * LOAD_QUADS).named("first_quad");
            let quads: Vec<U32> = (0..LOAD_QUADS).map(|i| first_quad + i).collect();
            let chunk_quads = weight.chunk / 4;
            let chunks: Vec<_> = (0..LOAD_QUADS / chunk_quads)
                .map(|i| {
                    weight.load(
                        load_row,
                        first_quad / chunk_quads + i,
                        &label(i, LOAD_QUADS / chunk_quads),
                    )
                })
                .collect();
            let mut input: Vec<Vec4> = (0..)
                .zip(&quads)
                .map(|(i, &quad)| x.load(load_token, quad, guarded).named(&lettered("x", i)))
                .collect();
            if let (Some(norm_weight), Some(squares)) = (norm_weight, squares) {
                let terms = input.iter().map(|&x| x.dot(x));
                squares.add(terms.reduce(|sum, term| sum + term).expect("a thread loads something"));
                for (value, &quad) in input.iter_mut().zip(&quads) {
                    *value = *value * norm_factor(b, &spec.prologue, norm_weight, quad, guarded);
                }
            }
            let weights: Vec<Vec4> = chunks.iter().flat_map(|chunk| chunk.values()).collect();
            b.barrier();
            let place = (slot * SLICE_STRIDE + part * LOAD_QUADS).named("place");
            for (i, (weight, input)) in (0..).zip(weights.into_iter().zip(input)) {
                tile.weights.store(place + i, weight);
                tile.inputs.store(place + i, input);
            }
            b.barrier();
            tile.multiply();
        },
    );

    let scales = squares.map(|squares| token_scales(b, spec, slot, part, squares));
    tile.store(spec, &tail, first_row, first_token, tokens, scales);
}

fn label(index: u32, count: u32) -> String {
    if count == 1 {
        String::new()
    } else {
        lettered("", index as usize)
    }
}

/// Row in the tile whose weights lie in `slot`. Slots `i + 8 n` belong to one thread; with a gated unit these must
/// come in pairs of neighbouring rows.
fn row_of_slot<'b>(spec: &GemmSpec, slot: U32<'b>) -> U32<'b> {
    if !spec.gated() {
        return slot;
    }
    let within = slot % ROW_THREADS * 2 + slot / ROW_THREADS % 2;
    slot / (2 * ROW_THREADS) * (2 * ROW_THREADS) + within
}

/// `1 / sqrt(mean(x²) + eps)` of each token of the tile, in workgroup memory.
fn token_scales<'b>(
    b: &'b Builder,
    spec: &GemmSpec,
    slot: U32<'b>,
    part: U32<'b>,
    squares: Place<'b, f32>,
) -> Array<'b, f32> {
    let Prologue::Norm { eps, .. } = spec.prologue else {
        unreachable!("squares are summed for a norm only");
    };
    let parts = b.shared::<f32>("partial_squares", WORKGROUP);
    let scales = b.shared::<f32>("token_scale", GemmSpec::TILE_TOKENS);
    parts.store(b.thread(), squares.load());
    b.barrier();
    b.if_(part.eq(0), || {
        let terms = (0..LOADERS).map(|i| parts.load(slot + i * GemmSpec::TILE_TOKENS));
        let sum = terms.reduce(|sum, term| sum + term).expect("at least one loader");
        scales.store(slot, (sum * (1.0 / spec.cols as f32) + eps).inverse_sqrt());
    });
    b.barrier();
    scales
}

struct Tile<'b> {
    b: &'b Builder,
    /// `[slot][quad of columns]`.
    weights: Array<'b, [f32; 4]>,
    /// `[token][quad of columns]`.
    inputs: Array<'b, [f32; 4]>,
    /// For each row of this thread, the products with its four tokens.
    sums: Vec<Place<'b, [f32; 4]>>,
}

impl<'b> Tile<'b> {
    /// First slot and first token of this thread; its others follow at distances `ROW_THREADS` and `TOKEN_THREADS`.
    fn origin(&self) -> (U32<'b>, U32<'b>) {
        (self.b.thread() % ROW_THREADS, self.b.thread() / ROW_THREADS)
    }

    /// Adds the products of the slice.
    fn multiply(&self) {
        let b = self.b;
        b.range("quad", 0, SLICE_QUADS, 1, |quad| {
            let (slot, token) = self.origin();
            let weight_at = (slot * SLICE_STRIDE + quad).named("weight_at");
            let input_at = (token * SLICE_STRIDE + quad).named("input_at");
            let inputs: Vec<Vec4> = (0..THREAD_TOKENS)
                .map(|j| self.inputs.load(input_at + j * TOKEN_THREADS * SLICE_STRIDE))
                .collect();
            // One vector for each column: the inputs of the four tokens.
            let columns: Vec<Vec4> = (0..4u32)
                .map(|k| {
                    let column: Vec<F32> = inputs.iter().map(|input| input.component(k)).collect();
                    b.vector::<[f32; 4]>(&column).named(&lettered("inputs", k as usize))
                })
                .collect();
            for (i, sums) in (0..).zip(&self.sums) {
                let weights = self.weights.load(weight_at + i * ROW_THREADS * SLICE_STRIDE);
                let weights = weights.named(&lettered("weights", i as usize));
                let total = (0..).zip(&columns).fold(sums.load(), |total, (k, &column)| {
                    column.fma(b.splat(weights.component(k)), total)
                });
                sums.store(total);
            }
        });
    }

    /// Finishes and stores what lies within the output.
    fn store(
        &self,
        spec: &GemmSpec,
        tail: &Tail<'b>,
        first_row: U32<'b>,
        first_token: U32<'b>,
        tokens: U32<'b>,
        scales: Option<Array<'b, f32>>,
    ) {
        let b = self.b;
        let (slot, token_in_tile) = self.origin();
        let per_output = tail.rows_per_output() as usize;
        let whole = spec.rows.is_multiple_of(GemmSpec::TILE_ROWS);
        let sums: Vec<Vec4> = (0..)
            .zip(&self.sums)
            .map(|(i, sums)| sums.load().named(&lettered("total", i)))
            .collect();
        b.range("j", 0, THREAD_TOKENS, 1, |j| {
            let in_tile = (token_in_tile + j * TOKEN_THREADS).named("token_in_tile");
            let token = (first_token + in_tile).named("token");
            b.if_(token.lt(tokens), || {
                let scale = scales.map(|scales| scales.load(in_tile).named("scale"));
                for (i, rows) in (0u32..).zip(sums.chunks(per_output)) {
                    let first_slot = slot + i * tail.rows_per_output() * ROW_THREADS;
                    let row = first_row + row_of_slot(spec, first_slot);
                    let column = (row / tail.rows_per_output()).named("column");
                    let store = || {
                        let products: Vec<F32> = rows
                            .iter()
                            .map(|row| row.component_at(j))
                            .map(|product| scale.map_or(product, |scale| product * scale))
                            .collect();
                        tail.store(Some(token), column, &products);
                    };
                    match whole {
                        true => store(),
                        false => b.if_(column.lt(tail.columns()), store),
                    }
                }
            });
        });
    }
}
