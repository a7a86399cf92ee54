//! The rules of convolutions, recurrent states, mixtures of experts, and weights within others.

use super::*;
use crate::graph::test_models::{attention, mixers};
use crate::graph::{Gate, RouteSpec, RowBlocks, Stored};

#[test]
fn sound_graphs_pass() {
    verify(&attention(None), "test").unwrap();
    verify(&mixers(), "test").unwrap();
}

/// Gives a weight another shape, where it is declared and where it is used.
fn reshape(graph: &mut ModelGraph, name: &str, shape: &[usize]) {
    let id = weight(graph, name);
    let shape: Vec<Dim> = shape.iter().map(|&dim| dim.into()).collect();
    graph.weights[id].shape = shape.clone();
    for node in layer(graph).nodes.node_weights_mut() {
        if node.op == Op::Weight(WeightId(id)) {
            node.shape.dims = shape.clone();
        }
    }
}

fn weight(graph: &ModelGraph, name: &str) -> usize {
    let name = format!("layers.{{}}.{name}");
    graph.weights.iter().position(|weight| weight.name == name).unwrap()
}

fn set_role(graph: &mut ModelGraph, name: &str, role: WeightRole) {
    let id = weight(graph, name);
    graph.weights[id].role = role;
}

fn store(graph: &mut ModelGraph, name: &str, tensor: &str, rows: &[[usize; 4]], transposed: bool) {
    let id = weight(graph, name);
    let block = |&[group, start, len, step]: &[usize; 4]| RowBlocks {
        group,
        start,
        len,
        step,
    };
    graph.weights[id].stored = Stored::Within {
        tensor: tensor.to_string(),
        rows: rows.iter().map(block).collect(),
        transposed,
    };
}

fn change_route(graph: &mut ModelGraph, change: impl FnOnce(&mut RouteSpec)) {
    match op(graph, "route", 0) {
        Op::Route(spec) => change(spec),
        other => panic!("{other:?}"),
    }
}

/// Takes the last operand of a node away.
fn drop_operand(graph: &mut ModelGraph, name: &str) {
    let node = find(graph, name, 0);
    let nodes = &mut layer(graph).nodes;
    let edges = nodes
        .edge_indices()
        .filter(|edge| nodes.edge_endpoints(*edge).unwrap().1 == node);
    let last = edges.max_by_key(|edge| nodes[*edge]).unwrap();
    nodes.remove_edge(last);
}

/// Makes a node take another operand.
fn rewire(graph: &mut ModelGraph, name: &str, position: u8, source: NodeIndex) {
    let node = find(graph, name, 0);
    let nodes = &mut layer(graph).nodes;
    let mut edges = nodes.edge_indices();
    let edge = edges.find(|edge| nodes.edge_endpoints(*edge).unwrap().1 == node && nodes[*edge] == position);
    nodes.remove_edge(edge.unwrap());
    nodes.add_edge(source, node, position);
}

#[test]
fn every_broken_rule_of_states_is_found() {
    let cases: &[Break] = &[
        ("6 channels by [5, 1, 4]", |g| reshape(g, "conv", &[5, 1, 4])),
        ("6 channels by [6, 2, 4]", |g| reshape(g, "conv", &[6, 2, 4])),
        ("`layers.{}.conv` does not have 3 dimensions", |g| {
            reshape(g, "conv", &[6, 4])
        }),
        ("a bias of 4 for 6 channels", |g| reshape(g, "conv_bias", &[4])),
        ("3 taps, its state is for 4", |g| reshape(g, "conv", &[6, 1, 3])),
        ("state `layers.{}.conv` keeps no position", |g| {
            g.states[0].kind = StateKind::Convolution { taps: 1 }
        }),
        ("its state does not hold [6]", |g| g.states[0].shape = vec![5.into()]),
        ("its state is not one of a convolution", |g| {
            g.states[0].kind = StateKind::Recurrent
        }),
        ("its state is written twice", |g| {
            let convolution = find(g, "convolution", 0);
            let operands = layer(g).operands(convolution);
            let nodes = &mut layer(g).nodes;
            let again = nodes.add_node(nodes[convolution].clone());
            for (position, operand) in operands.into_iter().enumerate() {
                nodes.add_edge(operand, again, position as u8);
            }
        }),
        ("state 7 is not declared", |g| {
            *op(g, "convolution", 0) = Op::Convolution(StateId(7))
        }),
        ("its state is not recurrent", |g| {
            g.states[1].kind = StateKind::Cache { window: None }
        }),
        ("its state does not hold [4, 3, 2]", |g| g.states[1].shape.swap(1, 2)),
        ("a_log of 5 for 4 value heads", |g| reshape(g, "a_log", &[5])),
        ("dt_bias of 5 for 4 value heads", |g| reshape(g, "dt_bias", &[5])),
        ("queries [2, 3], keys [4, 2]", |g| {
            let values = find(g, "split_heads", 2);
            rewire(g, "gated_delta", 1, values);
        }),
        ("a of 8 for 4 value heads", |g| {
            let values = find(g, "split_heads", 2);
            let values = layer(g).operands(values)[0];
            rewire(g, "gated_delta", 3, values);
        }),
        (
            "takes [Floats, Floats, Floats, Floats, Floats, Weight, Weight], gets",
            |g| drop_operand(g, "gated_delta"),
        ),
        ("its output is no value", |g| layer(g).output = find(g, "route", 0)),
    ];
    check(mixers, cases);
}

