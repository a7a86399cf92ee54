//! Definitions become graphs, or errors at the author's line.

mod hostile_configs;
mod stored_weights;
mod transformers_defaults;
mod unread_keys;
mod wrong_definition;
mod wrong_mixture;

use kiln_compiler::architectures::Registry;
use kiln_compiler::dsl::*;
use kiln_compiler::graph::{ModelGraph, Op, StateKind};
use serde_json::{Value, json};
use wrong_definition::{SmallConfig, cached_twice, wrong};
use wrong_mixture::wrong_mixture;

/// Reference cases of mixtures of experts, and of models that keep other states than keys and values.
const MIXTURES_AND_HYBRIDS: [&str; 20] = [
    "gpt_oss-A-bf16",
    "gpt_oss-A-mxfp4",
    "gpt_oss-B-bf16",
    "gpt_oss-B-mxfp4",
    "qwen3_moe-A-bf16",
    "qwen3_moe-B-bf16",
    "olmoe-A-bf16",
    "olmoe-B-bf16",
    "granitemoe-A-bf16",
    "granitemoe-B-bf16",
    "lfm2-A-bf16",
    "lfm2-B-bf16",
    "lfm2_moe-A-bf16",
    "lfm2_moe-B-bf16",
    "qwen3_next-A-bf16",
    "qwen3_next-B-bf16",
    "qwen3_5-A-bf16",
    "qwen3_5-B-bf16",
    "qwen3_5_moe-A-bf16",
    "qwen3_5_moe-B-bf16",
];

fn fixtures() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../codegen-tests/fixtures")
}

/// The config.json of a reference case.
fn fixture(case: &str, file: &str) -> Value {
    let path = format!("{}/{case}/{file}", fixtures());
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap()
}

fn build(config: &Value) -> Result<ModelGraph, DefineError> {
    Registry::default().for_config(config).unwrap().build(config)
}

