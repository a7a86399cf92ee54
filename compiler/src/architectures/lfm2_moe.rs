use super::expert_blocks::{ExpertNames, gated_experts};
use super::lfm_blocks::{Lfm2Common, Lfm2Mixer, feed_forward, self_attention, short_convolution};
use crate::dsl::*;

#[derive(Config)]
#[config(assume(
    hidden_size = 2048,
    intermediate_size = 7168,
    moe_intermediate_size = 1792,
    num_experts = 32,
    num_experts_per_tok = 4,
    num_dense_layers = 2,
    use_expert_bias = true,
    norm_topk_prob = true,
    routed_scaling_factor = 1.0
))]
pub struct Lfm2MoeConfig {
    #[config(flatten)]
    pub common: Lfm2Common,
    pub intermediate_size: Dim,
    pub moe_intermediate_size: Dim,
    #[config(alias = "num_local_experts")]
    pub num_experts: Dim,
    pub num_experts_per_tok: Dim,
    /// The first layers have no experts.
    pub num_dense_layers: usize,
    pub use_expert_bias: bool,
    pub norm_topk_prob: bool,
    pub routed_scaling_factor: f32,
}

/// LFM2 with experts in all but the first layers, chosen by sigmoids and a bias.
#[architecture("Lfm2MoeForCausalLM", model_types("lfm2_moe"))]
pub fn lfm2_moe(config: &Lfm2MoeConfig, w: Weights, tokens: Tokens) -> Logits {
    let c = &config.common;
    let feed = |layer| match layer < config.num_dense_layers {
        true => FeedForward::Dense,
        false => FeedForward::Experts,
    };
    let mixers = c.layer_types.iter().enumerate();
    let kinds: Vec<_> = mixers.map(|(layer, mixer)| (*mixer, feed(layer))).collect();
    let embedding = w.matrix("model.embed_tokens", c.vocab_size, c.hidden_size);
    let mut x = gather(embedding, tokens);
    for layer in w.layers_of("model.layers", &kinds) {
        let (mixer, feed) = layer.kind();
        let h = rms_norm(x, layer.vector("operator_norm", c.hidden_size), c.norm_eps);
        x += match mixer {
            Lfm2Mixer::Convolution => short_convolution(c, &layer, h),
            Lfm2Mixer::Attention => self_attention(c, &layer, h),
        };
        let h = rms_norm(x, layer.vector("ffn_norm", c.hidden_size), c.norm_eps);
        x += match feed {
            FeedForward::Dense => feed_forward(c, &layer, h, config.intermediate_size),
            FeedForward::Experts => mixture(config, &layer, h),
        };
    }
    let h = rms_norm(x, w.vector("model.embedding_norm", c.hidden_size), c.norm_eps);
    linear(h, w.tied_or("lm_head", embedding, c.tie_word_embeddings))
}

#[block]
fn mixture<'g, K: LayerKind>(c: &Lfm2MoeConfig, layer: &Layer<'g, K>, h: Tensor<'g>) -> Tensor<'g> {
    let hidden = c.common.hidden_size;
    let scores = linear(h, layer.router("feed_forward.gate", c.num_experts, hidden));
    let bias = || layer.vector(Source::tensor("feed_forward.expert_bias"), c.num_experts);
    let how = Routing::top(c.num_experts_per_tok, Scoring::Sigmoid)
        .biased(c.use_expert_bias.then(bias))
        .normalized(c.norm_topk_prob.then_some(1e-6))
        .scaled(c.routed_scaling_factor);
    let routing = route(scores, how);
    let names = ExpertNames {
        gate: "w1",
        up: "w3",
        down: "w2",
    };
    let sizes = (c.moe_intermediate_size, hidden);
    let experts = gated_experts(
        layer,
        "feed_forward.experts",
        names,
        c.num_experts,
        sizes,
        Activation::Silu,
    );
    moe(h, routing, experts)
}
