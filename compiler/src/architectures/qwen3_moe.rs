use super::expert_blocks::{PROJECTIONS, gated_experts};
use crate::dsl::*;

#[derive(Config)]
#[config(assume(
    vocab_size = 151_936,
    hidden_size = 2048,
    intermediate_size = 6144,
    moe_intermediate_size = 768,
    num_hidden_layers = 24,
    num_attention_heads = 32,
    num_key_value_heads = 4,
    hidden_act = "silu",
    max_position_embeddings = 32_768,
    rms_norm_eps = 1e-6,
    attention_bias = false,
    tie_word_embeddings = false,
    num_experts = 128,
    num_experts_per_tok = 8,
    norm_topk_prob = false,
    decoder_sparse_step = 1,
    use_sliding_window = false,
    sliding_window = 4096
))]
pub struct Qwen3MoeConfig {
    pub vocab_size: Dim,
    pub hidden_size: Dim,
    pub intermediate_size: Dim,
    pub moe_intermediate_size: Dim,
    pub num_hidden_layers: Dim,
    pub num_attention_heads: Dim,
    pub num_key_value_heads: Dim,
    #[config(default = hidden_size / num_attention_heads)]
    pub head_dim: Dim,
    #[config(alias = "num_local_experts")]
    pub num_experts: Dim,
    pub num_experts_per_tok: Dim,
    pub norm_topk_prob: bool,
    pub decoder_sparse_step: Dim,
    #[config(default = Vec::new())]
    pub mlp_only_layers: Vec<usize>,
    pub hidden_act: Activation,
    pub rms_norm_eps: f32,
    #[config(rename = "rope_parameters")]
    pub rope: Rope,
    pub attention_bias: bool,
    pub tie_word_embeddings: bool,
    pub use_sliding_window: bool,
    pub sliding_window: Option<usize>,
}

/// Qwen3 with experts in some or all layers.
#[architecture("Qwen3MoeForCausalLM", model_types("qwen3_moe"))]
pub fn qwen3_moe(c: &Qwen3MoeConfig, w: Weights, tokens: Tokens) -> Logits {
    let queries = c.num_attention_heads * c.head_dim;
    let keys = c.num_key_value_heads * c.head_dim;
    let eps = c.rms_norm_eps;
    let window = if c.use_sliding_window { c.sliding_window } else { None };
    let kinds = FeedForward::every(c.decoder_sparse_step, c.num_hidden_layers, &c.mlp_only_layers);
    let embedding = w.matrix("model.embed_tokens", c.vocab_size, c.hidden_size);
    let mut x = gather(embedding, tokens);
    for layer in w.layers_of("model.layers", &kinds) {
        let biased = |name, rows, columns| layer.matrix(name, rows, columns).biased(c.attention_bias);

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
        x += match layer.kind() {
            FeedForward::Dense => {
                let gate = linear(h, layer.matrix("mlp.gate_proj", c.intermediate_size, c.hidden_size));
                let up = linear(h, layer.matrix("mlp.up_proj", c.intermediate_size, c.hidden_size));
                let product = activate(c.hidden_act, gate) * up;
                linear(
                    product,
                    layer.matrix("mlp.down_proj", c.hidden_size, c.intermediate_size),
                )
            }
            FeedForward::Experts => {
                let scores = linear(h, layer.router("mlp.gate", c.num_experts, c.hidden_size));
                let how = Routing::top(c.num_experts_per_tok, Scoring::SoftmaxAll);
                let routing = route(scores, how.normalized(c.norm_topk_prob.then_some(0.0)));
                let sizes = (c.moe_intermediate_size, c.hidden_size);
                let experts = gated_experts(&layer, "mlp.experts", PROJECTIONS, c.num_experts, sizes, c.hidden_act);
                moe(h, routing, experts)
            }
        };
    }
    let h = rms_norm(x, w.vector("model.norm", c.hidden_size), eps);
    linear(h, w.tied_or("lm_head", embedding, c.tie_word_embeddings))
}
