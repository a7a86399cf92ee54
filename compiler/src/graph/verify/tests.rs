mod mixers;

use petgraph::graph::NodeIndex;
use serde_json::json;

use super::*;
use crate::architectures::llama;
use crate::graph::{AttentionSpec, Layer, RopeId, StateId, StateKind, WeightDecl, WeightId};

fn graph() -> ModelGraph {
    let config = json!({
        "vocab_size": 48, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "attention_bias": true,
    });
    llama().build(&config).unwrap()
}

/// The `nth` node of the layer whose operator has this name.
fn find(graph: &ModelGraph, name: &str, nth: usize) -> NodeIndex {
    let nodes = &graph.templates[0].section.nodes;
    let mut found = nodes.node_indices().filter(|node| nodes[*node].op.name() == name);
    found.nth(nth).unwrap()
}

fn layer(graph: &mut ModelGraph) -> &mut Section {
    &mut graph.templates[0].section
}

fn op<'g>(graph: &'g mut ModelGraph, name: &str, nth: usize) -> &'g mut Op {
    let node = find(graph, name, nth);
    &mut layer(graph).nodes[node].op
}

#[test]
fn a_sound_graph_passes() {
    verify(&graph(), "test").unwrap();
}

/// What an error should contain, and what breaks a sound graph in that one way.
type Break = (&'static str, fn(&mut ModelGraph));

/// The error must say what is broken, and name the pass.
fn check(graph: impl Fn() -> ModelGraph, cases: &[Break]) {
    for (expected, change) in cases {
        let mut broken = graph();
        change(&mut broken);
        let error = verify(&broken, "fuse norms").expect_err(expected).to_string();
        assert!(error.starts_with("fuse norms: "), "{error}");
        assert!(
            without_spans(&error).contains(expected),
            "{error}\nshould contain: {expected}"
        );
    }
}

#[test]
fn every_broken_rule_is_found() {
    let cases: &[Break] = &[
        ("silu: takes [Floats], gets []", |g| {
            let silu = find(g, "silu", 0);
            let nodes = &mut layer(g).nodes;
            let edge = nodes.first_edge(silu, petgraph::Direction::Incoming).unwrap();
            nodes.remove_edge(edge);
        }),
        ("mul `product`: operand positions are [0, 0]", |g| {
            let product = find(g, "mul", 0);
            let nodes = &mut layer(g).nodes;
            let edge = nodes.first_edge(product, petgraph::Direction::Incoming).unwrap();
            nodes[edge] = 0;
        }),
        ("circle", |g| {
            let (first, last) = (find(g, "rms_norm", 0), layer(g).output);
            layer(g).nodes.add_edge(last, first, 2);
        }),
        ("should be [T, num_attention_heads = 4, head_dim = 8], is [T, 8]", |g| {
            let rope = find(g, "rope", 0);
            layer(g).nodes[rope].shape.dims = vec![8.into()];
        }),
        ("is not one row a token", |g| {
            let input = find(g, "layer_input", 0);
            layer(g).nodes[input].shape.per_token = false;
        }),
        ("`model.layers.{}.self_attn.q_proj.bias` should be a Vector", |g| {
            let bias = g.weights.iter_mut().find(|w| w.name.ends_with("q_proj.bias")).unwrap();
            bias.role = WeightRole::Matrix;
            bias.shape.push(1.into());
            let weight = find(g, "weight", 2);
            layer(g).nodes[weight].shape.dims.push(1.into());
        }),
        ("weight 99 is not declared", |g| {
            *op(g, "weight", 0) = Op::Weight(WeightId(99))
        }),
        ("its rope is not declared", |g| *op(g, "rope", 0) = Op::Rope(RopeId(9))),
        ("state 9 is not declared", |g| {
            *op(g, "cache_write", 0) = Op::CacheWrite(StateId(9))
        }),
        ("epsilon is NaN", |g| {
            *op(g, "rms_norm", 0) = Op::RmsNorm {
                eps: f32::NAN,
                unit_offset: false,
            }
        }),
        ("its scale is inf", |g| {
            *op(g, "attention", 0) = Op::Attention(AttentionSpec {
                scale: f32::INFINITY,
                window: None,
                softcap: None,
            })
        }),
        ("sees None positions, its state keeps Some(4)", |g| {
            g.states[0].kind = StateKind::Cache { window: Some(4) }
        }),
        ("its state is no cache", |g| g.states[0].kind = StateKind::Recurrent),
        ("keeps no position", |g| {
            g.states[0].kind = StateKind::Cache { window: Some(0) }
        }),
        ("lacks the layer's number", |g| g.states[0].name = "kv".to_string()),
        ("rotates 16 of head_dim = 8 elements", |g| {
            g.ropes[0].inv_freq = vec![1.0; 8]
        }),
        ("`rope` has no frequencies", |g| g.ropes[0].inv_freq.clear()),
        ("nothing uses `model.extra.weight`", |g| {
            let extra = WeightDecl {
                name: "model.extra.weight".to_string(),
                ..g.weights[0].clone()
            };
            g.weights.push(extra);
        }),
        ("nothing writes state", |g| g.states.push(g.states[0].clone())),
        ("is declared twice", |g| g.weights.push(g.weights[0].clone())),
        ("has no elements", |g| g.weights[0].shape[0] = 0.into()),
        ("is no Matrix", |g| g.weights[0].shape.truncate(1)),
        (
            "its output is [T, intermediate_size = 40], but layers hand on [T, hidden_size = 32]",
            |g| layer(g).output = find(g, "mul", 0),
        ),
        ("its output is no value", |g| layer(g).output = find(g, "weight", 0)),
        ("the output is no node", |g| g.entry.output = NodeIndex::new(99)),
        ("its output is [T, hidden_size = 32, 1], not one row a token", |g| {
            let nodes = &mut g.head.nodes;
            let input = NodeIndex::new(0);
            let mut split = nodes[input].clone();
            let heads = split.shape.dims[0];
            split.op = Op::SplitHeads { heads, width: 1.into() };
            split.shape.dims.push(1.into());
            g.head.output = nodes.add_node(split);
            nodes.add_edge(input, g.head.output, 0);
        }),
        ("a layer's weight outside of a layer", |g| g.head = layer(g).clone()),
        ("belongs into another section", |g| {
            let input = g.entry.nodes.node_indices().next().unwrap();
            g.entry.nodes[input].op = Op::LayerInput;
            g.entry.nodes[input].shape = Shape::per_token([1.into()]);
        }),
        ("more than one value enters", |g| {
            let input = find(g, "layer_input", 0);
            let copy = layer(g).nodes[input].clone();
            layer(g).nodes.add_node(copy);
        }),
        ("two templates are called `layer`", |g| {
            g.templates.push(g.templates[0].clone());
            g.layers[1].template = 1;
        }),
        ("silu: should be", |g| {
            let silu = find(g, "silu", 0);
            layer(g).nodes[silu].shape.dims = vec![40.into()];
        }),
        ("its cap is 0", |g| *op(g, "silu", 0) = Op::Softcap(0.0)),
        ("its factor is NaN", |g| *op(g, "silu", 0) = Op::Scale(f32::NAN)),
        ("columns up to 41 of intermediate_size = 40", |g| {
            *op(g, "silu", 0) = Op::Slice {
                start: 1.into(),
                len: 40.into(),
            }
        }),
        ("layer 1 has no template", |g| g.layers[1].template = 7),
        ("layer 0 comes twice", |g| {
            g.layers.push(Layer { template: 0, index: 0 })
        }),
        ("no layer is a `layer`", |g| g.layers.clear()),
        ("there are no layers", |g| {
            g.layers.clear();
            g.templates.clear();
        }),
    ];
    check(graph, cases);
}

/// Without ` (file:line:column)`.
fn without_spans(message: &str) -> String {
    let mut parts = message.split(" (");
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |text, part| match part.split_once(')') {
        Some((span, rest)) if span.contains(".rs:") => text + rest,
        _ => text + " (" + part,
    })
}
