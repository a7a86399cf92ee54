//! Mixtures of experts, convolutions and recurrences as terms.

use egg::Id;
use petgraph::graph::NodeIndex;

use super::Encoder;
use crate::graph::{Gate, Op, StateId, WeightId};
use crate::rewrite::MoePlan;
use crate::term::{Arrangement, BankLeaf, LeafDef, MatrixLeaf, Term};

impl Encoder<'_> {
    /// An operand that may be absent.
    pub(super) fn optional(&mut self, operand: Option<&NodeIndex>) -> Id {
        match operand {
            Some(operand) => self.ids[operand],
            None => self.leaf(LeafDef::Nothing),
        }
    }

    pub(super) fn convolution(&mut self, id: StateId, operands: &[NodeIndex]) -> Id {
        let channels = self.width(operands[0]) as u32;
        let taps = self.dim(operands[1], 2) as u32;
        let state = self.leaf(LeafDef::Taps { id, channels, taps });
        let bias = self.optional(operands.get(2));
        let nothing = self.leaf(LeafDef::Nothing);
        let (x, w) = (self.ids[&operands[0]], self.ids[&operands[1]]);
        let term = Term::Convolution([state, w, bias, nothing, x, nothing, nothing]);
        self.expr.add(term)
    }

    pub(super) fn gated_delta(&mut self, id: StateId, operands: &[NodeIndex]) -> Id {
        let shape = &self.graph.states[id.0].shape;
        let state = self.leaf(LeafDef::Delta {
            id,
            heads: shape[0].value() as u32,
            key_dim: shape[1].value() as u32,
            value_dim: shape[2].value() as u32,
        });
        let parameters = self.weight(&self.weights_of(&operands[5..7]), Arrangement::Concat);
        let [q, k, v, a, b] = std::array::from_fn(|index| self.ids[&operands[index]]);
        self.expr.add(Term::GatedDelta([state, q, k, v, a, b, parameters]))
    }

    pub(super) fn experts(&mut self, gate: Gate, operands: &[NodeIndex]) -> Id {
        let (x, routing) = (self.ids[&operands[0]], self.ids[&operands[1]]);
        let experts = self.dim(operands[2], 0) as u32;
        let k = self.dim(operands[1], 0) as u32;
        let mixture = self.leaf(LeafDef::Mixture { experts, k, gate });
        let up = self.bank(&operands[2..4], experts);
        let down = self.bank(&operands[4..5], experts);
        let (up_bias, down_bias) = match operands.get(5..8) {
            Some(biases) => (
                self.weight(&self.weights_of(&biases[..2]), Arrangement::Interleave),
                self.weight(&self.weights_of(&biases[2..]), Arrangement::Concat),
            ),
            None => {
                let nothing = self.leaf(LeafDef::Nothing);
                (nothing, nothing)
            }
        };
        let store = self.expr.add(Term::Store);
        match self.plan {
            None => self
                .expr
                .add(Term::Experts([mixture, x, routing, up, up_bias, down, down_bias])),
            Some(MoePlan::Gather) => {
                let direct = self.expr.add(Term::Direct([x]));
                let slots = self.expr.add(Term::ExpertUp([mixture, routing, direct, up, up_bias]));
                self.expr
                    .add(Term::ExpertDown([mixture, routing, slots, down, down_bias, store]))
            }
            Some(MoePlan::Grouped) => {
                let groups = self.expr.add(Term::Group([mixture, routing]));
                let sorted = self.expr.add(Term::GroupedUp([mixture, groups, x, up, up_bias]));
                let each = self
                    .expr
                    .add(Term::GroupedDown([mixture, groups, sorted, down, down_bias]));
                self.expr.add(Term::Combine([mixture, routing, each, store]))
            }
            Some(MoePlan::Dense) => {
                let all = self.expr.add(Term::DenseUp([mixture, x, up, up_bias]));
                self.expr
                    .add(Term::DenseDown([mixture, routing, all, down, down_bias, store]))
            }
        }
    }

    fn bank(&mut self, parts: &[NodeIndex], experts: u32) -> Id {
        let shape = &self.section.nodes[parts[0]].shape.dims;
        let (rows, cols) = (shape[1].value() as u32, shape[2].value() as u32);
        let parts = self.weights_of(parts);
        let arrangement = match parts.len() {
            1 => Arrangement::Concat,
            _ => Arrangement::Interleave,
        };
        let matrix = MatrixLeaf {
            rows: experts * rows * parts.len() as u32,
            cols,
            format: self.formats[&parts[0]],
            arrangement,
            parts,
        };
        self.leaf(LeafDef::Bank(BankLeaf { matrix, experts }))
    }

    /// The weights that these nodes stand for.
    pub(super) fn weights_of(&self, nodes: &[NodeIndex]) -> Vec<WeightId> {
        let weight = |node: &NodeIndex| match self.section.nodes[*node].op {
            Op::Weight(id) => Some(id),
            _ => None,
        };
        nodes.iter().filter_map(weight).collect()
    }
}
