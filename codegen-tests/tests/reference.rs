//! The CPU evaluator against Hugging Face transformers: what the kernels are compared with is itself right.

use kiln_codegen_tests::oracle::{CASES, Case, MIXTURES_AND_HYBRIDS, Spelling, relative_error, worst_relative_error};
use kiln_compiler::architectures::Registry;
use kiln_compiler::checkpoint::{Checkpoint, TensorSource, View};
use kiln_compiler::graph::{ModelGraph, Op};
use kiln_compiler::reference::{Evaluator, WeightError, WeightValues};

/// Both compute in f32; they differ in the order of sums.
const TOLERANCE: f64 = 1e-4;

/// Calls `check` with the graph and the weights of a case.
fn with_model(case: &Case, spelling: Spelling, check: impl FnOnce(&ModelGraph, &dyn WeightValues)) {
    let directory = case.checkpoint(spelling);
    let checkpoint = Checkpoint::open(directory.path()).expect("a checkpoint");
    let registry = Registry::default();
    let architecture = registry.for_config(checkpoint.config()).expect("a known architecture");
    let graph = architecture.build(checkpoint.config()).expect("a graph");
    let view = View::new(&checkpoint, &checkpoint.stored(&graph.declared_weights())).expect("the model's weights");
    let weights = |name: &str| view.read_f32(name).map_err(WeightError::from);
    check(&graph, &weights);
}

#[test]
fn logits_of_every_position_equal_transformers() {
    for name in CASES.into_iter().chain(MIXTURES_AND_HYBRIDS) {
        let case = Case::load(name);
        for spelling in [Spelling::V5, Spelling::V4] {
            with_model(&case, spelling, |graph, weights| {
                for (p, prompt) in case.prompts.iter().enumerate() {
                    let logits = Evaluator::new(graph, weights).feed(&prompt.ids).unwrap();
                    let error = worst_relative_error(&logits, &prompt.logits);
                    println!("{name} {spelling:?} p{p}: {error:.1e}");
                    assert!(error < TOLERANCE, "{name} {spelling:?} p{p}: {error:.1e}");
                }
            });
        }
    }
}

#[test]
fn greedy_ids_and_their_logits_equal_transformers() {
    for name in CASES.into_iter().chain(MIXTURES_AND_HYBRIDS) {
        let case = Case::load(name);
        with_model(&case, Spelling::V5, |graph, weights| {
            for (p, prompt) in case.prompts.iter().enumerate() {
                let mut evaluator = Evaluator::new(graph, weights);
                let count = prompt.greedy_ids.len();
                let greedy = evaluator.greedy(&prompt.ids, count).unwrap();
                assert_eq!(greedy, prompt.greedy_ids, "{name} p{p}");

                // Step by step above, all at once here.
                evaluator.rewind(prompt.ids.len());
                let logits = evaluator.feed(&greedy[..count - 1]).unwrap();
                let error = worst_relative_error(&logits, &prompt.greedy_logits[1..]);
                assert!(error < TOLERANCE, "{name} p{p}: {error:.1e}");
            }
        });
    }
}

#[test]
fn hidden_states_of_every_layer_equal_transformers() {
    for name in CASES.into_iter().chain(MIXTURES_AND_HYBRIDS) {
        let case = Case::load(name);
        with_model(&case, Spelling::V5, |graph, weights| {
            // The embeddings and what leaves each layer; of the last, only what leaves the final norm.
            let mut states = Vec::new();
            Evaluator::new(graph, weights)
                .feed_traced(&case.prompts[0].ids, &mut |traced| {
                    let last = traced.layer == Some(graph.layers.len() - 1);
                    let final_norm = traced.layer.is_none() && matches!(traced.node.op, Op::RmsNorm { .. });
                    if final_norm || traced.is_output && !last {
                        states.push(traced.values.to_vec());
                    }
                })
                .unwrap();
            states.pop(); // the logits
            assert_eq!(states.len(), case.hidden_states.len(), "{name}");
            for (layer, (found, expected)) in states.iter().zip(&case.hidden_states).enumerate() {
                let error = relative_error(found, expected);
                assert!(error < TOLERANCE, "{name} state {layer}: {error:.1e}");
            }
        });
    }
}
