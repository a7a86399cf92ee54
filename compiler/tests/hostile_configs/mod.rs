//! Values that no config.json should have: an error each, or a graph, and never a panic.

use kiln_compiler::architectures::Registry;
use kiln_compiler::config::ModelFacts;
use serde_json::{Value, json};

use super::fixture;

fn hostile_values() -> Vec<Value> {
    vec![
        json!(0),
        json!(-1),
        json!(2.5),
        json!(1e300),
        json!((1u64 << 31) - 1),
        json!(u64::MAX),
        json!("64"),
        json!(true),
        json!([]),
        json!([1, "a", null]),
        json!({ "a": [] }),
        json!(vec!["full_attention"; 20_000]),
        Value::Null,
    ]
}

/// One case of each family.
const CASES: [&str; 14] = [
    "gemma3-A-bf16",
    "gpt_oss-A-bf16",
    "granite-A-bf16",
    "granitemoe-A-bf16",
    "lfm2-A-bf16",
    "lfm2_moe-A-bf16",
    "llama-A-bf16",
    "mistral-A-bf16",
    "olmoe-A-bf16",
    "qwen3-A-bf16",
    "qwen3_5-A-bf16",
    "qwen3_5_moe-A-bf16",
    "qwen3_moe-A-bf16",
    "qwen3_next-A-bf16",
];

/// Reads a config as far as compiling does before it looks at weights.
fn read(config: &Value) {
    let registry = Registry::default();
    let Ok(architecture) = registry.for_config(config) else {
        return;
    };
    if let Ok(defined) = architecture.define(config) {
        let _ = ModelFacts::read(&defined.config);
        let _ = defined.graph.declared_weights();
    }
}

#[test]
fn hostile_values_are_errors() {
    for case in CASES {
        let config = fixture(case, "config.json");
        for (key, value) in config.as_object().unwrap() {
            let of_rope = value.as_object().filter(|_| key == "rope_parameters");
            for hostile in hostile_values() {
                let mut changed = config.clone();
                changed[key] = hostile.clone();
                read(&changed);
                for inner in of_rope.into_iter().flat_map(|entries| entries.keys()) {
                    let mut changed = config.clone();
                    changed[key][inner] = hostile.clone();
                    read(&changed);
                }
            }
        }
    }
}

/// Sizes that are each allowed and together more than there are numbers for.
#[test]
fn all_sizes_at_once_are_errors() {
    const MOST: u64 = (1 << 31) - 1;
    for case in CASES {
        let mut config = fixture(case, "config.json");
        for (key, value) in config.as_object_mut().unwrap() {
            if value.is_u64() && key != "num_hidden_layers" {
                *value = json!(MOST);
            }
        }
        read(&config);
    }
}

#[test]
fn deep_nesting_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, "[".repeat(100_000)).unwrap();
    let error = kiln_compiler::checkpoint::Checkpoint::open(&path)
        .unwrap_err()
        .to_string();
    assert!(error.contains("recursion limit"), "{error}");
}
