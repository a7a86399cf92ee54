use super::qwen_delta::{
    DeltaConfig, DeltaMixer, DeltaSources, SharedMixtureConfig, delta_net, feed_forward, gated_attention, norm,
    shared_mixture,
};
use crate::dsl::*;

#[derive(Config)]
#[config(assume(
    vocab_size = 248_320,
    hidden_size = 4096,
    intermediate_size = 12_288,
    num_hidden_layers = 32,
    num_key_value_heads = 4
))]
pub struct Qwen3_5Config {
    #[config(flatten)]
    pub common: DeltaConfig,
    pub intermediate_size: Dim,
}

/// Qwen3.5's text decoder: gated DeltaNet in most layers, gated attention in the others.
#[architecture(
    "Qwen3_5ForCausalLM",
    "Qwen3_5ForConditionalGeneration",
    model_types("qwen3_5_text", "qwen3_5"),
    unused("mtp", "visual")
)]
pub fn qwen3_5(config: &Qwen3_5Config, w: Weights, tokens: Tokens) -> Logits {
    let c = &config.common;
    let embedding = w.matrix("model.embed_tokens", c.vocab_size, c.hidden_size);
    let mut x = gather(embedding, tokens);
    for layer in w.layers_of("model.layers", &c.layer_types) {
        let h = norm(c, &layer, "input_layernorm", x);
        x += mix(c, &layer, h);
        let h = norm(c, &layer, "post_attention_layernorm", x);
        x += feed_forward(c, &layer, h, "mlp", config.intermediate_size);
    }
    let h = rms_norm_plus_one(x, w.vector("model.norm", c.hidden_size), c.rms_norm_eps);
    linear(h, w.tied_or("lm_head", embedding, c.tie_word_embeddings))
}

#[derive(Config)]
#[config(assume(
    vocab_size = 248_320,
    hidden_size = 2048,
    num_hidden_layers = 40,
    num_key_value_heads = 2,
    moe_intermediate_size = 512,
    shared_expert_intermediate_size = 512,
    num_experts = 256,
    num_experts_per_tok = 8,
    norm_topk_prob = true
))]
pub struct Qwen3_5MoeConfig {
    #[config(flatten)]
    pub common: DeltaConfig,
    #[config(flatten)]
    pub mixture: SharedMixtureConfig,
}

/// Qwen3.5's text decoder with experts in every layer.
#[architecture(
    "Qwen3_5MoeForCausalLM",
    "Qwen3_5MoeForConditionalGeneration",
    model_types("qwen3_5_moe_text", "qwen3_5_moe"),
    unused("mtp", "visual")
)]
pub fn qwen3_5_moe(config: &Qwen3_5MoeConfig, w: Weights, tokens: Tokens) -> Logits {
    let c = &config.common;
    let embedding = w.matrix("model.embed_tokens", c.vocab_size, c.hidden_size);
    let mut x = gather(embedding, tokens);
    for layer in w.layers_of("model.layers", &c.layer_types) {
        let h = norm(c, &layer, "input_layernorm", x);
        x += mix(c, &layer, h);
        let h = norm(c, &layer, "post_attention_layernorm", x);
        x += shared_mixture(c, &config.mixture, &layer, h);
    }
    let h = rms_norm_plus_one(x, w.vector("model.norm", c.hidden_size), c.rms_norm_eps);
    linear(h, w.tied_or("lm_head", embedding, c.tie_word_embeddings))
}

fn mix<'g>(c: &DeltaConfig, layer: &Layer<'g, DeltaMixer>, h: Tensor<'g>) -> Tensor<'g> {
    let source = |name: &str| Source::path(&format!("linear_attn.in_proj_{name}"));
    match layer.kind() {
        DeltaMixer::Attention => gated_attention(c, layer, h),
        DeltaMixer::Delta => {
            let sources = DeltaSources {
                qkv: source("qkv"),
                z: source("z"),
                b: source("b"),
                a: source("a"),
            };
            delta_net(c, layer, h, sources)
        }
    }
}
