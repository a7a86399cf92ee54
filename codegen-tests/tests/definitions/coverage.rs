//! What the seeds of every run have in them.

use std::collections::BTreeSet;

use kiln_codegen_tests::random_definition::{Operator, architecture, generate};
use kiln_compiler::graph::{AttentionSpec, Binary, Gate, Op, RouteSpec, Scoring, Unary};
use serde_json::json;

use super::SEEDS;

/// Names every kind of operator, once for the match and once for the list, so that a new operator is asked of the
/// generator as soon as it is there.
macro_rules! kinds {
    ($($pattern:pat => $name:literal,)*) => {
        const KINDS: &[&str] = &[$($name),*];

        fn kind(op: &Op) -> &'static str {
            match op {
                $($pattern => $name,)*
            }
        }
    };
}

kinds! {
    Op::Tokens => "tokens",
    Op::LayerInput => "layer input",
    Op::Weight(_) => "weight",
    Op::Gather => "gather",
    Op::Linear => "linear",
    Op::RmsNorm { unit_offset: false, .. } => "norm",
    Op::RmsNorm { unit_offset: true, .. } => "norm plus one",
    Op::Unary(Unary::Silu) => "silu",
    Op::Unary(Unary::GeluTanh) => "gelu by tanh",
    Op::Unary(Unary::GeluErf) => "gelu",
    Op::Unary(Unary::Sigmoid) => "sigmoid",
    Op::Unary(Unary::Relu) => "relu",
    Op::Unary(Unary::Tanh) => "tanh",
    Op::Binary(Binary::Add) => "add",
    Op::Binary(Binary::Sub) => "sub",
    Op::Binary(Binary::Mul) => "mul",
    Op::Scale(_) => "scale",
    Op::Softcap(_) => "softcap",
    Op::SplitHeads { .. } => "split heads",
    Op::MergeHeads => "merge heads",
    Op::Rope(_) => "rope",
    Op::CacheWrite(_) => "cache write",
    Op::Attention(AttentionSpec { window: Some(_), .. }) => "attention to a window",
    Op::Attention(AttentionSpec { softcap: Some(_), .. }) => "attention with a cap",
    Op::Attention(_) => "attention",
    Op::Slice { .. } => "slice",
    Op::Clamp(_) => "clamp",
    Op::ScaleRows => "scale rows",
    Op::Convolution(_) => "convolution",
    Op::GatedDelta(_) => "gated delta rule",
    Op::Route(RouteSpec { scoring: Scoring::SoftmaxChosen, .. }) => "softmax of chosen",
    Op::Route(RouteSpec { scoring: Scoring::SoftmaxAll, .. }) => "softmax of all",
    Op::Route(RouteSpec { scoring: Scoring::Sigmoid, .. }) => "sigmoid of scores",
    Op::Experts(Gate::Activated(_)) => "experts",
    Op::Experts(Gate::Clamped { .. }) => "clamped experts",
}

#[test]
fn the_seeds_have_every_kind_of_operator() {
    let (mut found, mut tied, mut layers) = (BTreeSet::new(), 0, BTreeSet::new());
    for seed in SEEDS {
        let definition = generate(seed);
        tied += usize::from(
            definition
                .head
                .steps
                .iter()
                .any(|step| step.operator == Operator::TiedHead),
        );
        layers.insert((definition.kinds.len(), definition.layers.len()));
        let graph = architecture(definition)
            .build(&json!({}))
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        for (_, section) in graph.sections() {
            found.extend(section.nodes.node_weights().map(|node| kind(&node.op)));
        }
    }
    let missing: Vec<&&str> = KINDS.iter().filter(|kind| !found.contains(**kind)).collect();
    assert!(missing.is_empty(), "no seed has {missing:?}");
    assert!((20..180).contains(&tied), "{tied} heads are tied");
    assert!(layers.len() >= 4, "kinds and numbers of layers: {layers:?}");
}

#[test]
fn layers_are_neither_short_nor_all_of_a_size() {
    let of = |seed| generate(seed).kinds.into_iter().map(|kind| kind.steps.len());
    let sizes: Vec<usize> = SEEDS.flat_map(of).collect();
    let short = sizes.iter().filter(|size| **size < 3).count();
    assert!(
        short * 20 < sizes.len(),
        "{short} of {} layers have less than 3 operators",
        sizes.len()
    );
    let distinct: BTreeSet<&usize> = sizes.iter().collect();
    assert!(distinct.len() > 15, "{distinct:?}");
}
