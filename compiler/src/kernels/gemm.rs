//! Matrix times matrix for prefill.
//!
//! A workgroup computes a [`Tile`] of weight rows by tokens ([`super::tile`] has a picture of it): workgroup `x` has rows
//! `64 x ..`, workgroup `y` tokens `64 y ..`; `out` is `[token][row]`. A norm before the product is handled as in the
//! matvec: squares are summed while the input is loaded, and each token's scale is applied to its finished products.

use kiln_bundle::{Access, StepWord};

use super::builder::{Array, Builder, F32, KernelError, KernelSource, Pointer, Vec4};
use super::dots::norm_factor;
use super::epilogue::{self, EpilogueOperands, OutputPart};
use super::names::lettered;
use super::quads::Quads;
use super::tile::{self, Loader, RowProducts, Tile, TileShape};
use super::weight::Weight;
use super::{Capability, Epilogue, GemmSpec, Prologue};

impl GemmSpec {
    /// Weight rows of one workgroup.
    pub const TILE_ROWS: u32 = TileShape::ROWS;
    /// Tokens of one workgroup.
    pub const TILE_TOKENS: u32 = SHAPE.tokens;

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

const SHAPE: TileShape = TileShape::LARGE;
const WORKGROUP: u32 = SHAPE.threads;

pub fn build(spec: &GemmSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    let name = spec.name();
    epilogue::check(&spec.epilogue, spec.rows, &name)?;
    let b = Builder::new(name, WORKGROUP, capability);
    body(&b, spec);
    b.finish()
}

fn body(b: &Builder, spec: &GemmSpec) {
    let x = Quads::bind(b, "x", spec.cols, Access::Read);
    let norm_weight = match spec.prologue {
        Prologue::Direct => None,
        Prologue::Norm { .. } => Some(Quads::bind(b, "norm_weight", spec.cols, Access::Read)),
    };
    let weight = Weight::bind(b, spec.format, spec.cols, SHAPE.weight_words(spec.format));
    let operands = EpilogueOperands::bind(b, &spec.epilogue, spec.rows);
    let step = b.storage::<u32>("step_buffer", Access::Read);
    let tail = operands.output(OutputPart {
        offset: spec.out_offset,
        columns: spec.out_columns,
    });
    let tile = Tile::new(b, SHAPE, tail.rows_per_output());

    let tokens = step.load(StepWord::Tokens as u32).named("tokens");
    let first_row = (b.group().x() * GemmSpec::TILE_ROWS).named("first_row");
    let first_token = (b.group().y() * GemmSpec::TILE_TOKENS).named("first_token");
    b.if_(first_token.ge(tokens), || b.return_());

    // Beyond the last row and the last token these are loaded again.
    let load_row = (first_row + tile.load_row()).min(spec.rows - 1).named("load_row");
    let load_token = (first_token + tile.tokens.slot).min(tokens - 1).named("load_token");
    let squares = norm_weight.map(|_| b.variable("squares", 0.0));
    let guarded = tile::guarded(spec.cols);
    tile.accumulate(spec.cols, &weight, load_row, |quads| {
        let mut input: Vec<Vec4> = (0..)
            .zip(quads)
            .map(|(i, &quad)| x.load(load_token, quad, guarded).named(&lettered("x", i)))
            .collect();
        if let (Some(norm_weight), Some(squares)) = (norm_weight, squares) {
            let terms = input.iter().map(|&x| x.dot(x));
            squares.add(terms.reduce(|sum, term| sum + term).expect("a thread loads something"));
            for (value, &quad) in input.iter_mut().zip(quads) {
                *value = *value * norm_factor(b, &spec.prologue, norm_weight, quad, guarded);
            }
        }
        input
    });

    let scales = squares.map(|squares| token_scales(b, spec, tile.tokens, squares));
    let whole = spec.rows.is_multiple_of(GemmSpec::TILE_ROWS);
    tile.each_token(|in_tile, outputs| {
        let token = (first_token + in_tile).named("token");
        b.if_(token.lt(tokens), || {
            let scale = scales.map(|scales| scales.load(in_tile).named("scale"));
            for RowProducts { row, products } in outputs {
                let column = ((first_row + row) / tail.rows_per_output()).named("column");
                let scaled = |product| scale.map_or(product, |scale| product * scale);
                let store = || {
                    let products: Vec<F32> = products.into_iter().map(scaled).collect();
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

/// `1 / sqrt(mean(x²) + eps)` of each token of the tile, in workgroup memory.
fn token_scales<'b>(b: &'b Builder, spec: &GemmSpec, loader: Loader<'b>, squares: Pointer<'b, f32>) -> Array<'b, f32> {
    let Prologue::Norm { eps, .. } = spec.prologue else {
        unreachable!("squares are summed for a norm only");
    };
    let parts = b.shared::<f32>("partial_squares", WORKGROUP);
    let scales = b.shared::<f32>("token_scale", GemmSpec::TILE_TOKENS);
    parts.store(b.thread(), squares.load());
    b.barrier();
    b.if_(loader.part.eq(0), || {
        let terms = (0..WORKGROUP / GemmSpec::TILE_TOKENS).map(|i| parts.load(loader.slot + i * GemmSpec::TILE_TOKENS));
        let sum = terms.reduce(|sum, term| sum + term).expect("at least one loader");
        scales.store(loader.slot, (sum * (1.0 / spec.cols as f32) + eps).inverse_sqrt());
    });
    b.barrier();
    scales
}
