//! Mistakes with mixtures of experts and states.

use kiln_compiler::dsl::*;

#[derive(Config)]
pub struct SmallMixtureConfig {
    pub vocab_size: Dim,
    pub hidden_size: Dim,
    pub num_hidden_layers: Dim,
    pub num_experts: Dim,
    pub num_experts_per_tok: Dim,
    pub inner_size: Dim,
    pub num_heads: Dim,
    pub head_dim: Dim,
}

#[architecture("WrongMixtureForCausalLM")]
pub fn wrong_mixture(c: &SmallMixtureConfig, w: Weights, tokens: Tokens) -> Logits {
    let embedding = w.matrix("embed", c.vocab_size, c.hidden_size);
    let mut x = gather(embedding, tokens);
    for layer in w.layers("layers", c.num_hidden_layers) {
        let scores = linear(x, layer.router("router", c.num_experts, c.hidden_size));
        let bias = layer.vector("selection", c.hidden_size);
        let how = Routing::top(c.num_experts_per_tok, Scoring::Sigmoid).biased(bias);
        let routing = route(scores, how.normalized(-1.0).scaled(f32::NAN));
        let none = route(scores.columns(4, c.num_experts), Routing::top(0, Scoring::SoftmaxAll));
        let bank = |source: Source, rows, columns| layer.bank(source, c.num_experts, rows, columns);
        let thirds = [c.inner_size; 3];
        let fused = Source::path("fused").part("none", &thirds, 3..4);
        let experts = Experts {
            gate: bank(fused, c.inner_size, c.hidden_size),
            up: bank("experts.{expert}.up".into(), c.hidden_size, c.inner_size).biased(true),
            down: bank("experts.{expert}.down".into(), c.hidden_size, c.inner_size),
            gated: Gate::Clamped {
                alpha: 1.0,
                limit: -1.0,
            },
        };
        x += moe(scores, routing, experts) + moe(x, none, experts);

        let filter = layer.filter("conv", c.inner_size, 1);
        let mixed = layer.convolution(x, filter).clamp(-1.0);
        let heads = x.heads(c.num_heads, c.head_dim);
        let vector = |name| layer.vector(name, c.head_dim);
        let state = layer.gated_delta(GatedDelta {
            q: heads,
            k: x,
            v: heads,
            a: x,
            b: x,
            a_log: vector("a_log"),
            dt_bias: vector("dt_bias"),
        });
        let state = layer.gated_delta(GatedDelta {
            q: state,
            k: heads,
            v: x.heads(3, c.head_dim),
            a: x,
            b: x,
            a_log: vector("a_log"),
            dt_bias: vector("dt_bias"),
        });
        let how = Attention::causal().sinks(vector("sinks"));
        let attended = attention(heads, layer.cache(heads, heads), how);
        x += mixed.scale_rows(attended) + state.merge_heads() * f32::INFINITY + x.merge_heads();
    }
    linear(x, embedding)
}
