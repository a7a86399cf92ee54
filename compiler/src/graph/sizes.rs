//! How large a model's parts may be. Below these sizes, no product of sizes in the compiler or in a kernel overflows; no
//! model is near them, but a damaged config may be beyond.

use super::{Dim, ModelGraph, Op, Span, StateKind, WeightRole};

/// Numbers that a value has for each token, and rows or columns of a matrix.
const MOST_COLUMNS: u64 = 1 << 24;
/// Rows of all experts of a bank, elements of what is no matrix, and of what a recurrence keeps.
const MOST_ROWS: u64 = 1 << 30;
/// Elements of a matrix or a bank.
const MOST_ELEMENTS: u64 = 1 << 36;
/// Positions of a window.
const MOST_POSITIONS: u64 = 1 << 31;

/// What is larger than the compiler works with, and where the author asked for it.
pub fn oversized(graph: &ModelGraph) -> Vec<(Span, String)> {
    let mut found = Vec::new();
    for (_, section) in graph.sections() {
        for node in section.nodes.node_weights() {
            let what = match &node.op {
                Op::Weight(id) => weight(graph, id.0),
                op => (node.shape.per_token)
                    .then(|| over("numbers for each token", &node.shape.dims, MOST_COLUMNS))
                    .flatten()
                    .or_else(|| op.state().and_then(|id| state(graph, id.0)))
                    .or_else(|| window(op)),
            };
            found.extend(what.map(|what| (node.span, format!("{}: {what}", node.op.name()))));
        }
    }
    found
}

fn weight(graph: &ModelGraph, id: usize) -> Option<String> {
    let weight = graph.weights.get(id)?;
    let shape = &weight.shape[..];
    let what = match weight.role {
        WeightRole::Vector => over("elements", shape, MOST_ROWS),
        WeightRole::Matrix | WeightRole::Exact | WeightRole::Bank => {
            let experts = shape.len().saturating_sub(2);
            let sides = shape[experts..]
                .iter()
                .find_map(|side| over("rows or columns", &[*side], MOST_COLUMNS));
            let rows = || over("rows", &shape[..shape.len().saturating_sub(1)], MOST_ROWS);
            sides.or_else(rows).or_else(|| over("elements", shape, MOST_ELEMENTS))
        }
    };
    what.map(|what| format!("`{}`: {what}", weight.name))
}

fn state(graph: &ModelGraph, id: usize) -> Option<String> {
    let state = graph.states.get(id)?;
    match state.kind {
        StateKind::Cache { window } => over("numbers for each position", &state.shape, MOST_COLUMNS)
            .or_else(|| over("positions", &[Dim::constant(window.unwrap_or(1))], MOST_POSITIONS)),
        StateKind::Convolution { taps } => over("numbers for each position", &state.shape, MOST_COLUMNS)
            .or_else(|| over("taps", &[Dim::constant(taps)], MOST_COLUMNS)),
        StateKind::Recurrent => over("elements of state", &state.shape, MOST_ROWS),
    }
}

fn window(op: &Op) -> Option<String> {
    match op {
        Op::Attention(spec) => {
            let window = Dim::constant(spec.window?);
            over("positions in a window", &[window], MOST_POSITIONS)
        }
        _ => None,
    }
}

fn over(what: &str, dims: &[Dim], most: u64) -> Option<String> {
    let product = dims
        .iter()
        .fold(1, |product: u64, dim| product.saturating_mul(dim.value() as u64));
    (product > most).then(|| {
        let dims: Vec<String> = dims.iter().map(|dim| format!("{dim:?}")).collect();
        format!(
            "{} {what} are more than the {most} that can be compiled",
            dims.join(" × ")
        )
    })
}