#[test]
fn every_broken_rule_of_mixtures_is_found() {
    let cases: &[Break] = &[
        ("chooses 0 of 5 experts", |g| {
            change_route(g, |spec| spec.experts_per_token = 0)
        }),
        ("chooses 6 of 5 experts", |g| {
            change_route(g, |spec| spec.experts_per_token = 6)
        }),
        ("route: should be [T, 3], is [T, 2]", |g| {
            change_route(g, |spec| spec.experts_per_token = 3)
        }),
        ("its scale is inf", |g| {
            change_route(g, |spec| spec.scale = f32::INFINITY)
        }),
        ("adds -1 to the sum of the weights", |g| {
            change_route(g, |spec| spec.normalize = Some(-1.0))
        }),
        ("its alpha is NaN", |g| {
            *op(g, "experts", 0) = Op::Experts(Gate::Clamped {
                alpha: f32::NAN,
                limit: 7.0,
            })
        }),
        ("its limit is 0", |g| {
            *op(g, "experts", 0) = Op::Experts(Gate::Clamped { alpha: 1.0, limit: 0.0 })
        }),
        ("takes [Floats, Routing, Weight, Weight, Weight], gets", |g| {
            drop_operand(g, "experts")
        }),
        (
            "takes [Floats, Routing, Weight, Weight, Weight, Weight, Weight, Weight], gets",
            |g| {
                let route = find(g, "route", 0);
                let scores = layer(g).operands(route)[0];
                rewire(g, "experts", 1, scores);
            },
        ),
        ("gate is [5, 6, 3], should be [5, 3, 6]", |g| {
            reshape(g, "gate", &[5, 6, 3])
        }),
        ("4 experts, its routing chooses of 5", |g| reshape(g, "up", &[4, 3, 6])),
        ("down is [5, 6, 4], should be [5, 6, 3]", |g| {
            reshape(g, "down", &[5, 6, 4])
        }),
        ("a bias [5, 3], should be [5, 6]", |g| reshape(g, "down_bias", &[5, 3])),
        ("`layers.{}.up_bias` does not have 2 dimensions", |g| {
            reshape(g, "up_bias", &[15])
        }),
        ("`layers.{}.up` should be a Bank", |g| {
            set_role(g, "up", WeightRole::Vector)
        }),
        ("`layers.{}.router` is no Bank", |g| {
            set_role(g, "router", WeightRole::Bank)
        }),
        ("`layers.{}.router` should be a Matrix", |g| {
            set_role(g, "router", WeightRole::Vector)
        }),
    ];
    check(mixers, cases);
}

#[test]
fn every_broken_rule_of_stored_weights_is_found() {
    let fused = |graph: &mut ModelGraph, rows: &[[usize; 4]]| store(graph, "up", "layers.{}.fused", rows, true);
    let mut sound = mixers();
    // Every second row; and two of each seven, then four more of them.
    fused(&mut sound, &[[2, 1, 1, 2]]);
    store(&mut sound, "o", "layers.{}.qkvz", &[[7, 0, 2, 1], [7, 2, 4, 1]], false);
    store(&mut sound, "gate", "layers.{}.experts.{expert}.gate", &[], false);
    store(&mut sound, "down_bias", "layers.{}.fused_bias", &[[12, 6, 6, 1]], false);
    verify(&sound, "test").unwrap();

    let cases: &[Break] = &[
        (
            "cannot be the rows RowBlocks { group: 4, start: 0, len: 3, step: 2 }",
            |g| store(g, "up", "layers.{}.fused", &[[4, 0, 3, 2]], false),
        ),
        (
            "cannot be the rows RowBlocks { group: 4, start: 0, len: 1, step: 0 }",
            |g| store(g, "up", "layers.{}.fused", &[[4, 0, 1, 0]], false),
        ),
        (
            "cannot be the rows RowBlocks { group: 6, start: 3, len: 0, step: 1 }",
            |g| store(g, "up", "layers.{}.fused", &[[6, 3, 0, 1]], false),
        ),
        (
            "cannot be the rows RowBlocks { group: 5, start: 0, len: 1, step: 1 }",
            |g| store(g, "up", "layers.{}.fused", &[[6, 0, 1, 1], [5, 0, 1, 1]], false),
        ),
        ("`layers.{}.up` takes 2 rows of each group of `layers.{}.fused`", |g| {
            store(g, "up", "layers.{}.fused", &[[4, 0, 2, 1]], false)
        }),
        (
            "`layers.{}.up` lies in `fused`: one of them lacks the layer's number",
            |g| store(g, "up", "fused", &[], false),
        ),
        ("`layers.{}.o` is no bank", |g| {
            store(g, "o", "layers.{}.{expert}.o", &[], false)
        }),
        ("`layers.{}.a_log` is a vector", |g| {
            store(g, "a_log", "layers.{}.a", &[], true)
        }),
    ];
    check(mixers, cases);
}

#[test]
fn every_broken_rule_of_activations_is_found() {
    let cases: &[Break] = &[
        ("5 sinks for num_attention_heads = 4 heads", |g| {
            let attention = find(g, "attention", 0);
            let mut sinks = g.weights[0].clone();
            sinks.name = "sinks".to_string();
            sinks.role = WeightRole::Vector;
            sinks.shape = vec![5.into()];
            let mut node = layer(g).nodes[attention].clone();
            node.op = Op::Weight(WeightId(g.weights.len()));
            node.shape = Shape::fixed(sinks.shape.iter().copied());
            g.weights.push(sinks);
            let sinks = layer(g).nodes.add_node(node);
            layer(g).nodes.add_edge(sinks, attention, 2);
        }),
        ("its limit is -1", |g| *op(g, "silu", 0) = Op::Clamp(-1.0)),
        ("intermediate_size = 40 factors for a row", |g| {
            *op(g, "mul", 0) = Op::ScaleRows
        }),
    ];
    check(graph, cases);
}
