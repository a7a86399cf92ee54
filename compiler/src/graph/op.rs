use super::{Dim, RopeId, StateId, WeightId};

/// An operator of the unfused program. [`crate::reference`] defines each by running it.
///
/// In the comments `x: [T, n]` means one row of `n` for each token of the step.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `-> [T]` token ids (u32). Prologue only.
    Tokens,
    /// `-> [T, hidden]`: what enters a template or the epilogue.
    LayerInput,
    /// A checkpoint tensor.
    Weight(WeightId),
    /// `(table [vocab, n], tokens [T]) -> [T, n]`
    Gather,
    /// `(x [T, in], w [out, in]) -> [T, out]`: `x wᵀ`; a third operand `[out]` is a bias.
    Linear,
    /// `(x [.., n], w [n]) -> [.., n]`: `x / sqrt(mean(x²) + eps) · w`, or `· (1 + w)` with `unit_offset`
    /// (Gemma). Over the last dimension. Zhang & Sennrich 2019.
    RmsNorm { eps: f32, unit_offset: bool },
    /// Elementwise.
    Unary(Unary),
    /// Elementwise, equal shapes.
    Binary(Binary),
    /// `x · factor`
    Scale(f32),
    /// `cap · tanh(x / cap)`
    Softcap(f32),
    /// `[T, heads · width] -> [T, heads, width]`: the same memory seen otherwise.
    SplitHeads { heads: Dim, width: Dim },
    /// `[T, heads, width] -> [T, heads · width]`: the same memory seen otherwise.
    MergeHeads,
    /// `[T, heads, width]`: rotates by the token's position. See [`RopeSpec`].
    Rope(RopeId),
    /// `(k [T, kv_heads, width], v [T, kv_heads, width]) -> cache`: appends the step's tokens to the
    /// state and gives the cache as it is then.
    CacheWrite(StateId),
    /// `(q [T, heads, width], cache) -> [T, heads, width]`: causal scaled dot-product attention;
    /// query head `h` reads key-value head `h / (heads / kv_heads)`.
    Attention(AttentionSpec),
    /// `[T, n] -> [T, len]`: columns `start .. start + len`. Made by the horizontal merge, not by authors.
    Slice { start: Dim, len: Dim },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Multiplies the dot products.
    pub scale: f32,
    /// A token sees itself and the `window - 1` before it; `None` sees all before it.
    pub window: Option<usize>,
    /// `cap · tanh(score / cap)` on the scaled scores (Gemma 2).
    pub softcap: Option<f32>,
}

/// Rotary position embedding (Su et al. 2021), half-split as Hugging Face stores it: element `i` of the
/// first `rotary / 2` pairs with `i + rotary / 2`, both turned by `position · inv_freq[i]` and scaled by
/// `attention_factor`; elements from `rotary` on pass through.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSpec {
    /// Short name for kernels and reports, e.g. `rope_local`.
    pub name: String,
    /// `rotary / 2` inverse frequencies in radians per position, scaling (llama3, linear, yarn) applied.
    pub inv_freq: Vec<f32>,
    /// Multiplies cosine and sine; 1 but for YaRN.
    pub attention_factor: f32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unary {
    /// `x · σ(x)`
    Silu,
    /// GELU, tanh approximation: `x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))`
    GeluTanh,
    /// `x/2 · (1 + erf(x/√2))`
    GeluErf,
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// `max(x, 0)`
    Relu,
    Tanh,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Binary {
    Add,
    Sub,
    Mul,
}

impl RopeSpec {
    /// How many leading elements of a head are rotated.
    pub fn rotary(&self) -> usize {
        self.inv_freq.len() * 2
    }
}

impl Op {
    /// Its name in messages, dumps and reports.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Tokens => "tokens",
            Op::LayerInput => "layer_input",
            Op::Weight(_) => "weight",
            Op::Gather => "gather",
            Op::Linear => "linear",
            Op::RmsNorm { .. } => "rms_norm",
            Op::Unary(Unary::Silu) => "silu",
            Op::Unary(Unary::GeluTanh) => "gelu_tanh",
            Op::Unary(Unary::GeluErf) => "gelu_erf",
            Op::Unary(Unary::Sigmoid) => "sigmoid",
            Op::Unary(Unary::Relu) => "relu",
            Op::Unary(Unary::Tanh) => "tanh",
            Op::Binary(Binary::Add) => "add",
            Op::Binary(Binary::Sub) => "sub",
            Op::Binary(Binary::Mul) => "mul",
            Op::Scale(_) => "scale",
            Op::Softcap(_) => "softcap",
            Op::SplitHeads { .. } => "split_heads",
            Op::MergeHeads => "merge_heads",
            Op::Rope(_) => "rope",
            Op::CacheWrite(_) => "cache_write",
            Op::Attention(_) => "attention",
            Op::Slice { .. } => "slice",
        }
    }
}
