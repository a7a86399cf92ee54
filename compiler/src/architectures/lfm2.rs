use super::lfm_blocks::{Lfm2Common, Lfm2Mixer, feed_forward, self_attention, short_convolution};
use crate::dsl::*;

#[derive(Config)]
#[config(assume(
    hidden_size = 2560,
    intermediate_size = 12_288,
    block_auto_adjust_ff_dim = true,
    block_ffn_dim_multiplier = 1.0,
    block_multiple_of = 256
))]
pub struct Lfm2Config {
    #[config(flatten)]
    pub common: Lfm2Common,
    #[config(alias = "block_ff_dim")]
    pub intermediate_size: Dim,
    pub block_auto_adjust_ff_dim: bool,
    pub block_ffn_dim_multiplier: Option<f64>,
    pub block_multiple_of: Dim,
}

impl Lfm2Config {
    /// Two thirds of `intermediate_size`, times a factor, rounded up; unless the config says that it is the width itself.
    fn feed_forward_width(&self) -> Dim {
        if !self.block_auto_adjust_ff_dim {
            return self.intermediate_size;
        }
        let width = (2.0 * self.intermediate_size.value() as f64 / 3.0) as usize;
        let width = self.block_ffn_dim_multiplier.map_or(width, |factor| {
            let scaled = (factor * width as f64) as usize;
            let multiple = scaled.checked_next_multiple_of(self.block_multiple_of.value());
            multiple.unwrap_or(usize::MAX)
        });
        Dim::symbol("adjusted_intermediate_size", width)
    }
}

/// LFM2: gated short convolutions, with attention in some layers.
#[architecture("Lfm2ForCausalLM", model_types("lfm2"))]
pub fn lfm2(config: &Lfm2Config, w: Weights, tokens: Tokens) -> Logits {
    let c = &config.common;
    let width = config.feed_forward_width();
    let embedding = w.matrix("model.embed_tokens", c.vocab_size, c.hidden_size);
    let mut x = gather(embedding, tokens);
    for layer in w.layers_of("model.layers", &c.layer_types) {
        let h = rms_norm(x, layer.vector("operator_norm", c.hidden_size), c.norm_eps);
        x += match layer.kind() {
            Lfm2Mixer::Convolution => short_convolution(c, &layer, h),
            Lfm2Mixer::Attention => self_attention(c, &layer, h),
        };
        let h = rms_norm(x, layer.vector("ffn_norm", c.hidden_size), c.norm_eps);
        x += feed_forward(c, &layer, h, width);
    }
    let h = rms_norm(x, w.vector("model.embedding_norm", c.hidden_size), c.norm_eps);
    linear(h, w.tied_or("lm_head", embedding, c.tie_word_embeddings))
}
