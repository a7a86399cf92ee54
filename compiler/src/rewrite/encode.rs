//! From a section of the graph to a term.

mod mixture;

use std::collections::BTreeMap;

use egg::{Id, Language, RecExpr};
use petgraph::algo::toposort;
use petgraph::graph::NodeIndex;

use super::MoePlan;
use super::horizontal::StackedLinears;
use crate::graph::{Binary, ModelGraph, Op, Section, WeightId};
use crate::term::{Arrangement, LeafDef, Leaves, MatrixLeaf, Term};
use crate::weights::WeightFormat;

/// The stored format of each weight matrix in the section.
pub type Formats = BTreeMap<WeightId, WeightFormat>;

/// A section as a term; the last node is the output. With `plan`, mixtures of experts are written as the kernels of that
/// plan.
pub fn encode(
    graph: &ModelGraph,
    section: &Section,
    formats: &Formats,
    stacks: &[StackedLinears],
    plan: Option<MoePlan>,
) -> (RecExpr<Term>, Leaves) {
    let order = toposort(&section.nodes, None).expect("a verified section has no cycle");
    let mut encoder = Encoder {
        graph,
        section,
        formats,
        stacks,
        plan,
        expr: RecExpr::default(),
        leaves: Leaves::default(),
        ids: BTreeMap::new(),
        stacked: BTreeMap::new(),
    };
    // Only what the output needs, operands first.
    let needed = needed(section);
    for node in order.into_iter().filter(|node| needed.contains(node)) {
        let id = encoder.node(node);
        encoder.ids.insert(node, id);
    }
    let root = encoder.ids[&section.output];
    let expr = encoder.expr;
    // `RecExpr`'s root is its last node.
    let rooted = expr[root].build_recexpr(|id| expr[id].clone());
    (rooted, encoder.leaves)
}

fn needed(section: &Section) -> std::collections::BTreeSet<NodeIndex> {
    let mut needed = std::collections::BTreeSet::new();
    let mut pending = vec![section.output];
    while let Some(node) = pending.pop() {
        if needed.insert(node) {
            pending.extend(section.operands(node));
        }
    }
    needed
}

struct Encoder<'a> {
    graph: &'a ModelGraph,
    section: &'a Section,
    formats: &'a Formats,
    stacks: &'a [StackedLinears],
    plan: Option<MoePlan>,
    expr: RecExpr<Term>,
    leaves: Leaves,
    ids: BTreeMap<NodeIndex, Id>,
    /// The product of each stack, once written.
    stacked: BTreeMap<usize, Id>,
}

