//! What Qwen3-Next and Qwen3.5 have in common: three of four layers keep a state by the gated delta rule instead of keys
//! and values; where they attend, a gate stands before the output.

use super::expert_blocks::{PROJECTIONS, gated_experts};
use crate::dsl::*;

layer_kinds! {
    /// How a layer mixes tokens.
    pub enum DeltaMixer {
        Delta = "linear_attention",
        Attention = "full_attention",
    }
}

impl DeltaMixer {
    /// The last of every `interval` layers attends.
    fn attending_every(interval: Dim, layers: Dim) -> Vec<Self> {
        let kind = |layer: usize| match (layer + 1).is_multiple_of(interval.value()) {
            true => DeltaMixer::Attention,
            false => DeltaMixer::Delta,
        };
        (0..layers.value()).map(kind).collect()
    }
}

#[derive(Config)]
#[config(
    assume(
        num_attention_heads = 16,
        head_dim = 256,
        linear_num_key_heads = 16,
        linear_num_value_heads = 32,
        linear_key_head_dim = 128,
        linear_value_head_dim = 128,
        linear_conv_kernel_dim = 4,
        hidden_act = "silu",
        max_position_embeddings = 32_768,
        rms_norm_eps = 1e-6,
        attention_bias = false,
        tie_word_embeddings = false,
        partial_rotary_factor = 0.25,
        full_attention_interval = 4
    ),
    expect(attn_output_gate = true)
)]
pub struct DeltaConfig {
    pub vocab_size: Dim,
    pub hidden_size: Dim,
    pub num_hidden_layers: Dim,
    pub num_attention_heads: Dim,
    pub num_key_value_heads: Dim,
    pub head_dim: Dim,
    pub linear_num_key_heads: Dim,
    pub linear_num_value_heads: Dim,
    pub linear_key_head_dim: Dim,
    pub linear_value_head_dim: Dim,
    pub linear_conv_kernel_dim: Dim,
    pub hidden_act: Activation,
    pub rms_norm_eps: f32,
    /// Rotates the first part of each head.
    #[config(rename = "rope_parameters")]
    pub rope: Rope,
    pub attention_bias: bool,
    pub tie_word_embeddings: bool,
    pub full_attention_interval: Dim,
    #[config(default = DeltaMixer::attending_every(full_attention_interval, num_hidden_layers))]
    pub layer_types: Vec<DeltaMixer>,
}

/// Experts, and one more expert that each token goes to.
#[derive(Config)]
pub struct SharedMixtureConfig {
    #[config(alias = "num_local_experts")]
    pub num_experts: Dim,
    pub num_experts_per_tok: Dim,
    pub moe_intermediate_size: Dim,
    pub shared_expert_intermediate_size: Dim,
    pub norm_topk_prob: bool,
}

/// The linear maps that a delta layer's input goes through, where they lie in the checkpoint.
pub struct DeltaSources {
    pub qkv: Source,
    pub z: Source,
    pub b: Source,
    pub a: Source,
}

/// A layer's norm, with `1 + w`.
#[block]
pub fn norm<'g, K: LayerKind>(c: &DeltaConfig, layer: &Layer<'g, K>, name: &str, x: Tensor<'g>) -> Tensor<'g> {
    rms_norm_plus_one(x, layer.vector(name, c.hidden_size), c.rms_norm_eps)
}

/// Grouped-query attention; each head of `q_proj` has the rows of its query, then those of its gate.
#[block]
pub fn gated_attention<'g, K: LayerKind>(c: &DeltaConfig, layer: &Layer<'g, K>, h: Tensor<'g>) -> Tensor<'g> {
    let queries = c.num_attention_heads * c.head_dim;
    let keys = c.num_key_value_heads * c.head_dim;
    let biased = |source: Source, rows| layer.matrix(source, rows, c.hidden_size).biased(c.attention_bias);
    let norm = |x, name| rms_norm_plus_one(x, layer.vector(name, c.head_dim), c.rms_norm_eps);
    let q_proj = Source::path("self_attn.q_proj");
    let halves = [c.head_dim, c.head_dim];
    let q = linear(h, biased(q_proj.clone().part("q", &halves, 0..1), queries));
    let q = norm(q.heads(c.num_attention_heads, c.head_dim), "self_attn.q_norm").rope(&c.rope);
    let k = linear(h, biased("self_attn.k_proj".into(), keys));
    let k = norm(k.heads(c.num_key_value_heads, c.head_dim), "self_attn.k_norm").rope(&c.rope);
    let v = linear(h, biased("self_attn.v_proj".into(), keys));
    let v = v.heads(c.num_key_value_heads, c.head_dim);
    let gate = linear(h, biased(q_proj.part("gate", &halves, 1..2), queries));
    let attended = attention(q, layer.cache(k, v), Attention::causal());
    let output = layer
        .matrix("self_attn.o_proj", c.hidden_size, queries)
        .biased(c.attention_bias);
    linear(attended * sigmoid(gate), output)
}

