//! Mixtures of experts: random configs, and routings that are hard for a plan, under every plan.

use kiln_codegen_tests::random_model::{Grid, Random, RandomModel};
use kiln_compiler::graph::{ModelGraph, Op};
use kiln_compiler::reference::Evaluator;
use kiln_compiler::rewrite::{MoePlan, OptLevel};
use serde_json::{Value, json};

use super::hybrids::{delta, lfm2};
use super::{check_compiled, config, qwen3};

/// Between the score of the last expert that is chosen and of the first that is not. Variants in f16 compute scores
/// (of about 1.3) to 1e-3 of themselves; at a smaller gap they may choose another expert.
const GAP: f32 = 0.01;

/// A model and what it is fed.
struct Mixture {
    config: Value,
    grid: Grid,
    tokens: usize,
    /// Overwrites values of a tensor, by its name.
    change: fn(&str, &mut [f32]),
    /// Whether experts may have equal scores.
    ties: bool,
    binding_limit: Option<u64>,
}

impl Mixture {
    fn new(config: Value, grid: Grid, tokens: usize) -> Self {
        Mixture {
            config,
            grid,
            tokens,
            change: |_, _| (),
            ties: false,
            binding_limit: None,
        }
    }

    /// Compares the logits under a plan, at these levels and in every variant, with the CPU evaluator's.
    fn check(&self, plan: MoePlan, levels: &[OptLevel]) {
        let (model, ids) = self.with_clear_choices();
        for level in levels {
            check_compiled(&model, self.grid, &ids, &|options| {
                options.moe_plan = Some(plan);
                options.level = *level;
                options.binding_limit = self.binding_limit.unwrap_or(options.binding_limit);
            });
        }
    }

    /// Of a few random models and prompts the first without choices that a rounding error could turn.
    fn with_clear_choices(&self) -> (RandomModel, Vec<u32>) {
        let vocab = self.config["vocab_size"].as_u64().expect("a vocabulary") as usize;
        for seed in 0..200 {
            let model = RandomModel::changed(&self.config, self.grid, seed, self.change);
            let ids = Random(seed).ids(self.tokens, vocab);
            if self.ties || smallest_gap(&model, &ids) > GAP {
                return (model, ids);
            }
        }
        panic!("every seed has a token that could as well go to another expert");
    }
}

/// The smallest difference between what the last expert is chosen by and the next, of all tokens and layers.
fn smallest_gap(model: &RandomModel, ids: &[u32]) -> f32 {
    let k = experts_per_token(&model.graph);
    let mut smallest = f32::INFINITY;
    Evaluator::new(&model.graph, &model.weights)
        .feed_traced(ids, &mut |traced| {
            let Some(layer) = traced.layer.filter(|_| traced.node.name.as_deref() == Some("scores")) else {
                return;
            };
            let bias = format!(
                "model.layers.{}.feed_forward.expert_bias",
                model.graph.layers[layer].index
            );
            for scores in traced.values.chunks(traced.values.len() / ids.len()) {
                let mut chosen_by = match model.weights.get(&bias) {
                    // Sigmoids are at most a quarter as steep as scores.
                    Some(bias) => (scores.iter().zip(bias))
                        .map(|(score, bias)| 4.0 * (1.0 / (1.0 + (-score).exp()) + bias))
                        .collect(),
                    None => scores.to_vec(),
                };
                chosen_by.sort_by(|a, b| b.total_cmp(a));
                if let Some(next) = chosen_by.get(k) {
                    smallest = smallest.min(chosen_by[k - 1] - next);
                }
            }
        })
        .expect("logits");
    smallest
}

fn experts_per_token(graph: &ModelGraph) -> usize {
    let mut nodes = graph.templates.iter().flat_map(|t| t.section.nodes.node_weights());
    let k = nodes.find_map(|node| match node.op {
        Op::Route(spec) => Some(spec.experts_per_token),
        _ => None,
    });
    k.expect("a mixture of experts") as usize
}

fn qwen3_moe(fields: Value) -> Value {
    let moe = json!({
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe",
        "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 36, "norm_topk_prob": true,
    });
    qwen3(config(moe, fields))
}

fn gpt_oss(fields: Value) -> Value {
    config(
        json!({
            "architectures": ["GptOssForCausalLM"],
            "model_type": "gpt_oss",
            "hidden_size": 72,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "num_local_experts": 6,
            "num_experts_per_tok": 3,
            "swiglu_limit": 7.0,
            "sliding_window": 7,
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "tie_word_embeddings": false,
        }),
        fields,
    )
}

/// Gated delta rule and attention, each with routed experts and a shared one.
fn qwen3_next(fields: Value) -> Value {
    let moe = json!({
        "architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next",
        "num_experts": 7, "num_experts_per_tok": 3, "moe_intermediate_size": 36, "norm_topk_prob": true,
        "shared_expert_intermediate_size": 44,
    });
    delta(config(moe, fields))
}

/// Scores through a sigmoid, with a bias on the choice; the first layer is dense.
fn lfm2_moe(fields: Value) -> Value {
    let moe = json!({
        "architectures": ["Lfm2MoeForCausalLM"], "model_type": "lfm2_moe",
        "num_dense_layers": 1, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 36,
        "norm_topk_prob": true, "use_expert_bias": true, "routed_scaling_factor": 1.5,
    });
    lfm2(config(moe, fields))
}

