//! Reference cases as GGUF files (`fixtures/gguf/make_mixtures.py`): they must be the same models, to the bit, as the
//! Hugging Face directories that they were made from.

use std::path::{Path, PathBuf};

use kiln_compiler::architectures::Registry;
use kiln_compiler::checkpoint::{Checkpoint, SourceType, TensorSource, View};
use kiln_compiler::graph::{DeclaredWeight, ModelGraph};
use proptest::prelude::*;

const CASES: [&str; 6] = [
    "gpt_oss-A-mxfp4",
    "gpt_oss-A-bf16",
    "qwen3_moe-A-bf16",
    "olmoe-A-bf16",
    "lfm2-A-bf16",
    "lfm2_moe-A-bf16",
];

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn open(case: &str) -> (Checkpoint, Checkpoint) {
    let directory = folder("../codegen-tests/fixtures").join(case);
    let file = folder("tests/fixtures/gguf").join(format!("{case}.gguf"));
    (Checkpoint::open(&directory).unwrap(), Checkpoint::open(&file).unwrap())
}

fn graph(checkpoint: &Checkpoint) -> ModelGraph {
    let registry = Registry::default();
    let architecture = registry.for_config(checkpoint.config()).unwrap();
    architecture.build(checkpoint.config()).unwrap()
}

/// All that a graph computes; dimensions may have other names (LFM2's file says the width that a config computes).
fn operators(graph: &ModelGraph) -> Vec<String> {
    let nodes = graph.sections().flat_map(|(_, section)| section.nodes.node_weights());
    let shape = |shape: &kiln_compiler::graph::Shape| shape.dims.iter().map(|dim| dim.value()).collect::<Vec<_>>();
    nodes
        .map(|node| format!("{:?} {:?}", node.op, shape(&node.shape)))
        .collect()
}

#[test]
fn files_are_the_models_that_they_were_made_from() {
    for case in CASES {
        let (directory, file) = open(case);
        let (expected, found) = (graph(&directory), graph(&file));
        assert_eq!(operators(&found), operators(&expected), "{case}");
        assert_eq!(found.layers, expected.layers, "{case}");
        assert_eq!(found.ropes, expected.ropes, "{case}");
        let declared = expected.declared_weights();
        assert_eq!(found.declared_weights(), declared, "{case}");

        let directory = View::new(&directory, &directory.stored(&declared)).unwrap();
        let file = View::new(&file, &file.stored(&declared)).unwrap();
        for DeclaredWeight { name, .. } in &declared {
            let (found, expected) = (file.read_f32(name).unwrap(), directory.read_f32(name).unwrap());
            assert!(found == expected, "{case} {name}");
        }
    }
}

#[test]
fn blocks_stay_blocks() {
    let (_, file) = open("gpt_oss-A-mxfp4");
    for part in ["gate_up_proj.gate", "gate_up_proj.up", "down_proj"] {
        let info = file.info(&format!("model.layers.0.mlp.experts.{part}")).unwrap();
        assert_eq!(info.source, SourceType::Mxfp4);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the metadata say: errors, no panics.
    #[test]
    fn corrupted_headers_never_panic(
        case in prop::sample::select(&CASES[..]),
        changes in prop::collection::vec((0..1000usize, any::<u8>()), 1..4),
    ) {
        let mut bytes = std::fs::read(folder("tests/fixtures/gguf").join(format!("{case}.gguf"))).unwrap();
        for (at, value) in changes {
            bytes[at] = value;
        }
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("m.gguf");
        std::fs::write(&path, bytes).unwrap();
        if let Ok(file) = Checkpoint::open(&path)
            && let Ok(architecture) = Registry::default().for_config(file.config())
            && let Ok(graph) = architecture.build(file.config())
        {
            let _ = View::new(&file, &file.stored(&graph.declared_weights()));
        }
    }
}
