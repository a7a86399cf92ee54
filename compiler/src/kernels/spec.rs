//! What can be asked of a kernel. Each struct documents its bindings, in order, and its grid.
//!
//! Conventions. Activations are f32, row-major, one row for each token of the step; `step` is the step
//! buffer (see `kiln_bundle::StepWord`), read-only but in `SampleFinal`. A weight is one binding (`F32`,
//! `F16`, `Bf16`) or two (elements, then scales). "rw" marks read-write bindings; the others are read-only.
//! Grids are in workgroups; `tokens` is the number of tokens of the step, at most the chunk.

mod mixture;

pub use mixture::*;

use crate::graph::{Binary, Gate, Unary};
use crate::weights::WeightFormat;

/// What a kernel may use of the device; each includes the one before. A bundle has one variant of its programs for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Capability {
    /// Only what every browser guarantees.
    Base,
    /// Subgroup operations, of whatever size.
    Subgroups,
    /// Subgroups, and f16 storage: KV caches are f16. All arithmetic is f32.
    F16,
}

impl Capability {
    /// From the least to the most.
    pub const ALL: [Capability; 3] = [Capability::Base, Capability::Subgroups, Capability::F16];

    /// Name of the variant in manifests and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Capability::Base => "base",
            Capability::Subgroups => "subgroups",
            Capability::F16 => "f16",
        }
    }

    /// What KV caches are stored as.
    pub fn cache_type(self) -> CacheType {
        match self {
            Capability::Base | Capability::Subgroups => CacheType::F32,
            Capability::F16 => CacheType::F16,
        }
    }
}

/// Element type of KV caches: f32, or f16 in the `f16` variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CacheType {
    F32,
    F16,
}

#[derive(Clone, Debug, PartialEq)]
pub enum KernelSpec {
    Gather(GatherSpec),
    Norm(NormSpec),
    Matvec(MatvecSpec),
    Gemm(GemmSpec),
    Pointwise(PointwiseSpec),
    SelectRow(SelectRowSpec),
    Rope(RopeKernelSpec),
    CacheWrite(CacheWriteSpec),
    RopeCache(RopeCacheSpec),
    AttentionPrefill(AttentionPrefillSpec),
    AttentionSplit(AttentionSplitSpec),
    AttentionReduce(AttentionReduceSpec),
    Convolution(ConvolutionSpec),
    ConvolutionState(ConvolutionStateSpec),
    GatedDelta(GatedDeltaSpec),
    Route(RouteKernelSpec),
    Router(RouterSpec),
    ExpertUp(ExpertUpSpec),
    ExpertDown(ExpertDownSpec),
    Group(GroupSpec),
    GroupedUp(GroupedUpSpec),
    GroupedDown(GroupedDownSpec),
    Combine(CombineSpec),
    DenseDown(DenseDownSpec),
    TokenRules,
    Penalties { groups: u32 },
    RepeatBan { groups: u32 },
    SampleThreshold { vocab: u32 },
    SamplePartial { vocab: u32, groups: u32 },
    SampleFinal { groups: u32, slots: u32 },
}

/// Embedding rows of the step's tokens. Bindings: the table, tokens, out (rw). Grid: one workgroup a token.
///
/// A table over the binding limit is several weights, each of `per_binding` rows (the last may have fewer). One dispatch reads
/// as many as it has bindings for: rows `first_row .. first_row + rows`, and writes only the tokens whose ids lie there.
#[derive(Clone, Debug, PartialEq)]
pub struct GatherSpec {
    pub rows: u32,
    pub first_row: u32,
    pub per_binding: u32,
    pub width: u32,
    pub format: WeightFormat,
    /// Multiplies the row (Gemma: sqrt(hidden)); 1 is nothing.
    pub scale: f32,
}

/// RMS norm of rows of `width`, `per_token` of them for each token.
/// Bindings: x, weight (f32 `[width]`), out (rw). With `add`: out += norm(x) (the residual in place).
/// Grid: (per_token, tokens): one workgroup a row.
#[derive(Clone, Debug, PartialEq)]
pub struct NormSpec {
    pub width: u32,
    pub per_token: u32,
    pub eps: f32,
    pub unit_offset: bool,
    pub add: bool,
    /// Elements between tokens of x, and where the first row starts in a token (a slice of a wider row).
    pub x_stride: u32,
    pub x_offset: u32,
}

