//! Layers with convolutions, recurrent states and mixtures of experts.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;

use super::*;
use crate::graph::test_models::{INNER, mixers as model};
use crate::reference::WeightError;

/// Every weight of [`model`].
fn weights(graph: &ModelGraph) -> HashMap<String, Vec<f32>> {
    let mut numbers = Numbers(2);
    let mut weights = HashMap::new();
    for decl in &graph.weights {
        for layer in &graph.layers {
            weights.insert(decl.name_in(layer.index), numbers.take(decl.elements() as usize));
        }
    }
    weights
}

#[test]
fn any_chunking_gives_the_same_logits() {
    let graph = model();
    let weights = weights(&graph);
    let whole = Evaluator::new(&graph, &weights).feed(&IDS).unwrap();
    for split in 0..=IDS.len() {
        let mut evaluator = Evaluator::new(&graph, &weights);
        let mut parts = evaluator.feed(&IDS[..split]).unwrap();
        parts.extend(evaluator.feed(&IDS[split..]).unwrap());
        assert_eq!(parts, whole, "split at {split}");
    }
}

#[test]
fn rewinding_gives_what_a_fresh_run_gives() {
    let graph = model();
    let weights = weights(&graph);
    for position in 0..IDS.len() {
        let mut evaluator = Evaluator::new(&graph, &weights);
        evaluator.feed(&IDS).unwrap();
        evaluator.rewind(position);
        let again = evaluator.feed(&[7, 7]).unwrap();
        let ids = [&IDS[..position], &[7, 7]].concat();
        let fresh = Evaluator::new(&graph, &weights).feed(&ids).unwrap();
        assert_eq!(again, fresh[position..], "to {position}");
    }
}

#[test]
fn the_first_token_is_remembered() {
    let graph = model();
    let weights = weights(&graph);
    let last = |ids: &[u32]| Evaluator::new(&graph, &weights).feed_last(ids).unwrap();
    let mut changed = IDS;
    changed[0] = 8;
    assert_ne!(last(&IDS), last(&changed));
}

/// Notes which experts of the first layer's `gate` are read.
struct Watched {
    weights: HashMap<String, Vec<f32>>,
    read: RefCell<BTreeSet<usize>>,
}

impl WeightValues for Watched {
    fn values(&self, name: &str) -> Result<Cow<'_, [f32]>, WeightError> {
        assert!(!name.ends_with("gate"), "the whole bank {name} is read");
        WeightValues::values(&self.weights, name)
    }

    fn rows(&self, name: &str, rows: Range<usize>, columns: usize) -> Result<Cow<'_, [f32]>, WeightError> {
        if name == "layers.3.gate" {
            assert_eq!((rows.len(), columns), (INNER, HIDDEN));
            self.read.borrow_mut().insert(rows.start / INNER);
        }
        self.weights.rows(name, rows, columns)
    }
}

#[test]
fn only_chosen_experts_are_read() {
    let graph = model();
    let mut weights = weights(&graph);
    // Equal scores send every token to the first two.
    weights.get_mut("layers.3.router").unwrap().fill(0.0);
    let expected = Evaluator::new(&graph, &weights).feed(&IDS).unwrap();
    let watched = Watched {
        weights,
        read: RefCell::default(),
    };
    let logits = Evaluator::new(&graph, &watched).feed(&IDS).unwrap();
    assert_eq!(logits, expected);
    assert_eq!(watched.read.into_inner(), BTreeSet::from([0, 1]));
}

#[test]
fn a_bank_that_is_too_short_is_an_error() {
    let graph = model();
    let mut weights = weights(&graph);
    weights.get_mut("layers.3.router").unwrap().fill(0.0);
    weights.get_mut("layers.3.down").unwrap().truncate(HIDDEN * INNER);
    let error = Evaluator::new(&graph, &weights).feed(&IDS).unwrap_err();
    assert_eq!(error.to_string(), "weight layers.3.down: no rows 6 to 12");
}
