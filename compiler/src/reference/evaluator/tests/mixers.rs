//! Layers with convolutions, recurrent states and mixtures of experts.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;

use super::*;
use crate::graph::{Gate, RouteSpec, Scoring, Unary};
use crate::reference::WeightError;

const KEY_HEADS: usize = 2;
const KEY_WIDTH: usize = 3;
const VALUE_HEADS: usize = 4;
const VALUE_WIDTH: usize = 2;
const TAPS: usize = 4;
const EXPERTS: usize = 5;
const CHOSEN: usize = 2;
const INNER: usize = 3;

/// Two layers of a convolution, the gated delta rule and a mixture with a residual each.
fn model() -> ModelGraph {
    let mut model = super::model(None);
    model.ropes.clear();
    model.weights.truncate(1);
    let mut nodes = Nodes::default();
    let mut decls = Vec::new();
    let mut weight = |nodes: &mut Nodes, name: &str, role: WeightRole, shape: &[usize]| {
        decls.push(WeightDecl {
            name: format!("layers.{{}}.{name}"),
            shape: shape.iter().map(|&dim| dim.into()).collect(),
            role,
            stored: Stored::AsDeclared,
        });
        nodes.weight(decls.len(), shape)
    };
    let input = nodes.add(Op::LayerInput, &[HIDDEN], &[]);

    let taps = weight(&mut nodes, "conv", WeightRole::Vector, &[HIDDEN, 1, TAPS]);
    let bias = weight(&mut nodes, "conv_bias", WeightRole::Vector, &[HIDDEN]);
    let mixed = nodes.add(Op::Convolution(StateId(0)), &[HIDDEN], &[input, taps, bias]);

    let mut projected = |nodes: &mut Nodes, name: &str, rows: usize| {
        let matrix = weight(nodes, name, WeightRole::Matrix, &[rows, HIDDEN]);
        nodes.add(Op::Linear, &[rows], &[mixed, matrix])
    };
    let mut operands = Vec::new();
    for (name, heads, width) in [
        ("q", KEY_HEADS, KEY_WIDTH),
        ("k", KEY_HEADS, KEY_WIDTH),
        ("v", VALUE_HEADS, VALUE_WIDTH),
    ] {
        let flat = projected(&mut nodes, name, heads * width);
        let split = Op::SplitHeads {
            heads: heads.into(),
            width: width.into(),
        };
        operands.push(nodes.add(split, &[heads, width], &[flat]));
    }
    operands.extend(["a", "b"].map(|name| projected(&mut nodes, name, VALUE_HEADS)));
    operands.extend(["a_log", "dt_bias"].map(|name| weight(&mut nodes, name, WeightRole::Vector, &[VALUE_HEADS])));
    let delta = nodes.add(Op::GatedDelta(StateId(1)), &[VALUE_HEADS, VALUE_WIDTH], &operands);
    let merged = nodes.add(Op::MergeHeads, &[VALUE_HEADS * VALUE_WIDTH], &[delta]);
    let matrix = weight(
        &mut nodes,
        "o",
        WeightRole::Matrix,
        &[HIDDEN, VALUE_HEADS * VALUE_WIDTH],
    );
    let out = nodes.add(Op::Linear, &[HIDDEN], &[merged, matrix]);
    let x = nodes.add(Op::Binary(Binary::Add), &[HIDDEN], &[input, out]);

    let router = weight(&mut nodes, "router", WeightRole::Exact, &[EXPERTS, HIDDEN]);
    let scores = nodes.add(Op::Linear, &[EXPERTS], &[x, router]);
    let spec = RouteSpec {
        experts_per_token: CHOSEN as u32,
        scoring: Scoring::SoftmaxAll,
        normalize: None,
        scale: 1.0,
    };
    let routing = nodes.add(Op::Route(spec), &[CHOSEN], &[scores]);
    let mut operands = vec![x, routing];
    operands.push(weight(&mut nodes, "gate", WeightRole::Bank, &[EXPERTS, INNER, HIDDEN]));
    operands.push(weight(&mut nodes, "up", WeightRole::Bank, &[EXPERTS, INNER, HIDDEN]));
    operands.push(weight(&mut nodes, "down", WeightRole::Bank, &[EXPERTS, HIDDEN, INNER]));
    operands.push(weight(&mut nodes, "gate_bias", WeightRole::Vector, &[EXPERTS, INNER]));
    operands.push(weight(&mut nodes, "up_bias", WeightRole::Vector, &[EXPERTS, INNER]));
    operands.push(weight(&mut nodes, "down_bias", WeightRole::Vector, &[EXPERTS, HIDDEN]));
    let gate = Gate::Activated(Unary::Silu);
    let mixture = nodes.add(Op::Experts(gate), &[HIDDEN], &operands);
    let sum = nodes.add(Op::Binary(Binary::Add), &[HIDDEN], &[x, mixture]);

    let state = |name: &str, shape: &[usize], kind| StateDecl {
        name: format!("layers.{{}}.{name}"),
        shape: shape.iter().map(|&dim| dim.into()).collect(),
        kind,
    };
    model.states = vec![
        state("conv", &[HIDDEN], StateKind::Convolution { taps: TAPS }),
        state("delta", &[VALUE_HEADS, KEY_WIDTH, VALUE_WIDTH], StateKind::Recurrent),
    ];
    model.templates[0].section = nodes.section(sum);
    model.weights.extend(decls);
    model
}

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
fn the_graph_is_sound() {
    crate::graph::verify(&model(), "test").unwrap();
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