/// What is done to the input of a matrix product while it is read.
#[derive(Clone, Debug, PartialEq)]
pub enum Prologue {
    Direct,
    /// RMS norm over the whole row; one more binding after x: the norm weight, f32 `[cols]`.
    Norm {
        eps: f32,
        unit_offset: bool,
    },
}

/// What is done to each element of a matrix product before it is stored, in order.
/// The operand of `Add` / `Mul` / `Bias` is one more binding, after the weight, in the order of the list.
#[derive(Clone, Debug, PartialEq)]
pub enum Epilogue {
    /// f32 `[rows]`.
    Bias,
    /// Adds the output's previous value: the residual in place. No further binding; must be last.
    AddInPlace,
    /// Adds an activation `[tokens, rows]`.
    Add,
    Unary(Unary),
    Scale(f32),
    Softcap(f32),
    /// Rows `2i` (gate) and `2i + 1` (up) of the weight make output `i`: `act(gate) · up`. The output has `rows / 2`
    /// columns; entries before it act on single rows, entries after it on outputs.
    Glu(Gate),
}

/// `out[row] = epilogue(w[row] · prologue(x))` for one token.
/// Bindings: x, [norm weight], weight, [epilogue operands ..], step (only if `row_from_step`), out (rw).
/// Grid: ceil(rows / rows_per_workgroup), folded to two dimensions where one would not hold them (see
/// `MatvecSpec::workgroups`); surplus workgroups return at once.
#[derive(Clone, Debug, PartialEq)]
pub struct MatvecSpec {
    pub rows: u32,
    pub cols: u32,
    pub format: WeightFormat,
    pub prologue: Prologue,
    pub epilogue: Vec<Epilogue>,
    /// x is row `step[Row]` of `[.., cols]` instead of row 0.
    pub row_from_step: bool,
    /// Output column of this matrix's first (a part of a split matrix); operands are those of the whole matrix.
    pub out_offset: u32,
    /// Threads.
    pub workgroup: u32,
    /// Rows of the weight computed by one workgroup; even with `Glu`.
    pub rows_per_workgroup: u32,
    /// Words of a row (1, 2 or 4) that a thread takes at a time: with fewer, neighbouring threads read nearer parts of
    /// the input; with more, loads are wider.
    pub lane_words: u32,
}

/// `out[t, row] = epilogue(w[row] · prologue(x[t]))` for all tokens of the step; tiled through workgroup memory.
/// Bindings as `MatvecSpec`, with step always: x, [norm weight], weight, [epilogue operands ..], step, out (rw).
/// Grid: (ceil(rows / TILE_ROWS), ceil(tokens / TILE_TOKENS)), see `GemmSpec::{TILE_ROWS, TILE_TOKENS}`.
#[derive(Clone, Debug, PartialEq)]
pub struct GemmSpec {
    pub rows: u32,
    pub cols: u32,
    pub format: WeightFormat,
    pub prologue: Prologue,
    pub epilogue: Vec<Epilogue>,
    /// As in [`MatvecSpec`].
    pub out_offset: u32,
    /// Columns of the whole output; more than this matrix makes if it is a part.
    pub out_columns: u32,
}

