//! What is assumed where a config.json is silent, against transformers' own configuration classes
//! (`fixtures/transformers/defaults.py`). Absent is not null.

use std::collections::BTreeSet;

use kiln_compiler::architectures::Registry;
use kiln_compiler::config::ModelFacts;
use serde_json::{Map, Value, json};

use super::{MIXTURES_AND_HYBRIDS, fixture};

/// The classes by the `model_type` of their configs.
fn classes() -> Map<String, Value> {
    let table: Value = serde_json::from_str(include_str!("../fixtures/transformers/defaults.json")).unwrap();
    table["classes"].as_object().unwrap().clone()
}

/// All that the compiler takes from a config, or why it takes none.
fn reading(config: &Value) -> Result<String, String> {
    let registry = Registry::default();
    let defined = registry.for_config(config).unwrap().define(config);
    let defined = defined.map_err(|error| error.to_string())?;
    let facts = ModelFacts::read(&defined.config).map_err(|error| error.to_string())?;
    Ok(format!("{:?} {facts:?}", defined.graph))
}

fn with(config: &Value, changes: &Value) -> Value {
    let mut config = config.clone();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

#[test]
fn every_family_is_in_the_table() {
    let registry = Registry::default();
    let types = |name| registry.lookup(name).unwrap().model_types()[0].to_string();
    let ours: BTreeSet<String> = registry.names().into_iter().map(types).collect();
    let theirs: BTreeSet<String> = classes().into_iter().map(|(model_type, _)| model_type).collect();
    assert_eq!(ours, theirs);
}

#[test]
fn a_silent_config_is_read_as_the_class_has_it() {
    for (model_type, class) in classes() {
        let silent = reading(&json!({ "model_type": model_type }));
        let stated = reading(&class["absent"]);
        assert!(stated.is_ok(), "{model_type}: {stated:?}");
        assert!(silent == stated, "{model_type}: {silent:#?}\n{stated:#?}");
    }
}

#[test]
fn every_key_that_is_absent_is_read_as_the_class_has_it() {
    let classes = classes();
    let others = ["llama", "qwen3", "gemma3", "granite", "mistral"];
    let others = others
        .iter()
        .flat_map(|family| ["A", "B"].map(|case| format!("{family}-{case}-bf16")));
    let mut checked = 0;
    for case in others.chain(MIXTURES_AND_HYBRIDS.map(str::to_string)) {
        let config = fixture(&case, "config.json");
        let class = &classes[config["model_type"].as_str().unwrap()];
        for (key, default) in class["fields"].as_object().unwrap() {
            if default.is_null() {
                continue;
            }
            let mut absent = config.clone();
            absent.as_object_mut().unwrap().remove(key);
            // transformers 5 writes the one name, and reads the other as well.
            if key == "num_experts" {
                absent.as_object_mut().unwrap().remove("num_local_experts");
            }
            let stated = with(&absent, &json!({ key.as_str(): default }));
            assert_eq!(reading(&absent), reading(&stated), "{case}: {key}");
            checked += 1;
        }
    }
    assert!(checked > 400, "{checked}");
}

#[test]
fn null_is_read_as_the_class_has_it() {
    for (model_type, class) in classes() {
        for (key, changed) in class["null"].as_object().unwrap() {
            let null = json!({ "model_type": model_type, key.as_str(): null });
            let stated = with(&class["absent"], changed);
            assert_eq!(reading(&null), reading(&stated), "{model_type}: {key}");
        }
    }
}

#[test]
fn every_key_of_a_class_is_read_or_known_to_be_harmless() {
    for (model_type, class) in classes() {
        let registry = Registry::default();
        let architecture = registry.for_config(&class["absent"]).unwrap();
        let unread = architecture.define(&class["absent"]).unwrap().unread;
        assert_eq!(unread, [], "{model_type}");
    }
}
