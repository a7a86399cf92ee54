use crate::dsl::*;

#[derive(Config)]
#[config(
    assume(
        vocab_size = 201_088, hidden_size = 2880, intermediate_size = 2880, num_hidden_layers = 36,
        num_attention_heads = 64, num_key_value_heads = 8, head_dim = 64, max_position_embeddings = 131_072,
        rms_norm_eps = 1e-5, attention_bias = true, tie_word_embeddings = false, sliding_window = 128,
        num_local_experts = 128, num_experts_per_tok = 4, swiglu_alpha = 1.702, swiglu_limit = 7.0,
        rope_theta = 150_000.0,
        rope_parameters = {
            "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false,
            "original_max_position_embeddings": 4096
        }
    ),
    expect(hidden_act = "silu"),
    ignore("experts_per_token", "initial_context_length")
)]
pub struct GptOssConfig {
    pub vocab_size: Dim,
    pub hidden_size: Dim,
    pub num_hidden_layers: Dim,
    pub intermediate_size: Dim,
    pub num_attention_heads: Dim,
    pub num_key_value_heads: Dim,
    pub head_dim: Dim,
    #[config(alias = "num_experts")]
    pub num_local_experts: Dim,
    pub num_experts_per_tok: Dim,
    pub swiglu_alpha: f32,
    pub swiglu_limit: f32,
    pub rms_norm_eps: f32,
    #[config(rename = "rope_parameters")]
    pub rope: Rope,
    pub attention_bias: bool,
    pub tie_word_embeddings: bool,
    pub sliding_window: Option<usize>,
    #[config(default = AttentionKind::full_every(2, num_hidden_layers))]
    pub layer_types: Vec<AttentionKind>,
}

/// GPT-OSS: every other layer attends to a window, each head has a sink, and experts with clamped SwiGLU take the place
/// of the feed-forward network.
#[architecture("GptOssForCausalLM", model_types("gpt_oss"))]
pub fn gpt_oss(c: &GptOssConfig, w: Weights, tokens: Tokens) -> Logits {
    let queries = c.num_attention_heads * c.head_dim;
    let keys = c.num_key_value_heads * c.head_dim;
    let eps = c.rms_norm_eps;
    let embedding = w.matrix("model.embed_tokens", c.vocab_size, c.hidden_size);
    let mut x = gather(embedding, tokens);
    for layer in w.layers_of("model.layers", &c.layer_types) {
        let biased = |name, rows, columns| layer.matrix(name, rows, columns).biased(c.attention_bias);
        let slides = layer.kind() == &AttentionKind::Sliding;
        let window = c.sliding_window.filter(|_| slides);

        let h = rms_norm(x, layer.vector("input_layernorm", c.hidden_size), eps);
        let q = linear(h, biased("self_attn.q_proj", queries, c.hidden_size));
        let q = q.heads(c.num_attention_heads, c.head_dim).rope(&c.rope);
        let k = linear(h, biased("self_attn.k_proj", keys, c.hidden_size));
        let k = k.heads(c.num_key_value_heads, c.head_dim).rope(&c.rope);
        let v = linear(h, biased("self_attn.v_proj", keys, c.hidden_size));
        let v = v.heads(c.num_key_value_heads, c.head_dim);
        let sinks = layer.vector(Source::tensor("self_attn.sinks"), c.num_attention_heads);
        let how = Attention::causal().window(window).sinks(sinks);
        let attended = attention(q, layer.cache(k, v), how);
        x += linear(attended, biased("self_attn.o_proj", c.hidden_size, queries));

        let h = rms_norm(x, layer.vector("post_attention_layernorm", c.hidden_size), eps);
        let router = layer.router("mlp.router", c.num_local_experts, c.hidden_size);
        let scores = linear(h, router.biased(true));
        let routing = route(scores, Routing::top(c.num_experts_per_tok, Scoring::SoftmaxChosen));
        let bank = |source: Source, rows, columns| {
            let bank = layer.bank(source.transposed(), c.num_local_experts, rows, columns);
            bank.biased(true)
        };
        // Rows of gate and up take turns.
        let turns = [Dim::constant(1), Dim::constant(1)];
        let gate_up = Source::tensor("mlp.experts.gate_up_proj");
        let experts = Experts {
            gate: bank(
                gate_up.clone().part("gate", &turns, 0..1),
                c.intermediate_size,
                c.hidden_size,
            ),
            up: bank(gate_up.part("up", &turns, 1..2), c.intermediate_size, c.hidden_size),
            down: bank(
                Source::tensor("mlp.experts.down_proj"),
                c.hidden_size,
                c.intermediate_size,
            ),
            gated: Gate::Clamped {
                alpha: c.swiglu_alpha,
                limit: c.swiglu_limit,
            },
        };
        x += moe(h, routing, experts);
    }
    let h = rms_norm(x, w.vector("model.norm", c.hidden_size), eps);
    linear(h, w.tied_or("lm_head", embedding, c.tie_word_embeddings))
}
