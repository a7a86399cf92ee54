//! The horizontal merge: linear maps of the same input become one map with a stacked weight.
//!
//! It runs on the petgraph section before egg, and only *finds* what belongs together; `encode` then writes
//! the stacked form. Gate and up of a gated unit are interleaved row by row, so that the two that meet in
//! the activation are computed by the same workgroup; others (q/k/v) follow each other.

use std::collections::BTreeMap;

use petgraph::Direction;
use petgraph::graph::NodeIndex;

use crate::graph::{Binary, Op, Section, Unary};
use crate::term::Arrangement;
use crate::weights::WeightFormat;

/// Linear nodes that share their input and are computed as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackedLinears {
    /// In the order of their rows in the stack.
    pub members: Vec<NodeIndex>,
    pub arrangement: Arrangement,
    /// For a gated unit: the multiplication that the stack replaces, and its activation.
    pub gated: Option<(NodeIndex, Unary)>,
}

/// The stacks of a section, and in words what could not be stacked. Matrices without a format are left alone.
pub fn find_stacks(
    section: &Section,
    format_of: impl Fn(NodeIndex) -> Option<WeightFormat>,
) -> (Vec<StackedLinears>, Vec<String>) {
    let mut by_input: BTreeMap<NodeIndex, Vec<NodeIndex>> = BTreeMap::new();
    for node in section.nodes.node_indices() {
        if section.nodes[node].op == Op::Linear && format_of(section.operands(node)[1]).is_some() {
            by_input.entry(section.operands(node)[0]).or_default().push(node);
        }
    }
    let format = |linear: NodeIndex| format_of(section.operands(linear)[1]);
    let alike =
        |a: NodeIndex, b: NodeIndex| format(a) == format(b) && section.operands(a).len() == section.operands(b).len();
    let mut stacks = Vec::new();
    let mut missed = Vec::new();
    for mut linears in by_input.into_values() {
        for pair in gated_pairs(section, &linears) {
            let [gate, up] = pair.members[..] else { continue };
            if alike(gate, up) {
                linears.retain(|linear| !pair.members.contains(linear));
                stacks.push(pair);
            } else {
                missed.push(differ(section, &pair.members, &format));
            }
        }
        if linears.len() > 1 {
            if linears.iter().all(|&other| alike(linears[0], other)) {
                stacks.push(StackedLinears {
                    members: linears,
                    arrangement: Arrangement::Concat,
                    gated: None,
                });
            } else {
                missed.push(differ(section, &linears, &format));
            }
        }
    }
    (stacks, missed)
}

/// `act(gate) * up` where nothing else uses gate, act(gate) or up.
fn gated_pairs(section: &Section, linears: &[NodeIndex]) -> Vec<StackedLinears> {
    // What leaves the section is used outside of it.
    let only_user = |node: NodeIndex| {
        if node == section.output {
            return None;
        }
        let mut users = section.nodes.neighbors_directed(node, Direction::Outgoing);
        users.next().filter(|_| users.next().is_none())
    };
    let mut pairs = Vec::new();
    for &gate in linears {
        let Some(activated) = only_user(gate) else { continue };
        let Op::Unary(activation) = section.nodes[activated].op else {
            continue;
        };
        let Some(product) = only_user(activated) else { continue };
        if section.nodes[product].op != Op::Binary(Binary::Mul) {
            continue;
        }
        let operands = section.operands(product);
        let up = if operands[0] == activated {
            operands[1]
        } else {
            operands[0]
        };
        if up != gate && linears.contains(&up) && only_user(up) == Some(product) {
            pairs.push(StackedLinears {
                members: vec![gate, up],
                arrangement: Arrangement::Interleave,
                gated: Some((product, activation)),
            });
        }
    }
    pairs
}

fn differ(section: &Section, linears: &[NodeIndex], format: &impl Fn(NodeIndex) -> Option<WeightFormat>) -> String {
    let each: Vec<String> = linears
        .iter()
        .map(|&linear| {
            let node = &section.nodes[linear];
            let name = node.name.as_deref().unwrap_or("a linear map");
            let bias = if section.operands(linear).len() > 2 {
                " with bias"
            } else {
                ""
            };
            let stored = format(linear).map_or("unknown".to_string(), |format| format.to_string());
            format!("{name} ({stored}{bias})")
        })
        .collect();
    format!(
        "{} share an input but are stored differently: not stacked",
        each.join(", ")
    )
}
