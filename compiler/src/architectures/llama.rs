use crate::dsl::*;

#[derive(Config)]
#[config(assume(
    vocab_size = 32_000,
    hidden_size = 4096,
    intermediate_size = 11_008,
    num_hidden_layers = 32,
    num_attention_heads = 32,
    hidden_act = "silu",
    max_position_embeddings = 2048,
    rms_norm_eps = 1e-6,
    attention_bias = false,
    mlp_bias = false,
    tie_word_embeddings = false
))]
pub struct LlamaConfig {
    pub vocab_size: Dim,
    pub hidden_size: Dim,
    pub intermediate_size: Dim,
    pub num_hidden_layers: Dim,
    pub num_attention_heads: Dim,
    #[config(default = num_attention_heads)]
    pub num_key_value_heads: Dim,
    #[config(default = hidden_size / num_attention_heads)]
    pub head_dim: Dim,
    pub hidden_act: Activation,
    pub rms_norm_eps: f32,
    #[config(rename = "rope_parameters")]
    pub rope: Rope,
    pub attention_bias: bool,
    pub mlp_bias: bool,
    pub tie_word_embeddings: bool,
}

/// Llama-family decoder: pre-norm, rotary positions, grouped-query attention, SwiGLU.
#[architecture("LlamaForCausalLM", model_types("llama"))]
pub fn llama(c: &LlamaConfig, w: Weights, tokens: Tokens) -> Logits {
    let queries = c.num_attention_heads * c.head_dim;
    let keys = c.num_key_value_heads * c.head_dim;
    let embedding = w.matrix("model.embed_tokens", c.vocab_size, c.hidden_size);
    let mut x = gather(embedding, tokens);
    for layer in w.layers("model.layers", c.num_hidden_layers) {
        let attend = |name, rows, columns| layer.matrix(name, rows, columns).biased(c.attention_bias);
        let feed = |name, rows, columns| layer.matrix(name, rows, columns).biased(c.mlp_bias);

        let h = rms_norm(x, layer.vector("input_layernorm", c.hidden_size), c.rms_norm_eps);
        let q = linear(h, attend("self_attn.q_proj", queries, c.hidden_size));
        let q = q.heads(c.num_attention_heads, c.head_dim).rope(&c.rope);
        let k = linear(h, attend("self_attn.k_proj", keys, c.hidden_size));
        let k = k.heads(c.num_key_value_heads, c.head_dim).rope(&c.rope);
        let v = linear(h, attend("self_attn.v_proj", keys, c.hidden_size));
        let v = v.heads(c.num_key_value_heads, c.head_dim);
        let attended = attention(q, layer.cache(k, v), Attention::causal());
        x += linear(attended, attend("self_attn.o_proj", c.hidden_size, queries));

        let h = rms_norm(
            x,
            layer.vector("post_attention_layernorm", c.hidden_size),
            c.rms_norm_eps,
        );
        let gate = linear(h, feed("mlp.gate_proj", c.intermediate_size, c.hidden_size));
        let up = linear(h, feed("mlp.up_proj", c.intermediate_size, c.hidden_size));
        let product = activate(c.hidden_act, gate) * up;
        x += linear(product, feed("mlp.down_proj", c.hidden_size, c.intermediate_size));
    }
    let h = rms_norm(x, w.vector("model.norm", c.hidden_size), c.rms_norm_eps);
    linear(h, w.tied_or("lm_head", embedding, c.tie_word_embeddings))
}
