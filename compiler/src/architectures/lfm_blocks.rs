//! What LFM2 and LFM2-MoE have in common.

use crate::dsl::*;

layer_kinds! {
    /// How a layer mixes tokens.
    pub enum Lfm2Mixer {
        Convolution = "conv",
        Attention = "full_attention",
    }
}

impl Lfm2Mixer {
    /// Layers attend where they are listed, or all.
    fn attending(listed: &Option<Vec<usize>>, layers: Dim) -> Vec<Self> {
        let kind = |layer| match listed.as_ref().is_none_or(|listed| listed.contains(&layer)) {
            true => Lfm2Mixer::Attention,
            false => Lfm2Mixer::Convolution,
        };
        (0..layers.value()).map(kind).collect()
    }
}

#[derive(Config)]
#[config(
    assume(
        vocab_size = 65_536,
        num_hidden_layers = 32,
        num_attention_heads = 32,
        num_key_value_heads = 8,
        max_position_embeddings = 128_000,
        norm_eps = 1e-5,
        rope_theta = 1_000_000.0,
        conv_L_cache = 3,
        conv_bias = false,
        tie_word_embeddings = true
    ),
    ignore(
        "block_dim",
        "block_norm_eps",
        "block_use_swiglu",
        "conv_dim",
        "conv_dim_out",
        "num_heads",
        "theta",
        "use_pos_enc"
    )
)]
pub struct Lfm2Common {
    pub vocab_size: Dim,
    pub hidden_size: Dim,
    pub num_hidden_layers: Dim,
    pub num_attention_heads: Dim,
    pub num_key_value_heads: Dim,
    #[config(default = hidden_size / num_attention_heads)]
    pub head_dim: Dim,
    pub norm_eps: f32,
    #[config(rename = "rope_parameters")]
    pub rope: Rope,
    /// Taps of the convolutions.
    #[config(rename = "conv_L_cache")]
    pub conv_l_cache: Dim,
    pub conv_bias: bool,
    #[config(alias = "tie_embedding")]
    pub tie_word_embeddings: bool,
    pub full_attn_idxs: Option<Vec<usize>>,
    #[config(default = Lfm2Mixer::attending(&full_attn_idxs, num_hidden_layers))]
    pub layer_types: Vec<Lfm2Mixer>,
}

/// `out(C · conv(B · x))`, with `B`, `C` and `x` linear maps of the input.
#[block]
pub fn short_convolution<'g, K: LayerKind>(c: &Lfm2Common, layer: &Layer<'g, K>, h: Tensor<'g>) -> Tensor<'g> {
    let thirds = [c.hidden_size; 3];
    let third = |name, number| {
        let source = Source::path("conv.in_proj").part(name, &thirds, number..number + 1);
        layer.matrix(source, c.hidden_size, c.hidden_size).biased(c.conv_bias)
    };
    let before = linear(h, third("b", 0));
    let after = linear(h, third("c", 1));
    let inner = linear(h, third("x", 2));
    let filter = layer
        .filter("conv.conv", c.hidden_size, c.conv_l_cache)
        .biased(c.conv_bias);
    let mixed = layer.convolution(before * inner, filter);
    let output = layer.matrix("conv.out_proj", c.hidden_size, c.hidden_size);
    linear(after * mixed, output.biased(c.conv_bias))
}

/// Grouped-query attention with a norm on each head's queries and keys.
#[block]
pub fn self_attention<'g, K: LayerKind>(c: &Lfm2Common, layer: &Layer<'g, K>, h: Tensor<'g>) -> Tensor<'g> {
    let queries = c.num_attention_heads * c.head_dim;
    let keys = c.num_key_value_heads * c.head_dim;
    let norm = |x, name| rms_norm(x, layer.vector(name, c.head_dim), c.norm_eps);
    let q = linear(h, layer.matrix("self_attn.q_proj", queries, c.hidden_size));
    let q = norm(q.heads(c.num_attention_heads, c.head_dim), "self_attn.q_layernorm").rope(&c.rope);
    let k = linear(h, layer.matrix("self_attn.k_proj", keys, c.hidden_size));
    let k = norm(k.heads(c.num_key_value_heads, c.head_dim), "self_attn.k_layernorm").rope(&c.rope);
    let v = linear(h, layer.matrix("self_attn.v_proj", keys, c.hidden_size));
    let v = v.heads(c.num_key_value_heads, c.head_dim);
    let attended = attention(q, layer.cache(k, v), Attention::causal());
    linear(attended, layer.matrix("self_attn.out_proj", c.hidden_size, queries))
}

/// SwiGLU.
#[block]
pub fn feed_forward<'g, K: LayerKind>(c: &Lfm2Common, layer: &Layer<'g, K>, h: Tensor<'g>, width: Dim) -> Tensor<'g> {
    let gate = linear(h, layer.matrix("feed_forward.w1", width, c.hidden_size));
    let up = linear(h, layer.matrix("feed_forward.w3", width, c.hidden_size));
    linear(silu(gate) * up, layer.matrix("feed_forward.w2", c.hidden_size, width))
}
