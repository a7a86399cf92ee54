mod node;
mod operands;
mod weights;

use std::collections::BTreeMap;

use petgraph::algo::toposort;
use petgraph::graph::NodeIndex;
use thiserror::Error;

use self::operands::{Operands, Value, broken};
use super::{WeightError, WeightValues};
use crate::graph::{ModelGraph, Node, Section, StateId};

/// Why a graph could not be evaluated.
#[derive(Debug, Error)]
pub enum EvalError {
    #[error("token id {id} is not in the vocabulary of {vocab} tokens")]
    Token { id: u32, vocab: usize },
    #[error("weight {name}: {cause}")]
    Weight { name: String, cause: WeightError },
    #[error("weight {name}: expected {expected} elements, found {found}")]
    WeightSize { name: String, expected: u64, found: usize },
    /// The graph breaks a rule that its verification should have caught.
    #[error("node {node} ({op}): {what}")]
    Graph {
        node: String,
        op: String,
        what: &'static str,
    },
    #[error("logit {value} of token {id}: the weights overflow f32 or are damaged")]
    NotFinite { id: usize, value: f32 },
}

/// A computed node, as [`Evaluator::feed_traced`] shows it.
#[derive(Clone, Copy, Debug)]
pub struct Traced<'t> {
    /// The layer's place in [`ModelGraph::layers`]; `None` in entry and head.
    pub layer: Option<usize>,
    pub node: &'t Node,
    /// Whether it is what leaves its section.
    pub is_output: bool,
    /// `[T, ..]`, row-major.
    pub values: &'t [f32],
}

/// Runs a graph over a growing sequence of tokens, all states kept for all positions.
pub struct Evaluator<'a> {
    graph: &'a ModelGraph,
    weights: &'a dyn WeightValues,
    /// By layer and state: its planes, each `[positions, state shape ..]`: keys and values, what came into a
    /// convolution, or a recurrent state as it was after each position, so that all can be rewound alike.
    states: BTreeMap<(usize, StateId), Vec<Vec<f32>>>,
    position: usize,
}

/// What a section is computed from, besides weights and states.
struct SectionInput<'p> {
    /// As in [`Traced::layer`].
    layer: Option<usize>,
    ids: &'p [u32],
    /// What [`Op::LayerInput`] stands for.
    hidden: &'p [f32],
}

type Trace<'t> = &'t mut dyn FnMut(Traced<'_>);

impl<'a> Evaluator<'a> {
    /// At position 0, with empty states.
    pub fn new(graph: &'a ModelGraph, weights: &'a dyn WeightValues) -> Self {
        Evaluator {
            graph,
            weights,
            states: BTreeMap::new(),
            position: 0,
        }
    }

    /// How many tokens it has seen.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Forgets all tokens from `position` on.
    pub fn rewind(&mut self, position: usize) {
        self.position = self.position.min(position);
    }

    /// Appends `ids` to the sequence and gives the logits `[vocab]` after each of them.
    ///
    /// # Errors
    /// See [`EvalError`]; the sequence is then as long as before.
    pub fn feed(&mut self, ids: &[u32]) -> Result<Vec<Vec<f32>>, EvalError> {
        self.feed_traced(ids, &mut |_| {})
    }

    /// As [`feed`](Self::feed), and shows each value as it is computed.
    ///
    /// # Errors
    /// As [`feed`](Self::feed).
    pub fn feed_traced(&mut self, ids: &[u32], trace: Trace) -> Result<Vec<Vec<f32>>, EvalError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let hidden = self.hidden(ids, trace)?;
        let logits = self.head(&hidden, trace)?;
        self.position += ids.len();
        Ok(logits.chunks(logits.len() / ids.len()).map(<[f32]>::to_vec).collect())
    }

    /// As [`feed`](Self::feed), but computes only the logits after the last token; empty for no ids.
    ///
    /// # Errors
    /// As [`feed`](Self::feed).
    pub fn feed_last(&mut self, ids: &[u32]) -> Result<Vec<f32>, EvalError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let trace: Trace = &mut |_| {};
        let hidden = self.hidden(ids, trace)?;
        let last = &hidden[hidden.len() / ids.len() * (ids.len() - 1)..];
        let logits = self.head(last, trace)?;
        self.position += ids.len();
        Ok(logits)
    }

    /// The ids that greedy decoding appends after `ids`, which are fed first: `count` of them.
    ///
    /// # Errors
    /// As [`feed`](Self::feed).
    pub fn greedy(&mut self, ids: &[u32], count: usize) -> Result<Vec<u32>, EvalError> {
        let mut generated = Vec::with_capacity(count);
        let mut logits = self.feed_last(ids)?;
        while generated.len() < count {
            let next = largest(&logits);
            generated.push(next);
            if generated.len() < count {
                logits = self.feed_last(&[next])?;
            }
        }
        Ok(generated)
    }

    /// Hidden states `[T, hidden]` after the last layer.
    fn hidden(&mut self, ids: &[u32], trace: Trace) -> Result<Vec<f32>, EvalError> {
        let graph = self.graph;
        // What a rewind or a failed step left behind.
        for ((_, state), planes) in &mut self.states {
            let elements: usize = graph.states[state.0].shape.iter().map(|dim| dim.value()).product();
            planes
                .iter_mut()
                .for_each(|plane| plane.truncate(self.position * elements));
        }
        let entry = SectionInput {
            layer: None,
            ids,
            hidden: &[],
        };
        let mut hidden = self.run(&graph.entry, &entry, trace)?;
        for (number, layer) in graph.layers.iter().enumerate() {
            let input = SectionInput {
                layer: Some(number),
                ids,
                hidden: &hidden,
            };
            hidden = self.run(&graph.templates[layer.template].section, &input, trace)?;
        }
        Ok(hidden)
    }

    /// Logits `[rows, vocab]` of hidden states `[rows, hidden]`.
    fn head(&mut self, hidden: &[f32], trace: Trace) -> Result<Vec<f32>, EvalError> {
        let input = SectionInput {
            layer: None,
            ids: &[],
            hidden,
        };
        self.run(&self.graph.head, &input, trace)
    }

    /// Computes the nodes of a section in order; gives its output.
    fn run(&mut self, section: &Section, input: &SectionInput, trace: Trace) -> Result<Vec<f32>, EvalError> {
        let order = toposort(&section.nodes, None)
            .map_err(|cycle| broken(&section.nodes[cycle.node_id()], "lies on a cycle"))?;
        let mut values: BTreeMap<NodeIndex, Value> = BTreeMap::new();
        for index in order {
            let node = &section.nodes[index];
            let operands = section.operands(index);
            let operands = Operands {
                node,
                operands: operands.iter().map(|o| (&section.nodes[*o], &values[o])).collect(),
            };
            let value = self.node(&operands, input)?;
            if let Value::Floats(values) = &value {
                trace(Traced {
                    layer: input.layer,
                    node,
                    is_output: index == section.output,
                    values,
                });
            }
            values.insert(index, value);
        }
        match values.remove(&section.output) {
            Some(Value::Floats(output)) => Ok(output),
            _ => Err(broken(
                &section.nodes[section.output],
                "leaves its section, but is no activation",
            )),
        }
    }
}

/// The index of the largest logit, the first of equals; 0 without logits.
pub(super) fn largest(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests;