fn is_router(name: &str) -> bool {
    name.ends_with("mlp.gate.weight") || name.ends_with("mlp.router.weight")
}

fn is_router_bias(name: &str) -> bool {
    name.ends_with("mlp.router.bias")
}

const BOTH: &[OptLevel] = &[OptLevel::None, OptLevel::Full];
const FULL: &[OptLevel] = &[OptLevel::Full];

/// Each mixture under each plan, at some levels.
macro_rules! under_each_plan {
    ($($test:ident: $levels:expr,)*) => {$(
        mod $test {
            use super::*;

            #[test]
            fn gather() {
                super::$test().check(MoePlan::Gather, $levels);
            }

            #[test]
            fn grouped() {
                super::$test().check(MoePlan::Grouped, $levels);
            }

            #[test]
            fn dense() {
                super::$test().check(MoePlan::Dense, $levels);
            }
        }
    )*};
}

under_each_plan! {
    experts_in_some_layers: BOTH,
    biases_sinks_and_windows: BOTH,
    many_narrow_experts_in_q8: FULL,
    wide_experts_in_q4: FULL,
    every_token_goes_to_every_expert: FULL,
    there_is_one_expert: FULL,
    every_token_goes_to_the_same_expert: FULL,
    the_first_of_equal_experts: BOTH,
    the_first_of_equal_experts_by_softmax_over_all: FULL,
    one_token: FULL,
    experts_beside_a_shared_one: FULL,
    experts_chosen_with_a_bias: BOTH,
    banks_over_the_binding_limit: BOTH,
    quantized_banks_over_the_binding_limit: FULL,
}

fn experts_in_some_layers() -> Mixture {
    let fields = json!({"num_hidden_layers": 3, "mlp_only_layers": [1]});
    Mixture::new(qwen3_moe(fields), Grid::F32, 22)
}

fn biases_sinks_and_windows() -> Mixture {
    Mixture::new(gpt_oss(json!({})), Grid::F32, 37)
}

fn many_narrow_experts_in_q8() -> Mixture {
    let fields = json!({
        "num_experts": 40, "num_experts_per_tok": 7, "moe_intermediate_size": 20, "hidden_size": 96,
        "norm_topk_prob": false,
    });
    Mixture::new(qwen3_moe(fields), Grid::Q8, 21)
}

fn wide_experts_in_q4() -> Mixture {
    let fields = json!({
        "num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 200, "hidden_size": 132,
        "num_hidden_layers": 1, "layer_types": ["full_attention"], "swiglu_limit": 1.5,
    });
    Mixture::new(gpt_oss(fields), Grid::Q4, 33)
}

fn every_token_goes_to_every_expert() -> Mixture {
    let fields = json!({"num_experts": 4, "num_experts_per_tok": 4});
    Mixture::new(qwen3_moe(fields), Grid::F32, 20)
}

fn there_is_one_expert() -> Mixture {
    let fields = json!({"num_experts": 1, "num_experts_per_tok": 1});
    Mixture::new(qwen3_moe(fields), Grid::F32, 18)
}

fn every_token_goes_to_the_same_expert() -> Mixture {
    Mixture {
        change: |name, values| {
            if is_router_bias(name) {
                values[4] = 50.0;
            }
        },
        ..Mixture::new(gpt_oss(json!({"num_experts_per_tok": 1})), Grid::F32, 40)
    }
}

fn the_first_of_equal_experts() -> Mixture {
    Mixture {
        change: |name, values| {
            if is_router(name) || is_router_bias(name) {
                values.fill(0.0);
            }
        },
        ties: true,
        ..Mixture::new(gpt_oss(json!({})), Grid::F32, 24)
    }
}

fn the_first_of_equal_experts_by_softmax_over_all() -> Mixture {
    Mixture {
        change: |name, values| {
            if is_router(name) {
                values.fill(0.0);
            }
        },
        ties: true,
        ..Mixture::new(qwen3_moe(json!({"norm_topk_prob": false})), Grid::F32, 24)
    }
}

fn one_token() -> Mixture {
    Mixture::new(gpt_oss(json!({})), Grid::F32, 1)
}

fn experts_beside_a_shared_one() -> Mixture {
    Mixture::new(qwen3_next(json!({})), Grid::F32, 37)
}

fn experts_chosen_with_a_bias() -> Mixture {
    Mixture::new(lfm2_moe(json!({})), Grid::F32, 36)
}

fn banks_over_the_binding_limit() -> Mixture {
    let fields = json!({"num_local_experts": 15, "num_experts_per_tok": 4});
    Mixture {
        // Two experts of gate and up.
        binding_limit: Some(70_000),
        ..Mixture::new(gpt_oss(fields), Grid::F32, 19)
    }
}

fn quantized_banks_over_the_binding_limit() -> Mixture {
    let fields = json!({"num_experts": 20, "num_experts_per_tok": 5});
    Mixture {
        // Three experts of gate and up.
        binding_limit: Some(24_000),
        ..Mixture::new(qwen3_moe(fields), Grid::Q8, 19)
    }
}
