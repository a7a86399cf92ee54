//! Definitions become graphs.

use kiln_compiler::architectures::Registry;
use kiln_compiler::graph::ModelGraph;
use serde_json::Value;

fn config(name: &str) -> Value {
    let path = format!("{}/tests/configs/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap()
}

fn graph(config: &Value) -> ModelGraph {
    let registry = Registry::default();
    let architecture = registry.for_config(config).unwrap();
    architecture.build(config).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn llama() {
    insta::assert_snapshot!(graph(&config("llama")));
}
