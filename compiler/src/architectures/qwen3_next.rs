use super::qwen_delta::{
    DeltaConfig, DeltaMixer, DeltaSources, SharedMixtureConfig, delta_net, feed_forward, gated_attention, norm,
    shared_mixture,
};
use crate::dsl::*;

#[derive(Config)]
#[config(assume(
    vocab_size = 151_936,
    hidden_size = 2048,
    intermediate_size = 5632,
    num_hidden_layers = 48,
    num_key_value_heads = 2,
    moe_intermediate_size = 512,
    shared_expert_intermediate_size = 512,
    num_experts = 512,
    num_experts_per_tok = 10,
    norm_topk_prob = true,
    decoder_sparse_step = 1
))]
pub struct Qwen3NextConfig {
    #[config(flatten)]
    pub common: DeltaConfig,
    #[config(flatten)]
    pub mixture: SharedMixtureConfig,
    pub intermediate_size: Dim,
    pub decoder_sparse_step: Dim,
    #[config(default = Vec::new())]
    pub mlp_only_layers: Vec<usize>,
}

/// Qwen3-Next: gated DeltaNet in most layers, gated attention in the others, experts in some or all.
#[architecture("Qwen3NextForCausalLM", model_types("qwen3_next"), unused("mtp"))]
pub fn qwen3_next(config: &Qwen3NextConfig, w: Weights, tokens: Tokens) -> Logits {
    let c = &config.common;
    let feeds = FeedForward::every(config.decoder_sparse_step, c.num_hidden_layers, &config.mlp_only_layers);
    let kinds: Vec<_> = c.layer_types.iter().copied().zip(feeds).collect();
    let embedding = w.matrix("model.embed_tokens", c.vocab_size, c.hidden_size);
    let mut x = gather(embedding, tokens);
    for layer in w.layers_of("model.layers", &kinds) {
        let (mixer, feed) = layer.kind();
        let h = norm(c, &layer, "input_layernorm", x);
        x += match mixer {
            DeltaMixer::Delta => delta_net(c, &layer, h, grouped_sources(c)),
            DeltaMixer::Attention => gated_attention(c, &layer, h),
        };
        let h = norm(c, &layer, "post_attention_layernorm", x);
        x += match feed {
            FeedForward::Dense => feed_forward(c, &layer, h, "mlp", config.intermediate_size),
            FeedForward::Experts => shared_mixture(c, &config.mixture, &layer, h),
        };
    }
    let h = rms_norm_plus_one(x, w.vector("model.norm", c.hidden_size), c.rms_norm_eps);
    linear(h, w.tied_or("lm_head", embedding, c.tie_word_embeddings))
}

/// Two matrices hold all, in groups of one key head and the value heads that share it.
fn grouped_sources(c: &DeltaConfig) -> DeltaSources {
    let (qkvz, ba) = ("linear_attn.in_proj_qkvz", "linear_attn.in_proj_ba");
    let sharing = c.linear_num_value_heads / c.linear_num_key_heads;
    let (key, value) = (c.linear_key_head_dim, sharing * c.linear_value_head_dim);
    DeltaSources {
        qkv: Source::path(qkvz).part("qkv", &[key, key, value, value], 0..3),
        z: Source::path(qkvz).part("z", &[key, key, value, value], 3..4),
        b: Source::path(ba).part("b", &[sharing, sharing], 0..1),
        a: Source::path(ba).part("a", &[sharing, sharing], 1..2),
    }
}
