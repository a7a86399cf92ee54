use super::{Dim, RopeId, StateId, WeightId};

/// An operator of the unfused program. [`crate::reference`] defines each by running it.
///
/// In the comments `x: [T, n]` means one row of `n` for each token of the step.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `-> [T]` token ids (u32). Entry only.
    Tokens,
    /// `-> [T, hidden]`: what enters a template or the head.
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
    /// query head `h` reads key-value head `h / (heads / kv_heads)`. A third operand `[heads]` holds sinks: one more
    /// logit for each head in the softmax, neither scaled nor capped nor masked, that attends to nothing (GPT-OSS).
    Attention(AttentionSpec),
    /// `[T, n] -> [T, len]`: columns `start .. start + len`.
    Slice { start: Dim, len: Dim },
    /// `min(max(x, -limit), limit)`
    Clamp(f32),
    /// `(x [T, n], s [T, 1]) -> [T, n]`: each token's row times its number.
    ScaleRows,
    /// `(x [T, n], w [n, 1, taps]) -> [T, n]`: causal depthwise convolution over tokens,
    /// `out[t, c] = Σ_j w[c, j] · x[t - taps + 1 + j, c]`, with zeros before the first token of the session. A third
    /// operand `[n]` is a bias.
    Convolution(StateId),
    /// `(q [T, kh, dk], k [T, kh, dk], v [T, vh, dv], a [T, vh], b [T, vh], a_log [vh], dt_bias [vh]) -> [T, vh, dv]`:
    /// the gated delta rule (Yang, Kautz, Hatamizadeh 2024, as Qwen3-Next has it) with the state `S [vh, dk, dv]`.
    /// Value head `h` uses key head `h / (vh / kh)`. With `l2(x) = x / sqrt(Σ x² + 1e-6)`, for each token:
    /// `q = l2(q) / sqrt(dk)`, `k = l2(k)`, `S *= exp(-exp(a_log) · softplus(a + dt_bias))`,
    /// `S += k ⊗ (σ(b) · (v - Sᵀ k))`, `out = Sᵀ q`.
    GatedDelta(StateId),
    /// `(scores [T, experts]) -> [T, k]` routing: which experts a token goes to, and their weights. A second operand
    /// `[experts]` is added to what experts are chosen by, not to the weights.
    Route(RouteSpec),
    /// `(x [T, h], routing [T, k], gate [E, m, h], up [E, m, h], down [E, h, m]) -> [T, h]`: a mixture of experts,
    /// `Σ_slot weight · (down_e gated(gate_e x, up_e x))` with `e` the expert of the slot. With biases three more
    /// operands `[E, m]`, `[E, m]`, `[E, h]`, added to each product.
    Experts(Gate),
}

/// How scores become a choice of experts and their weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RouteSpec {
    /// Experts for each token. Of equal scores the lowest number wins.
    pub experts_per_token: u32,
    pub scoring: Scoring,
    /// Weights are divided by their sum plus this.
    pub normalize: Option<f32>,
    /// Multiplies the weights, last.
    pub scale: f32,
}

/// What makes weights of scores. The highest scores are chosen in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scoring {
    /// Softmax over the chosen experts.
    SoftmaxChosen,
    /// Softmax over all experts.
    SoftmaxAll,
    /// `σ(score)`. A selection bias is added to this, not to the score.
    Sigmoid,
}

/// How a gated unit joins gate and up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gate {
    /// `act(gate) · up`
    Activated(Unary),
    /// With `gate = min(gate, limit)` and `up` clamped to `±limit`: `(up + 1) · gate · σ(alpha · gate)` (GPT-OSS).
    Clamped { alpha: f32, limit: f32 },
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
    /// The state that it reads and writes, if it remembers earlier tokens.
    pub fn state(&self) -> Option<StateId> {
        match self {
            Op::CacheWrite(id) | Op::Convolution(id) | Op::GatedDelta(id) => Some(*id),
            Op::Tokens
            | Op::LayerInput
            | Op::Weight(_)
            | Op::Gather
            | Op::Linear
            | Op::RmsNorm { .. }
            | Op::Unary(_)
            | Op::Binary(_)
            | Op::Scale(_)
            | Op::Softcap(_)
            | Op::SplitHeads { .. }
            | Op::MergeHeads
            | Op::Rope(_)
            // Reads the cache that `CacheWrite` hands on.
            | Op::Attention(_)
            | Op::Slice { .. }
            | Op::Clamp(_)
            | Op::ScaleRows
            | Op::Route(_)
            | Op::Experts(_) => None,
        }
    }

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
            Op::Clamp(_) => "clamp",
            Op::ScaleRows => "scale_rows",
            Op::Convolution(_) => "convolution",
            Op::GatedDelta(_) => "gated_delta",
            Op::Route(_) => "route",
            Op::Experts(_) => "experts",
        }
    }
}