impl Encoder<'_> {
    fn leaf(&mut self, def: LeafDef) -> Id {
        let leaf = self.leaves.add(def);
        self.expr.add(Term::Leaf(leaf))
    }

    fn number(&mut self, value: f32) -> Id {
        self.leaf(LeafDef::Number(value))
    }

    fn count(&mut self, value: usize) -> Id {
        self.leaf(LeafDef::Count(value as u32))
    }

    /// Dimension `index` of a node, counted without the tokens.
    fn dim(&self, node: NodeIndex, index: usize) -> usize {
        self.section.nodes[node].shape.dims[index].value()
    }

    fn width(&self, node: NodeIndex) -> usize {
        self.section.nodes[node]
            .shape
            .dims
            .iter()
            .map(|dim| dim.value())
            .product()
    }

    fn node(&mut self, node: NodeIndex) -> Id {
        let operands = self.section.operands(node);
        let at = |encoder: &Self, index: usize| encoder.ids[&operands[index]];
        match self.section.nodes[node].op.clone() {
            Op::Tokens => self.leaf(LeafDef::Tokens),
            Op::LayerInput => {
                let width = self.width(node) as u32;
                self.leaf(LeafDef::Input { width })
            }
            Op::Weight(id) => self.weight(&[id], Arrangement::Concat),
            Op::Gather => {
                let term = Term::Gather([at(self, 0), at(self, 1)]);
                self.expr.add(term)
            }
            Op::Linear => self.linear(node, &operands),
            Op::RmsNorm { eps, unit_offset } => self.norm(node, &operands, eps, unit_offset),
            Op::Unary(kind) => {
                let kind = self.leaf(LeafDef::Activation(kind));
                let term = Term::Unary([kind, at(self, 0)]);
                self.expr.add(term)
            }
            Op::Binary(kind) => self.binary(node, kind, &operands),
            Op::Scale(factor) => {
                let factor = self.number(factor);
                let term = Term::Scale([factor, at(self, 0)]);
                self.expr.add(term)
            }
            Op::Softcap(cap) => {
                let cap = self.number(cap);
                let term = Term::Softcap([cap, at(self, 0)]);
                self.expr.add(term)
            }
            Op::SplitHeads { .. } | Op::MergeHeads => at(self, 0),
            Op::Rope(rope) => {
                let rope = self.leaf(LeafDef::Rope(rope));
                let heads = self.count(self.dim(node, 0));
                let term = Term::Rope([rope, heads, at(self, 0)]);
                self.expr.add(term)
            }
            Op::CacheWrite(id) => {
                let shape = &self.graph.states[id.0].shape;
                let (kv_heads, width) = (shape[0].value() as u32, shape[1].value() as u32);
                let state = self.leaf(LeafDef::State { id, kv_heads, width });
                let term = Term::CacheWrite([state, at(self, 0), at(self, 1)]);
                self.expr.add(term)
            }
            Op::Attention(spec) => {
                let heads = self.dim(node, 0) as u32;
                let kv_heads = self.dim(operands[1], 0) as u32;
                let spec = self.leaf(LeafDef::Attention { spec, heads, kv_heads });
                let sinks = self.optional(operands.get(2));
                let term = Term::Attention([spec, at(self, 0), at(self, 1), sinks]);
                self.expr.add(term)
            }
            Op::Slice { start, len } => {
                let (start, len) = (self.count(start.value()), self.count(len.value()));
                let term = Term::Slice([start, len, at(self, 0)]);
                self.expr.add(term)
            }
            Op::Clamp(limit) => {
                let limit = self.number(limit);
                let term = Term::Clamp([limit, at(self, 0)]);
                self.expr.add(term)
            }
            Op::ScaleRows => {
                let term = Term::ScaleRows([at(self, 0), at(self, 1)]);
                self.expr.add(term)
            }
            Op::Convolution(id) => self.convolution(id, &operands),
            Op::GatedDelta(id) => self.gated_delta(id, &operands),
            Op::Route(spec) => {
                let experts = self.dim(operands[0], 0) as u32;
                let spec = self.leaf(LeafDef::Route { spec, experts });
                let bias = self.optional(operands.get(1));
                let term = Term::Route([spec, at(self, 0), bias]);
                self.expr.add(term)
            }
            Op::Experts(gate) => self.experts(gate, &operands),
        }
    }

    fn weight(&mut self, parts: &[WeightId], arrangement: Arrangement) -> Id {
        let shapes: Vec<Vec<u32>> = parts
            .iter()
            .map(|part| {
                self.graph.weights[part.0]
                    .shape
                    .iter()
                    .map(|dim| dim.value() as u32)
                    .collect()
            })
            .collect();
        let elements = parts.iter().map(|part| self.graph.weights[part.0].elements() as u32);
        let len = elements.sum();
        let def = match self.formats.get(&parts[0]) {
            Some(&format) => LeafDef::Matrix(MatrixLeaf {
                parts: parts.to_vec(),
                arrangement,
                rows: shapes.iter().map(|shape| shape[0]).sum(),
                cols: shapes[0][1],
                format,
            }),
            None => LeafDef::Vector {
                parts: parts.to_vec(),
                len,
            },
        };
        self.leaf(def)
    }

    fn linear(&mut self, node: NodeIndex, operands: &[NodeIndex]) -> Id {
        let Some(index) = self.stacks.iter().position(|stack| stack.members.contains(&node)) else {
            let (x, w) = (self.ids[&operands[0]], self.ids[&operands[1]]);
            let term = match operands.get(2) {
                Some(bias) => Term::LinearBias([w, x, self.ids[bias]]),
                None => Term::Linear([w, x]),
            };
            return self.expr.add(term);
        };
        let product = self.stack(index);
        let stack = &self.stacks[index];
        if stack.gated.is_some() {
            // Its only use is the gated product, which takes the whole stack.
            return product;
        }
        let before = stack.members.iter().take_while(|&&member| member != node);
        let start = before.map(|&member| self.width(member)).sum();
        let (start, len) = (self.count(start), self.count(self.width(node)));
        self.expr.add(Term::Slice([start, len, product]))
    }

    /// The linear map of a whole stack.
    fn stack(&mut self, index: usize) -> Id {
        if let Some(&known) = self.stacked.get(&index) {
            return known;
        }
        let stack = &self.stacks[index];
        let operands: Vec<Vec<NodeIndex>> = stack
            .members
            .iter()
            .map(|&member| self.section.operands(member))
            .collect();
        let part = |position: usize| {
            let nodes: Vec<NodeIndex> = operands.iter().map(|of_member| of_member[position]).collect();
            self.weights_of(&nodes)
        };
        let weights = part(1);
        let biases = (operands[0].len() > 2).then(|| part(2));
        let x = self.ids[&operands[0][0]];
        let w = self.weight(&weights, stack.arrangement);
        let term = match biases {
            Some(biases) => Term::LinearBias([w, x, self.weight(&biases, stack.arrangement)]),
            None => Term::Linear([w, x]),
        };
        let id = self.expr.add(term);
        self.stacked.insert(index, id);
        id
    }

    fn norm(&mut self, node: NodeIndex, operands: &[NodeIndex], eps: f32, unit_offset: bool) -> Id {
        let (x, g) = (self.ids[&operands[0]], self.ids[&operands[1]]);
        let eps = self.number(eps);
        let unit_offset = self.leaf(LeafDef::Flag(unit_offset));
        let heads = self.section.nodes[node].shape.dims.len() > 1;
        let term = if heads {
            let heads = self.count(self.dim(node, 0));
            Term::HeadNorm([x, g, eps, unit_offset, heads])
        } else {
            Term::RmsNorm([x, g, eps, unit_offset])
        };
        self.expr.add(term)
    }

    fn binary(&mut self, node: NodeIndex, kind: Binary, operands: &[NodeIndex]) -> Id {
        let gated = self
            .stacks
            .iter()
            .enumerate()
            .find_map(|(index, stack)| match stack.gated {
                Some((product, activation)) if product == node => Some((index, activation)),
                _ => None,
            });
        if let Some((index, activation)) = gated {
            let activation = self.leaf(LeafDef::Activation(activation));
            let product = self.stack(index);
            return self.expr.add(Term::Glu([activation, product]));
        }
        let pair = [self.ids[&operands[0]], self.ids[&operands[1]]];
        self.expr.add(match kind {
            Binary::Add => Term::Add(pair),
            Binary::Sub => Term::Sub(pair),
            Binary::Mul => Term::Mul(pair),
        })
    }
}
