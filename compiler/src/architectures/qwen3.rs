use crate::dsl::*;

#[derive(Config)]
#[config(assume(
    vocab_size = 151_936,
    hidden_size = 4096,
    intermediate_size = 22_016,
    num_hidden_layers = 32,
    num_attention_heads = 32,
    num_key_value_heads = 32,
    head_dim = 128,
    hidden_act = "silu",
    max_position_embeddings = 32_768,
    rms_norm_eps = 1e-6,
    attention_bias = false,
    tie_word_embeddings = false,
    use_sliding_window = false,
    sliding_window = 4096,
    max_window_layers = 28
))]
pub struct Qwen3Config {
    pub vocab_size: Dim,
    pub hidden_size: Dim,
    pub intermediate_size: Dim,
    pub num_hidden_layers: Dim,
    pub num_attention_heads: Dim,
    #[config(default = num_attention_heads)]
    pub num_key_value_heads: Dim,
    pub head_dim: Dim,
    pub hidden_act: Activation,
    pub rms_norm_eps: f32,
    #[config(rename = "rope_parameters")]
    pub rope: Rope,
    pub attention_bias: bool,
    pub tie_word_embeddings: bool,
    pub use_sliding_window: bool,
    pub sliding_window: Option<usize>,
    pub max_window_layers: usize,
    #[config(default = AttentionKind::sliding_from(
        max_window_layers,
        num_hidden_layers,
        use_sliding_window && sliding_window.is_some()
    ))]
    pub layer_types: Vec<AttentionKind>,
}

/// Qwen3 decoder: Llama's with a norm on each head's queries and keys, and perhaps windows.
#[architecture("Qwen3ForCausalLM", model_types("qwen3"))]
pub fn qwen3(c: &Qwen3Config, w: Weights, tokens: Tokens) -> Logits {
    let queries = c.num_attention_heads * c.head_dim;
    let keys = c.num_key_value_heads * c.head_dim;
    let eps = c.rms_norm_eps;
    let embedding = w.matrix("model.embed_tokens", c.vocab_size, c.hidden_size);
    let mut x = gather(embedding, tokens);
    for layer in w.layers_of("model.layers", &c.layer_types) {
        let biased = |name, rows, columns| layer.matrix(name, rows, columns).biased(c.attention_bias);
        let slides = c.use_sliding_window && layer.kind() == &AttentionKind::Sliding;
        let window = if slides { c.sliding_window } else { None };

        let h = rms_norm(x, layer.vector("input_layernorm", c.hidden_size), eps);
        let q = linear(h, biased("self_attn.q_proj", queries, c.hidden_size));
        let q = q.heads(c.num_attention_heads, c.head_dim);
        let q = rms_norm(q, layer.vector("self_attn.q_norm", c.head_dim), eps).rope(&c.rope);
        let k = linear(h, biased("self_attn.k_proj", keys, c.hidden_size));
        let k = k.heads(c.num_key_value_heads, c.head_dim);
        let k = rms_norm(k, layer.vector("self_attn.k_norm", c.head_dim), eps).rope(&c.rope);
        let v = linear(h, biased("self_attn.v_proj", keys, c.hidden_size));
        let v = v.heads(c.num_key_value_heads, c.head_dim);
        let attended = attention(q, layer.cache(k, v), Attention::causal().window(window));
        x += linear(attended, biased("self_attn.o_proj", c.hidden_size, queries));

        let h = rms_norm(x, layer.vector("post_attention_layernorm", c.hidden_size), eps);
        let gate = linear(h, layer.matrix("mlp.gate_proj", c.intermediate_size, c.hidden_size));
        let up = linear(h, layer.matrix("mlp.up_proj", c.intermediate_size, c.hidden_size));
        let product = activate(c.hidden_act, gate) * up;
        x += linear(
            product,
            layer.matrix("mlp.down_proj", c.hidden_size, c.intermediate_size),
        );
    }
    let h = rms_norm(x, w.vector("model.norm", c.hidden_size), eps);
    linear(h, w.tied_or("lm_head", embedding, c.tie_word_embeddings))
}
