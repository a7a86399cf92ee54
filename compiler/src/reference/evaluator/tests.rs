mod mixers;

use std::collections::HashMap;

use super::*;
use crate::graph::test_models::{HEADS, HIDDEN, VOCAB, WIDTH, attention as model};
use crate::reference::{MissingWeight, self_test};

/// Some fixed numbers between -1 and 1.
struct Numbers(u32);

impl Numbers {
    fn take(&mut self, count: usize) -> Vec<f32> {
        let number = |_| {
            self.0 = self.0.wrapping_mul(1664525).wrapping_add(1013904223);
            (self.0 >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(number).collect()
    }
}

/// Every weight of [`model`].
fn weights() -> HashMap<String, Vec<f32>> {
    let mut numbers = Numbers(1);
    let mut some = |count: usize| numbers.take(count);
    let mut weights = HashMap::from([("embed".to_string(), some(VOCAB * HIDDEN))]);
    for index in [3, 5] {
        for (name, rows) in [("q", HEADS * WIDTH), ("k", WIDTH), ("v", WIDTH), ("o", HEADS * WIDTH)] {
            weights.insert(format!("layers.{index}.{name}"), some(rows * HIDDEN));
        }
    }
    weights
}

const IDS: [u32; 7] = [3, 1, 4, 1, 5, 9, 2];

#[test]
fn any_chunking_gives_the_same_logits() {
    for window in [None, Some(2)] {
        let (graph, weights) = (model(window), weights());
        let whole = Evaluator::new(&graph, &weights).feed(&IDS).unwrap();
        for split in 0..=IDS.len() {
            let mut evaluator = Evaluator::new(&graph, &weights);
            let mut parts = evaluator.feed(&IDS[..split]).unwrap();
            parts.extend(evaluator.feed(&IDS[split..]).unwrap());
            assert_eq!(parts, whole, "window {window:?}, split at {split}");
        }
    }
}

#[test]
fn a_window_forgets_and_no_window_remembers() {
    let weights = weights();
    let last = |window, ids: &[u32]| Evaluator::new(&model(window), &weights).feed_last(ids).unwrap();
    let mut changed = IDS;
    changed[0] = 8;
    assert_ne!(last(None, &IDS), last(None, &changed));
    // Two layers of windows of 2 reach back two tokens.
    assert_eq!(last(Some(2), &IDS), last(Some(2), &changed));
    changed[4] = 8;
    assert_ne!(last(Some(2), &IDS), last(Some(2), &changed));
}

#[test]
fn the_order_of_earlier_tokens_matters() {
    let (graph, weights) = (model(None), weights());
    let last = |ids: &[u32]| Evaluator::new(&graph, &weights).feed_last(ids).unwrap();
    assert_ne!(last(&[1, 2, 3]), last(&[2, 1, 3]));
}

#[test]
fn rewinding_gives_what_a_fresh_run_gives() {
    let (graph, weights) = (model(None), weights());
    let mut evaluator = Evaluator::new(&graph, &weights);
    evaluator.feed(&IDS).unwrap();
    evaluator.rewind(2);
    assert_eq!(evaluator.position(), 2);
    let again = evaluator.feed(&[7, 7]).unwrap();
    let fresh = Evaluator::new(&graph, &weights).feed(&[3, 1, 7, 7]).unwrap();
    assert_eq!(again, fresh[2..]);
}

#[test]
fn greedy_appends_the_largest_logit() {
    let (graph, weights) = (model(None), weights());
    let generated = Evaluator::new(&graph, &weights).greedy(&IDS, 3).unwrap();
    let mut ids = IDS.to_vec();
    for id in generated {
        let logits = Evaluator::new(&graph, &weights).feed_last(&ids).unwrap();
        assert!(logits.iter().all(|&logit| logit <= logits[id as usize]));
        ids.push(id);
    }
}

#[test]
fn the_trace_shows_each_layer() {
    let (graph, weights) = (model(None), weights());
    let mut outputs = Vec::new();
    let logits = Evaluator::new(&graph, &weights)
        .feed_traced(&IDS, &mut |traced| {
            if traced.is_output {
                outputs.push((traced.layer, traced.values.to_vec()));
            }
        })
        .unwrap();
    let layers: Vec<_> = outputs.iter().map(|(layer, _)| *layer).collect();
    assert_eq!(layers, [None, Some(0), Some(1), None]);
    assert_eq!(outputs[3].1, logits.concat());
}

#[test]
fn a_token_out_of_the_vocabulary_is_an_error_and_leaves_no_trace() {
    let (graph, weights) = (model(None), weights());
    let mut evaluator = Evaluator::new(&graph, &weights);
    evaluator.feed(&IDS[..2]).unwrap();
    let error = evaluator.feed(&[1, 11]).unwrap_err();
    assert_eq!(error.to_string(), "token id 11 is not in the vocabulary of 11 tokens");
    let rest = evaluator.feed(&IDS[2..]).unwrap();
    assert_eq!(rest, Evaluator::new(&graph, &weights).feed(&IDS).unwrap()[2..]);
}

#[test]
fn a_missing_weight_is_named_and_the_step_can_be_repeated() {
    let (graph, weights) = (model(None), weights());
    let broken = std::cell::Cell::new(true);
    let source = |name: &str| match weights.get(name) {
        // The first layer has written its cache by then.
        Some(_) if broken.get() && name == "layers.5.o" => Err(MissingWeight),
        Some(values) => Ok(values.clone()),
        None => unreachable!("{name}"),
    };
    let mut evaluator = Evaluator::new(&graph, &source);
    let error = evaluator.feed(&IDS).unwrap_err();
    assert_eq!(error.to_string(), "weight layers.5.o: no such weight");
    broken.set(false);
    let repeated = evaluator.feed(&IDS).unwrap();
    assert_eq!(repeated, Evaluator::new(&graph, &weights).feed(&IDS).unwrap());
}

#[test]
fn a_weight_of_another_size_is_an_error() {
    let (graph, mut weights) = (model(None), weights());
    weights.get_mut("layers.3.k").unwrap().pop();
    let error = Evaluator::new(&graph, &weights).feed(&IDS).unwrap_err();
    assert_eq!(error.to_string(), "weight layers.3.k: expected 24 elements, found 23");
}

#[test]
fn no_ids_no_logits() {
    let (graph, weights) = (model(None), weights());
    let mut evaluator = Evaluator::new(&graph, &weights);
    assert!(evaluator.feed(&[]).unwrap().is_empty());
    assert!(evaluator.feed_last(&[]).unwrap().is_empty());
}

#[test]
fn a_self_test_keeps_the_largest_logits() {
    let (graph, weights) = (model(None), weights());
    let test = self_test(&graph, &weights, &IDS).unwrap();
    let logits = Evaluator::new(&graph, &weights).feed(&IDS).unwrap().pop().unwrap();
    assert_eq!(test.ids, IDS);
    assert_eq!(test.top_logits.len(), VOCAB.min(20));
    assert!(test.top_logits.is_sorted_by(|a, b| a.1 >= b.1));
    assert!(test.top_logits.iter().all(|&(id, logit)| logits[id as usize] == logit));
    let norm = logits.iter().map(|logit| logit * logit).sum::<f32>().sqrt();
    assert!((test.norm - norm).abs() < 1e-5 * norm);
}

#[test]
fn a_self_test_refuses_what_is_not_finite() {
    let (graph, mut weights) = (model(None), weights());
    weights.get_mut("embed").unwrap()[7 * HIDDEN] = f32::INFINITY;
    let error = self_test(&graph, &weights, &IDS).unwrap_err();
    assert!(matches!(error, EvalError::NotFinite { id: 7, .. }), "{error}");
}
