use crate::dsl::*;

#[derive(Config)]
#[config(
    assume(
        vocab_size = 262_208,
        hidden_size = 2304,
        intermediate_size = 9216,
        num_hidden_layers = 26,
        num_attention_heads = 8,
        num_key_value_heads = 4,
        head_dim = 256,
        max_position_embeddings = 131_072,
        hidden_activation = "gelu_pytorch_tanh",
        rms_norm_eps = 1e-6,
        attention_bias = false,
        tie_word_embeddings = true,
        query_pre_attn_scalar = 256,
        sliding_window = 4096,
        sliding_window_pattern = 6,
        rope_theta = 1_000_000.0,
        rope_local_base_freq = 10_000.0
    ),
    refuse("use_bidirectional_attention", "attn_logit_softcapping")
)]
pub struct Gemma3Config {
    pub vocab_size: Dim,
    pub hidden_size: Dim,
    pub intermediate_size: Dim,
    pub num_attention_heads: Dim,
    pub num_key_value_heads: Dim,
    pub head_dim: Dim,
    pub hidden_activation: Activation,
    pub rms_norm_eps: f32,
    /// Windowed layers have another base than the others.
    #[config(rename = "rope_parameters")]
    pub rope: Rope,
    pub attention_bias: bool,
    pub tie_word_embeddings: bool,
    pub query_pre_attn_scalar: f64,
    pub sliding_window: Option<usize>,
    pub layer_types: Vec<AttentionKind>,
    pub final_logit_softcapping: Option<f32>,
}

/// Gemma 3 text decoder: norms with `1 + w` before and after each branch, five windowed layers to one
/// that sees everything, GeGLU, scaled embeddings.
#[architecture(
    "Gemma3ForCausalLM",
    "Gemma3ForConditionalGeneration",
    model_types("gemma3_text", "gemma3"),
    unused("vision_tower", "multi_modal_projector")
)]
pub fn gemma3(c: &Gemma3Config, w: Weights, tokens: Tokens) -> Logits {
    let queries = c.num_attention_heads * c.head_dim;
    let keys = c.num_key_value_heads * c.head_dim;
    let eps = c.rms_norm_eps;
    let embedding = w.matrix("model.embed_tokens", c.vocab_size, c.hidden_size);
    let mut x = gather(embedding, tokens) * (c.hidden_size.value() as f64).sqrt() as f32;
    for layer in w.layers_of("model.layers", &c.layer_types) {
        let biased = |name, rows, columns| layer.matrix(name, rows, columns).biased(c.attention_bias);
        let norm = |name| layer.vector(name, c.hidden_size);
        let slides = layer.kind() == &AttentionKind::Sliding;
        let window = c.sliding_window.filter(|_| slides);
        let scale = c.query_pre_attn_scalar.powf(-0.5) as f32;

        let h = rms_norm_plus_one(x, norm("input_layernorm"), eps);
        let q = linear(h, biased("self_attn.q_proj", queries, c.hidden_size));
        let q = q.heads(c.num_attention_heads, c.head_dim);
        let q = rms_norm_plus_one(q, layer.vector("self_attn.q_norm", c.head_dim), eps).rope(&c.rope);
        let k = linear(h, biased("self_attn.k_proj", keys, c.hidden_size));
        let k = k.heads(c.num_key_value_heads, c.head_dim);
        let k = rms_norm_plus_one(k, layer.vector("self_attn.k_norm", c.head_dim), eps).rope(&c.rope);
        let v = linear(h, biased("self_attn.v_proj", keys, c.hidden_size));
        let v = v.heads(c.num_key_value_heads, c.head_dim);
        let how = Attention::causal().scale(scale).window(window);
        let attended = attention(q, layer.cache(k, v), how);
        let o = linear(attended, biased("self_attn.o_proj", c.hidden_size, queries));
        x += rms_norm_plus_one(o, norm("post_attention_layernorm"), eps);

        let h = rms_norm_plus_one(x, norm("pre_feedforward_layernorm"), eps);
        let gate = linear(h, layer.matrix("mlp.gate_proj", c.intermediate_size, c.hidden_size));
        let up = linear(h, layer.matrix("mlp.up_proj", c.intermediate_size, c.hidden_size));
        let product = activate(c.hidden_activation, gate) * up;
        let down = linear(
            product,
            layer.matrix("mlp.down_proj", c.hidden_size, c.intermediate_size),
        );
        x += rms_norm_plus_one(down, norm("post_feedforward_layernorm"), eps);
    }
    let h = rms_norm_plus_one(x, w.vector("model.norm", c.hidden_size), eps);
    let logits = linear(h, w.tied_or("lm_head", embedding, c.tie_word_embeddings));
    match c.final_logit_softcapping {
        Some(cap) => logits.softcap(cap),
        None => logits,
    }
}