/// An elementwise expression over `width` elements a token.
/// Bindings: inputs .., out (rw). Grid: (ceil(width / 256), tokens).
#[derive(Clone, Debug, PartialEq)]
pub struct PointwiseSpec {
    pub width: u32,
    /// Element stride between tokens and offset of each input (a slice of a wider row).
    pub inputs: Vec<Strided>,
    pub expression: PointwiseExpr,
    /// The output is the last input too, bound once as rw `out` (its place in `inputs` counts, not its binding).
    pub in_place: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Strided {
    pub stride: u32,
    pub offset: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PointwiseExpr {
    Input(usize),
    /// The input's first element of the token, whatever the column.
    TokenInput(usize),
    Clamp(f32, Box<PointwiseExpr>),
    Unary(Unary, Box<PointwiseExpr>),
    Binary(Binary, Box<PointwiseExpr>, Box<PointwiseExpr>),
    Scale(f32, Box<PointwiseExpr>),
    Softcap(f32, Box<PointwiseExpr>),
}

/// Copies row `step[Row]` of `[.., width]`. Bindings: x, step, out `[width]` (rw). Grid: (ceil(width / 256)).
#[derive(Clone, Debug, PartialEq)]
pub struct SelectRowSpec {
    pub width: u32,
}

/// Rotary embedding alone. Bindings: x `[tokens, heads, width]` (strided), inv_freq (f32 `[rotary / 2]`), step, out (rw).
/// Grid: (heads, tokens). Angles are position · inv_freq in f32, reduced and evaluated with our own sine and cosine
/// (WebGPU's are only good to 2^-11).
#[derive(Clone, Debug, PartialEq)]
pub struct RopeKernelSpec {
    pub heads: u32,
    pub width: u32,
    pub rotary: u32,
    pub attention_factor: f32,
    pub x: Strided,
}

/// How a layer's cache lies: position-major `[slot][plane][kv_head][width]`, planes: 0 keys, 1 values.
/// The slot of position `p` is `p`, or `p % ring` with a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CacheSpec {
    pub kv_heads: u32,
    pub width: u32,
    pub ring: Option<u32>,
    pub element: CacheType,
}

/// Appends k and v. Bindings: k, v (each `[tokens, kv_heads, width]`, strided), step, cache (rw). Grid: (kv_heads, tokens).
#[derive(Clone, Debug, PartialEq)]
pub struct CacheWriteSpec {
    pub cache: CacheSpec,
    pub k: Strided,
    pub v: Strided,
}

/// The stacked q/k/v of a layer to rotated q and the cache: optional per-head RMS norm of q and k, rope, cache write.
/// Bindings: qkv `[tokens, stride]` whose first `(heads + 2 kv_heads) · width` columns are q, k and v, [q norm weight, k norm weight (f32 `[width]`)], inv_freq, step,
/// q out `[tokens, heads · width]` (rw), cache (rw).
/// Grid: (heads + 2 · kv_heads, tokens).
#[derive(Clone, Debug, PartialEq)]
pub struct RopeCacheSpec {
    pub heads: u32,
    pub cache: CacheSpec,
    /// Elements between tokens of qkv.
    pub stride: u32,
    pub rotary: u32,
    pub attention_factor: f32,
    /// (eps, unit_offset)
    pub norm: Option<(f32, bool)>,
}

/// Common part of the attention kernels.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionShape {
    pub heads: u32,
    pub cache: CacheSpec,
    pub scale: f32,
    pub window: Option<u32>,
    pub softcap: Option<f32>,
    /// One more logit a head in the softmax, see [`crate::graph::Op::Attention`].
    pub sinks: bool,
}

/// Causal attention of the step's tokens over the cache, which already holds them; tiled, online softmax
/// (Milakov & Gimelshein 2018, Dao 2022).
/// Bindings: q `[tokens, heads · width]`, cache, [sinks (f32 `[heads]`)], step, out `[tokens, heads · width]` (rw).
/// Grid: (ceil(tokens / QUERIES), heads), see `AttentionPrefillSpec::QUERIES`.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionPrefillSpec {
    pub attention: AttentionShape,
}

/// Attention of one token, the visible positions divided among `splits` workgroups; each writes a partial result.
/// Bindings: q, cache, step, partials (rw). Partials: f32 `[heads][splits][width + 2]`: unnormalised output, maximum
/// (of scores in base 2), sum. Grid: (splits, kv_heads · groups), see `AttentionSplitSpec::groups_of`.
/// A split whose range is empty writes maximum = -f32::MAX and sum 0. Sinks are left to the join.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionSplitSpec {
    pub attention: AttentionShape,
    pub splits: u32,
}

/// Joins the partials. Bindings: partials, [sinks (f32 `[heads]`)], out `[heads · width]` (rw). Grid: (heads).
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionReduceSpec {
    pub heads: u32,
    pub width: u32,
    pub splits: u32,
    pub sinks: bool,
}

