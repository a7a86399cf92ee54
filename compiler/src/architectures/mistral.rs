use crate::dsl::*;

#[derive(Config)]
#[config(assume(
    vocab_size = 32_000,
    hidden_size = 4096,
    intermediate_size = 14_336,
    num_hidden_layers = 32,
    num_attention_heads = 32,
    num_key_value_heads = 8,
    hidden_act = "silu",
    max_position_embeddings = 131_072,
    rms_norm_eps = 1e-6,
    sliding_window = 4096,
    tie_word_embeddings = false
))]
pub struct MistralConfig {
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
    pub tie_word_embeddings: bool,
    /// Null means none; a config that is silent has one.
    pub sliding_window: Option<usize>,
}

/// Mistral: Llama whose layers may all attend to a window.
#[architecture(
    "MistralForCausalLM",
    "Mistral3ForConditionalGeneration",
    model_types("mistral", "mistral3"),
    unused("vision_tower", "multi_modal_projector")
)]
pub fn mistral(c: &MistralConfig, w: Weights, tokens: Tokens) -> Logits {
    let queries = c.num_attention_heads * c.head_dim;
    let keys = c.num_key_value_heads * c.head_dim;
    let embedding = w.matrix("model.embed_tokens", c.vocab_size, c.hidden_size);
    let mut x = gather(embedding, tokens);
    for layer in w.layers("model.layers", c.num_hidden_layers) {
        let h = rms_norm(x, layer.vector("input_layernorm", c.hidden_size), c.rms_norm_eps);
        let q = linear(h, layer.matrix("self_attn.q_proj", queries, c.hidden_size));
        let q = q.heads(c.num_attention_heads, c.head_dim).rope(&c.rope);
        let k = linear(h, layer.matrix("self_attn.k_proj", keys, c.hidden_size));
        let k = k.heads(c.num_key_value_heads, c.head_dim).rope(&c.rope);
        let v = linear(h, layer.matrix("self_attn.v_proj", keys, c.hidden_size));
        let v = v.heads(c.num_key_value_heads, c.head_dim);
        let attended = attention(q, layer.cache(k, v), Attention::causal().window(c.sliding_window));
        x += linear(attended, layer.matrix("self_attn.o_proj", c.hidden_size, queries));

        let h = rms_norm(
            x,
            layer.vector("post_attention_layernorm", c.hidden_size),
            c.rms_norm_eps,
        );
        let gate = linear(h, layer.matrix("mlp.gate_proj", c.intermediate_size, c.hidden_size));
        let up = linear(h, layer.matrix("mlp.up_proj", c.intermediate_size, c.hidden_size));
        let product = activate(c.hidden_act, gate) * up;
        x += linear(
            product,
            layer.matrix("mlp.down_proj", c.hidden_size, c.intermediate_size),
        );
    }
    let h = rms_norm(x, w.vector("model.norm", c.hidden_size), c.rms_norm_eps);
    linear(h, w.tied_or("lm_head", embedding, c.tie_word_embeddings))
}
