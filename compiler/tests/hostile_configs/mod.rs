//! Values that no config.json should have: an error each, or a graph, and never a panic.

use kiln_compiler::architectures::Registry;
use kiln_compiler::config::ModelFacts;
use serde_json::{Value, json};

use super::{MIXTURES_AND_HYBRIDS, fixture};

fn hostile_values() -> Vec<Value> {
    vec![
        json!(0),
        json!(-1),
        json!(1),
        json!(2.5),
        json!(64.0),
        json!(1e300),
        json!(-1e300),
        json!((1u64 << 31) - 1),
        json!(1u64 << 31),
        json!(u64::MAX),
        json!("64"),
        json!(""),
        json!(true),
        json!([]),
        json!([1, "a", null]),
        json!({}),
        json!({ "a": [] }),
        json!(vec!["full_attention"; 20_000]),
        Value::Null,
    ]
}

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
    let others = [
        "llama-A-bf16",
        "qwen3-B-bf16",
        "gemma3-A-bf16",
        "granite-A-bf16",
        "mistral-A-bf16",
    ];
    for case in others.into_iter().chain(MIXTURES_AND_HYBRIDS) {
        for file in ["config.json", "config.v4.json"] {
            let config = fixture(case, file);
            for key in config.as_object().unwrap().keys() {
                for value in hostile_values() {
                    let mut changed = config.clone();
                    changed[key] = value;
                    read(&changed);
                }
            }
            for of_rope in ["rope_parameters", "rope_scaling"] {
                let Some(entries) = config[of_rope].as_object() else {
                    continue;
                };
                for key in entries.keys() {
                    for value in hostile_values() {
                        let mut changed = config.clone();
                        changed[of_rope][key] = value;
                        read(&changed);
                    }
                }
            }
        }
    }
}

/// Sizes that are each allowed and together more than there are numbers for.
#[test]
fn all_sizes_at_once_are_errors() {
    const MOST: u64 = (1 << 31) - 1;
    for case in ["llama-A-bf16", "gpt_oss-A-mxfp4"]
        .into_iter()
        .chain(MIXTURES_AND_HYBRIDS)
    {
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