/// Gated DeltaNet: a short convolution over queries, keys and values, the delta rule, a gated norm of each head.
#[block]
pub fn delta_net<'g, K: LayerKind>(
    c: &DeltaConfig,
    layer: &Layer<'g, K>,
    h: Tensor<'g>,
    sources: DeltaSources,
) -> Tensor<'g> {
    let (key_heads, value_heads) = (c.linear_num_key_heads, c.linear_num_value_heads);
    let (key_width, value_width) = (c.linear_key_head_dim, c.linear_value_head_dim);
    let (keys, values) = (key_heads * key_width, value_heads * value_width);
    let mixed = 2 * keys + values;
    let qkv = linear(h, layer.matrix(sources.qkv, mixed, c.hidden_size));
    let z = linear(h, layer.matrix(sources.z, values, c.hidden_size));
    let b = linear(h, layer.matrix(sources.b, value_heads, c.hidden_size));
    let a = linear(h, layer.matrix(sources.a, value_heads, c.hidden_size));
    let filter = layer.filter("linear_attn.conv1d", mixed, c.linear_conv_kernel_dim);
    let qkv = activate(c.hidden_act, layer.convolution(qkv, filter));
    let state = layer.gated_delta(GatedDelta {
        q: qkv.columns(0, keys).heads(key_heads, key_width),
        k: qkv.columns(keys, keys).heads(key_heads, key_width),
        v: qkv.columns(2 * keys, values).heads(value_heads, value_width),
        a,
        b,
        a_log: layer.vector(Source::tensor("linear_attn.A_log"), value_heads),
        dt_bias: layer.vector(Source::tensor("linear_attn.dt_bias"), value_heads),
    });
    let weight = layer.vector("linear_attn.norm", value_width);
    let normed = rms_norm(state, weight, c.rms_norm_eps).merge_heads();
    linear(
        normed * silu(z),
        layer.matrix("linear_attn.out_proj", c.hidden_size, values),
    )
}

/// SwiGLU at `path`.
#[block]
pub fn feed_forward<'g, K: LayerKind>(
    c: &DeltaConfig,
    layer: &Layer<'g, K>,
    h: Tensor<'g>,
    path: &str,
    width: Dim,
) -> Tensor<'g> {
    let matrix = |name, rows, columns| layer.matrix(format!("{path}.{name}").as_str(), rows, columns);
    let gate = linear(h, matrix("gate_proj", width, c.hidden_size));
    let up = linear(h, matrix("up_proj", width, c.hidden_size));
    let product = activate(c.hidden_act, gate) * up;
    linear(product, matrix("down_proj", c.hidden_size, width))
}

/// Each token's experts, and the one that all tokens share times a gate.
#[block]
pub fn shared_mixture<'g, K: LayerKind>(
    c: &DeltaConfig,
    of: &SharedMixtureConfig,
    layer: &Layer<'g, K>,
    h: Tensor<'g>,
) -> Tensor<'g> {
    let scores = linear(h, layer.router("mlp.gate", of.num_experts, c.hidden_size));
    let how = Routing::top(of.num_experts_per_tok, Scoring::SoftmaxAll);
    let routing = route(scores, how.normalized(of.norm_topk_prob.then_some(0.0)));
    let sizes = (of.moe_intermediate_size, c.hidden_size);
    let experts = gated_experts(layer, "mlp.experts", PROJECTIONS, of.num_experts, sizes, c.hidden_act);
    let chosen = moe(h, routing, experts);
    let shared = feed_forward(c, layer, h, "mlp.shared_expert", of.shared_expert_intermediate_size);
    let gate = sigmoid(linear(h, layer.matrix("mlp.shared_expert_gate", 1, c.hidden_size)));
    chosen + shared.scale_rows(gate)
}
