use super::expert_blocks::{PROJECTIONS, gated_experts};
use crate::dsl::*;

#[derive(Config)]
#[config(assume(
    vocab_size = 50_304,
    hidden_size = 2048,
    intermediate_size = 2048,
    num_hidden_layers = 16,
    num_attention_heads = 16,
    hidden_act = "silu",
    max_position_embeddings = 4096,
    rms_norm_eps = 1e-5,
    attention_bias = false,
    tie_word_embeddings = false,
    num_experts = 64,
    num_experts_per_tok = 8,
    norm_topk_prob = false
))]
pub struct OlmoeConfig {
    pub vocab_size: Dim,
    pub hidden_size: Dim,
    pub intermediate_size: Dim,
    pub num_hidden_layers: Dim,
    pub num_attention_heads: Dim,
    #[config(default = num_attention_heads)]
    pub num_key_value_heads: Dim,
    #[config(default = hidden_size / num_attention_heads)]
    pub head_dim: Dim,
    #[config(alias = "num_local_experts")]
    pub num_experts: Dim,
    pub num_experts_per_tok: Dim,
    pub norm_topk_prob: bool,
    pub hidden_act: Activation,
    pub rms_norm_eps: f32,
    #[config(rename = "rope_parameters")]
    pub rope: Rope,
    pub attention_bias: bool,
    pub tie_word_embeddings: bool,
    /// Queries, keys and values stay within this.
    pub clip_qkv: Option<f32>,
}

/// OLMoE: norms over all heads' queries and keys at once, experts in every layer.
#[architecture("OlmoeForCausalLM", model_types("olmoe"))]
pub fn olmoe(c: &OlmoeConfig, w: Weights, tokens: Tokens) -> Logits {
    let queries = c.num_attention_heads * c.head_dim;
    let keys = c.num_key_value_heads * c.head_dim;
    let eps = c.rms_norm_eps;
    let clip = |x| match c.clip_qkv {
        Some(limit) => Tensor::clamp(x, limit),
        None => x,
    };
    let embedding = w.matrix("model.embed_tokens", c.vocab_size, c.hidden_size);
    let mut x = gather(embedding, tokens);
    for layer in w.layers("model.layers", c.num_hidden_layers) {
        let biased = |name, rows, columns| layer.matrix(name, rows, columns).biased(c.attention_bias);

        let h = rms_norm(x, layer.vector("input_layernorm", c.hidden_size), eps);
        let q = linear(h, biased("self_attn.q_proj", queries, c.hidden_size));
        let q = clip(rms_norm(q, layer.vector("self_attn.q_norm", queries), eps));
        let q = q.heads(c.num_attention_heads, c.head_dim).rope(&c.rope);
        let k = linear(h, biased("self_attn.k_proj", keys, c.hidden_size));
        let k = clip(rms_norm(k, layer.vector("self_attn.k_norm", keys), eps));
        let k = k.heads(c.num_key_value_heads, c.head_dim).rope(&c.rope);
        let v = clip(linear(h, biased("self_attn.v_proj", keys, c.hidden_size)));
        let v = v.heads(c.num_key_value_heads, c.head_dim);
        let attended = attention(q, layer.cache(k, v), Attention::causal());
        x += linear(attended, biased("self_attn.o_proj", c.hidden_size, queries));

        let h = rms_norm(x, layer.vector("post_attention_layernorm", c.hidden_size), eps);
        let scores = linear(h, layer.router("mlp.gate", c.num_experts, c.hidden_size));
        let how = Routing::top(c.num_experts_per_tok, Scoring::SoftmaxAll);
        let routing = route(scores, how.normalized(c.norm_topk_prob.then_some(0.0)));
        let sizes = (c.intermediate_size, c.hidden_size);
        let experts = gated_experts(&layer, "mlp.experts", PROJECTIONS, c.num_experts, sizes, c.hidden_act);
        x += moe(h, routing, experts);
    }
    let h = rms_norm(x, w.vector("model.norm", c.hidden_size), eps);
    linear(h, w.tied_or("lm_head", embedding, c.tie_word_embeddings))
}