fn graph(config: &Value) -> ModelGraph {
    build(config).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn graphs_of_the_shipped_architectures() {
    for (name, case) in [
        ("llama", "llama-A-bf16"),
        ("qwen3", "qwen3-A-bf16"),
        ("gemma3", "gemma3-A-bf16"),
        ("granite", "granite-A-bf16"),
        ("mistral", "mistral-A-bf16"),
        ("gpt_oss", "gpt_oss-A-bf16"),
        ("qwen3_moe", "qwen3_moe-B-bf16"),
        ("olmoe", "olmoe-B-bf16"),
        ("granitemoe", "granitemoe-A-bf16"),
        ("lfm2", "lfm2-A-bf16"),
        ("lfm2_moe", "lfm2_moe-A-bf16"),
        ("qwen3_next", "qwen3_next-B-bf16"),
        ("qwen3_5", "qwen3_5-A-bf16"),
        ("qwen3_5_moe", "qwen3_5_moe-A-bf16"),
    ] {
        insta::assert_snapshot!(name, graph(&fixture(case, "config.json")));
    }
}

#[test]
fn both_spellings_of_a_config_give_the_same_graph() {
    for case in [
        "llama-A-bf16",
        "llama-B-bf16",
        "qwen3-A-bf16",
        "qwen3-B-bf16",
        "gemma3-A-bf16",
        "gemma3-B-bf16",
        "granite-A-bf16",
        "granite-B-bf16",
        "mistral-A-bf16",
        "mistral-B-bf16",
    ]
    .into_iter()
    .chain(MIXTURES_AND_HYBRIDS)
    {
        let [new, old] = ["config.json", "config.v4.json"].map(|file| graph(&fixture(case, file)));
        assert_eq!(format!("{new:?}"), format!("{old:?}"), "{case}");
    }
}

#[test]
fn every_row_of_a_checkpoint_is_one_weights() {
    for case in [
        "llama-A-bf16",
        "llama-B-bf16",
        "qwen3-A-bf16",
        "gemma3-A-bf16",
        "granite-B-bf16",
        "mistral-A-bf16",
    ]
    .into_iter()
    .chain(MIXTURES_AND_HYBRIDS)
    {
        stored_weights::check(case);
    }
}

#[test]
fn biases_are_honoured_where_the_config_asks_for_them() {
    let names = |config: &Value| -> Vec<String> {
        let biases = graph(config).weights.into_iter().map(|weight| weight.name);
        biases.filter(|name| name.ends_with(".bias")).collect()
    };
    let attention = ["q", "k", "v", "o"].map(|of| format!("model.layers.{{}}.self_attn.{of}_proj.bias"));
    let mlp = ["gate", "up", "down"].map(|of| format!("model.layers.{{}}.mlp.{of}_proj.bias"));

    let mut llama = fixture("llama-A-bf16", "config.json");
    assert!(names(&llama).is_empty());
    llama["attention_bias"] = json!(true);
    llama["mlp_bias"] = json!(true);
    assert_eq!(names(&llama), [attention.to_vec(), mlp.to_vec()].concat());

    let mut qwen3 = fixture("qwen3-A-bf16", "config.json");
    qwen3["attention_bias"] = json!(true);
    assert_eq!(names(&qwen3), attention);
    let template = &graph(&qwen3).templates[0].section;
    let linears = template
        .nodes
        .node_indices()
        .filter(|node| template.nodes[*node].op == Op::Linear);
    let biased = linears.filter(|node| template.operands(*node).len() == 3);
    assert_eq!(biased.count(), 4);
}

#[test]
fn qwen3_slides_from_a_layer_on_if_it_does() {
    let mut config = fixture("qwen3-A-bf16", "config.json");
    config.as_object_mut().unwrap().remove("layer_types");
    config["sliding_window"] = json!(5);
    config["max_window_layers"] = json!(1);
    let states = |graph: &ModelGraph| -> Vec<StateKind> { graph.states.iter().map(|state| state.kind).collect() };
    assert_eq!(
        states(&graph(&config)),
        [StateKind::Cache { window: None }],
        "use_sliding_window is false"
    );

    config["use_sliding_window"] = json!(true);
    let graph = graph(&config);
    let cache = |window| StateKind::Cache { window };
    assert_eq!(states(&graph), [cache(None), cache(Some(5))]);
    let templates: Vec<usize> = graph.layers.iter().map(|layer| layer.template).collect();
    assert_eq!(templates, [0, 1]);
}

#[test]
fn gemma3_caps_its_logits_if_asked() {
    let mut config = fixture("gemma3-A-bf16", "config.json");
    config["final_logit_softcapping"] = json!(30.0);
    let head = graph(&config).head;
    assert_eq!(head.nodes[head.output].op, Op::Softcap(30.0));
}

#[test]
fn lfm2_attends_where_its_config_lists_layers() {
    let mut config = fixture("lfm2-A-bf16", "config.v4.json");
    let object = config.as_object_mut().unwrap();
    object.remove("layer_types");
    let width = object.remove("intermediate_size").unwrap();
    object.insert("block_ff_dim".to_string(), width);
    object.insert("full_attn_idxs".to_string(), json!([1]));
    let expected = graph(&fixture("lfm2-A-bf16", "config.json"));
    assert_eq!(format!("{:?}", graph(&config)), format!("{expected:?}"));
}

#[test]
fn an_untied_head_is_a_weight_of_its_own() {
    let mut config = fixture("llama-A-bf16", "config.json");
    config["tie_word_embeddings"] = json!(false);
    let weights = graph(&config).weights;
    assert_eq!(
        weights.last().map(|weight| weight.name.as_str()),
        Some("lm_head.weight")
    );
}

#[test]
fn what_a_definition_cannot_use_is_refused() {
    let message = |case: &str, changes: &[(&str, Value)]| {
        let mut config = fixture(case, "config.json");
        for (key, value) in changes {
            config[*key] = value.clone();
        }
        build(&config).unwrap_err().to_string()
    };
    let llama = |key: &str, value: Value| message("llama-A-bf16", &[(key, value)]);
    let seen = [
        llama("hidden_size", Value::Null),
        llama("hidden_size", json!("wide")),
        llama("hidden_size", json!(0)),
        llama("num_hidden_layers", json!(20_000)),
        llama("hidden_act", json!("mish")),
        llama("rope_parameters", json!({ "rope_type": "spiral", "rope_theta": 1e4 })),
        llama("rope_parameters", json!({ "rope_type": "linear", "rope_theta": 1e4 })),
        llama("rope_parameters", json!({ "rope_type": "default", "rope_theta": -1 })),
        llama("rope_parameters", json!([])),
        llama("num_key_value_heads", json!(3)),
        llama("head_dim", json!(33)),
        llama("rms_norm_eps", json!(-1)),
        message("gemma3-A-bf16", &[("query_pre_attn_scalar", json!(0))]),
        message("gemma3-A-bf16", &[("final_logit_softcapping", json!(0))]),
        message("gemma3-A-bf16", &[("use_bidirectional_attention", json!(true))]),
        message("gemma3-A-bf16", &[("num_hidden_layers", json!(5))]),
        message("gemma3-A-bf16", &[("sliding_window", json!(0))]),
        message("gemma3-A-bf16", &[("layer_types", json!(vec!["linear_attention"; 6]))]),
        message(
            "qwen3-A-bf16",
            &[("rope_parameters", json!({ "sliding_attention": { "rope_theta": 1e6 } }))],
        ),
        message("gpt_oss-A-bf16", &[("num_experts_per_tok", json!(9))]),
        message("gpt_oss-A-bf16", &[("num_experts_per_tok", json!(0))]),
        message("gpt_oss-A-bf16", &[("swiglu_limit", json!(0))]),
        message(
            "gpt_oss-A-bf16",
            &[(
                "rope_parameters",
                json!({ "rope_type": "yarn", "rope_theta": 1e4, "factor": 2, "truncate": 1 }),
            )],
        ),
        message(
            "qwen3_moe-A-bf16",
            &[("num_local_experts", Value::Null), ("num_experts", Value::Null)],
        ),
        message("qwen3_moe-A-bf16", &[("decoder_sparse_step", json!(0))]),
        message("olmoe-A-bf16", &[("clip_qkv", json!(-1))]),
        message("granitemoe-A-bf16", &[("logits_scaling", json!(0))]),
        message("lfm2-A-bf16", &[("layer_types", json!(vec!["sliding_attention"; 4]))]),
        message("lfm2-A-bf16", &[("conv_L_cache", json!(1))]),
        message("lfm2-A-bf16", &[("block_ffn_dim_multiplier", json!(-1))]),
        message("qwen3_next-A-bf16", &[("linear_num_value_heads", json!(3))]),
        message("qwen3_5-A-bf16", &[("intermediate_size", Value::Null)]),
    ];
    insta::assert_snapshot!(seen.join("\n\n"));
}

/// The numbers agree: 32 = 4 * 8.
fn small_config() -> Value {
    json!({
        "vocab_size": 32, "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 4, "head_dim": 8,
    })
}

#[test]
fn all_mistakes_of_a_definition_are_reported_at_the_authors_lines() {
    insta::assert_snapshot!(wrong().build(&small_config()).unwrap_err());
}

#[test]
fn keys_and_values_have_one_cache() {
    insta::assert_snapshot!(cached_twice().build(&small_config()).unwrap_err());
}

#[test]
fn all_mistakes_with_experts_and_states_are_reported() {
    let config = json!({
        "vocab_size": 32, "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 4, "head_dim": 8,
        "num_experts": 4, "num_experts_per_tok": 5, "inner_size": 16,
    });
    insta::assert_snapshot!(wrong_mixture().build(&config).unwrap_err());
}

#[architecture("NamesForCausalLM")]
fn names(c: &SmallConfig, w: Weights, tokens: Tokens) -> Logits {
    let embedding = w.matrix("embed", c.vocab_size, c.hidden_size);
    let mut x = gather(embedding, tokens);
    for layer in w.layers("layers", c.num_hidden_layers) {
        let square = layer.matrix("proj", c.hidden_size, c.hidden_size);
        let mut h = x;
        for _ in 0..2 {
            h = silu(linear(h, square));
        }
        let gated = {
            let gate = activate(Activation::Sigmoid, h);
            gate * h
        };
        x = gated - x;
    }
    linear(x, embedding)
}

#[test]
fn values_keep_the_authors_names_and_lines() {
    let graph = names().build(&small_config()).unwrap();
    let first = graph.entry.nodes[graph.entry.output].span.line;
    let named: Vec<(String, &str, u32)> = (graph.templates[0].section.nodes.node_weights())
        .filter_map(|node| Some((node.name.clone()?, node.op.name(), node.span.line - first)))
        .collect();
    let expected = [
        ("x", "layer_input", 1),
        ("h", "silu", 5),
        ("h", "silu", 5),
        ("gate", "sigmoid", 8),
        ("gated", "mul", 9),
        ("x", "sub", 11),
    ];
    assert_eq!(named, expected.map(|(name, op, line)| (name.to_string(), op, line)));
    let file = graph.head.nodes.node_weights().next().unwrap().span.file;
    assert!(file.ends_with("definitions.rs"), "{file}");
}

#[test]
fn a_definition_is_traced_once_for_each_kind_of_layer() {
    let graph = graph(&fixture("gemma3-A-bf16", "config.json"));
    let kinds: Vec<&str> = graph.templates.iter().map(|template| template.kind.as_str()).collect();
    assert_eq!(kinds, ["sliding_attention", "full_attention"]);
    let templates: Vec<usize> = graph.layers.iter().map(|layer| layer.template).collect();
    assert_eq!(templates, [0, 0, 0, 0, 0, 1]);
    assert_eq!(graph.ropes.len(), 2);
}

#[test]
fn mistakes_that_the_macros_find_point_at_the_authors_line() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