// States of convolutions are rings of f32 `[ring][channels]`: the input at position `p` lies in slot `p % ring`.
// Slots that no position has reached yet hold zeros.

/// Causal depthwise convolution of the step's tokens, see [`crate::graph::Op::Convolution`], and what surrounds it:
/// `out = gate_out · act(conv(gate_in · x) + bias)`.
/// Bindings: x, weight (f32 `[channels · taps]`), [bias (f32 `[channels]`)], [gate_in], [gate_out], step, state (rw if
/// `writes_state`, else read-only), out `[tokens, channels]` (rw). Grid: (ceil(channels / 256), tokens).
#[derive(Clone, Debug, PartialEq)]
pub struct ConvolutionSpec {
    pub channels: u32,
    pub taps: u32,
    pub ring: u32,
    pub x: Strided,
    pub gate_in: Option<Strided>,
    pub gate_out: Option<Strided>,
    pub bias: bool,
    pub activation: Option<Unary>,
    /// For steps of one token: writes the token's input to the state too. Steps of several tokens have a
    /// [`ConvolutionStateSpec`] call afterwards.
    pub writes_state: bool,
}

/// Writes `gate_in · x` of the step's last `min(tokens, ring)` tokens to the state.
/// Bindings: x, [gate_in], step, state (rw). Grid: (ceil(channels / 256), ring).
#[derive(Clone, Debug, PartialEq)]
pub struct ConvolutionStateSpec {
    pub channels: u32,
    pub ring: u32,
    pub x: Strided,
    pub gate_in: Option<Strided>,
}

/// The gated delta rule, see [`crate::graph::Op::GatedDelta`], over all tokens of the step, in order.
/// Bindings: qkv (all three in one value), a, b, parameters (f32 `[2 · value_heads]`: a_log, then dt_bias),
/// step (unless `single`), state (f32 `[value_heads][key_dim][value_dim]`, rw), out `[tokens, value_heads · value_dim]` (rw).
/// Grid: `GatedDeltaSpec::groups`.
#[derive(Clone, Debug, PartialEq)]
pub struct GatedDeltaSpec {
    pub key_heads: u32,
    pub value_heads: u32,
    pub key_dim: u32,
    pub value_dim: u32,
    pub q: Strided,
    pub k: Strided,
    pub v: Strided,
    pub a: Strided,
    pub b: Strided,
    /// Steps have one token (decode).
    pub single: bool,
}

// What a generation asks of the logits, in transformers' order. The history is `array<vec2<u32>>`: for each position the
// token and, at its first place, 1 plus how often it was sampled (elsewhere 0). The rules are laid out as
// `kiln_bundle::RuleWord` says. The tokens before the one to be sampled are `position + tokens` of the step.
// `TokenRules` adds the biases of single tokens and of sequences; first it appends the token sampled last. Bindings: step,
// tokens, rules, history (rw), logits (rw). Grid (1).
// `Penalties` treats each token of the history once. Bindings: step, history, rules, logits (rw). Grid (groups).
// `RepeatBan` rules out what would repeat an n-gram. Bindings: step, history, rules, logits (rw). Grid (groups).

// Sampling: find the smallest logit that top-k, top-p and min-p keep (`SampleThreshold`, one workgroup, bisection on the
// value; keeps all at once when none is set), then argmax of `logit / temperature + Gumbel noise` over what is kept (the
// Gumbel-max trick), noise from a counter-based hash of (seed, position of the new token, token id). Greedy, at
// temperature 0: argmax of the logit alone, whatever the threshold; the lowest id wins a tie.
// Tokens as likely as the last one kept are kept too.
// `SampleThreshold` bindings: logits, step, threshold (f32 [1], rw). Grid (1).
// `SamplePartial` bindings: logits, step, threshold, partials (u32 that sorts as the score does, u32 id:
// `array<vec2<u32>>` [groups], rw). Grid (groups).
// `SampleFinal` bindings: partials, step (rw), tokens (rw), output (u32 [slots], rw). Grid (1). Advances step, see `StepWord`;
// the output is the token's id, or `kiln_bundle::NOT_FINITE` or `RULED_OUT`.
