mod mixers;

use std::collections::HashMap;

use petgraph::graph::DiGraph;

use super::*;
use crate::graph::{
    AttentionSpec, Binary, Dim, Layer, Op, RopeId, RopeSpec, Shape, Span, StateDecl, StateKind, Stored, Template,
    WeightDecl, WeightId, WeightRole,
};
use crate::reference::{MissingWeight, self_test};

const VOCAB: usize = 11;
const HIDDEN: usize = 6;
const HEADS: usize = 3;
const WIDTH: usize = 4;

/// Builds a section: each node with the dimensions of its result and its operands.
#[derive(Default)]
struct Nodes(DiGraph<Node, u8>);

impl Nodes {
    fn add(&mut self, op: Op, dims: &[usize], operands: &[NodeIndex]) -> NodeIndex {
        let node = self.0.add_node(Node {
            shape: Shape {
                per_token: !matches!(op, Op::Weight(_)),
                dims: dims.iter().map(|&dim| Dim::constant(dim)).collect(),
            },
            op,
            name: None,
            span: Span {
                file: file!(),
                line: 0,
                column: 0,
            },
        });
        for (position, &operand) in operands.iter().enumerate() {
            self.0.add_edge(operand, node, position as u8);
        }
        node
    }

    fn weight(&mut self, id: usize, dims: &[usize]) -> NodeIndex {
        self.add(Op::Weight(WeightId(id)), dims, &[])
    }

    fn section(self, output: NodeIndex) -> Section {
        Section { nodes: self.0, output }
    }
}

/// Two layers of rotary attention with one key-value head and a residual; the head is the embedding.
fn model(window: Option<usize>) -> ModelGraph {
    let mut nodes = Nodes::default();
    let table = nodes.weight(0, &[VOCAB, HIDDEN]);
    let tokens = nodes.add(Op::Tokens, &[], &[]);
    let embedded = nodes.add(Op::Gather, &[HIDDEN], &[table, tokens]);
    let prologue = nodes.section(embedded);

    let mut nodes = Nodes::default();
    let input = nodes.add(Op::LayerInput, &[HIDDEN], &[]);
    let projected = |nodes: &mut Nodes, weight: usize, heads: usize| {
        let weight = nodes.weight(weight, &[heads * WIDTH, HIDDEN]);
        let flat = nodes.add(Op::Linear, &[heads * WIDTH], &[input, weight]);
        let split = Op::SplitHeads {
            heads: heads.into(),
            width: WIDTH.into(),
        };
        nodes.add(split, &[heads, WIDTH], &[flat])
    };
    let q = projected(&mut nodes, 1, HEADS);
    let k = projected(&mut nodes, 2, 1);
    let v = projected(&mut nodes, 3, 1);
    let q = nodes.add(Op::Rope(RopeId(0)), &[HEADS, WIDTH], &[q]);
    let k = nodes.add(Op::Rope(RopeId(0)), &[1, WIDTH], &[k]);
    let cache = nodes.add(Op::CacheWrite(StateId(0)), &[1, WIDTH], &[k, v]);
    let attention = AttentionSpec {
        scale: 0.5,
        window,
        softcap: None,
    };
    let attended = nodes.add(Op::Attention(attention), &[HEADS, WIDTH], &[q, cache]);
    let merged = nodes.add(Op::MergeHeads, &[HEADS * WIDTH], &[attended]);
    let weight = nodes.weight(4, &[HIDDEN, HEADS * WIDTH]);
    let projected = nodes.add(Op::Linear, &[HIDDEN], &[merged, weight]);
    let sum = nodes.add(Op::Binary(Binary::Add), &[HIDDEN], &[input, projected]);
    let template = Template {
        kind: "layer".to_string(),
        section: nodes.section(sum),
    };

    let mut nodes = Nodes::default();
    let input = nodes.add(Op::LayerInput, &[HIDDEN], &[]);
    let weight = nodes.weight(0, &[VOCAB, HIDDEN]);
    let logits = nodes.add(Op::Linear, &[VOCAB], &[input, weight]);

    let decl = |name: &str, shape: [usize; 2]| WeightDecl {
        name: name.to_string(),
        shape: shape.map(Dim::constant).to_vec(),
        role: WeightRole::Matrix,
        stored: Stored::AsDeclared,
    };
    ModelGraph {
        architecture: "Test".to_string(),
        prologue,
        templates: vec![template],
        layers: [3, 5].map(|index| Layer { template: 0, index }).to_vec(),
        epilogue: nodes.section(logits),
        weights: vec![
            decl("embed", [VOCAB, HIDDEN]),
            decl("layers.{}.q", [HEADS * WIDTH, HIDDEN]),
            decl("layers.{}.k", [WIDTH, HIDDEN]),
            decl("layers.{}.v", [WIDTH, HIDDEN]),
            decl("layers.{}.o", [HIDDEN, HEADS * WIDTH]),
        ],
        states: vec![StateDecl {
            name: "layers.{}.kv".to_string(),
            shape: vec![1.into(), WIDTH.into()],
            kind: StateKind::Cache { window },
        }],
        ropes: vec![RopeSpec {
            name: "rope".to_string(),
            inv_freq: vec![1.0, 0.2],
            attention_factor: 1.0,
        }],
    }
}

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
