use std::borrow::Cow;
use std::collections::BTreeMap;

use petgraph::algo::toposort;
use petgraph::graph::NodeIndex;
use thiserror::Error;

use super::ops::{self, AttentionShape};
use super::{WeightError, WeightValues};
use crate::graph::{ModelGraph, Node, Op, Section, StateId, WeightId};

/// Why a graph could not be evaluated.
#[derive(Debug, Error)]
pub enum EvalError {
    #[error("token id {id} is not in the vocabulary of {vocab} tokens")]
    Token { id: u32, vocab: usize },
    #[error("weight {name}: {source}")]
    Weight {
        name: String,
        #[source]
        source: WeightError,
    },
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
    /// The layer's place in [`ModelGraph::layers`]; `None` in prologue and epilogue.
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
    /// By layer and state: its planes, each `[positions, state shape ..]`.
    caches: BTreeMap<(usize, StateId), Vec<Vec<f32>>>,
    position: usize,
}

/// What a node gives to its users.
enum Value {
    Tokens,
    Floats(Vec<f32>),
    /// Fetched where it is used.
    Weight(WeightId),
    /// The layer's own instance of the state.
    Cache(StateId),
}

/// Where a section runs.
struct Place<'p> {
    /// As in [`Traced::layer`].
    layer: Option<usize>,
    ids: &'p [u32],
    /// What [`Op::LayerInput`] stands for.
    input: &'p [f32],
}

/// What a node is computed from.
struct Operands<'v> {
    node: &'v Node,
    operands: Vec<(&'v Node, &'v Value)>,
}

impl<'v> Operands<'v> {
    fn count(&self) -> usize {
        self.operands.len()
    }

    fn get(&self, position: usize) -> Result<(&'v Node, &'v Value), EvalError> {
        let operand = self.operands.get(position);
        operand.copied().ok_or_else(|| broken(self.node, "lacks an operand"))
    }

    fn floats(&self, position: usize) -> Result<&'v [f32], EvalError> {
        match self.get(position)? {
            (_, Value::Floats(values)) => Ok(values),
            _ => Err(broken(self.node, "takes an operand that is no activation")),
        }
    }

    fn weight(&self, position: usize) -> Result<WeightId, EvalError> {
        match self.get(position)? {
            (_, Value::Weight(id)) => Ok(*id),
            _ => Err(broken(self.node, "takes an operand that is no weight")),
        }
    }

    fn cache(&self, position: usize) -> Result<StateId, EvalError> {
        match self.get(position)? {
            (_, Value::Cache(state)) => Ok(*state),
            _ => Err(broken(self.node, "takes an operand that is no cache")),
        }
    }

    /// Size of the operand's last dimension.
    fn columns(&self, position: usize) -> Result<usize, EvalError> {
        match self.get(position)?.0.shape.dims.last() {
            Some(columns) if columns.value() > 0 => Ok(columns.value()),
            _ => Err(broken(self.node, "takes an operand without columns")),
        }
    }
}

type Trace<'t> = &'t mut dyn FnMut(Traced<'_>);

impl<'a> Evaluator<'a> {
    /// At position 0, with empty caches.
    pub fn new(graph: &'a ModelGraph, weights: &'a dyn WeightValues) -> Self {
        Evaluator {
            graph,
            weights,
            caches: BTreeMap::new(),
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
        for ((_, state), planes) in &mut self.caches {
            let entry: usize = graph.states[state.0].shape.iter().map(|dim| dim.value()).product();
            planes
                .iter_mut()
                .for_each(|plane| plane.truncate(self.position * entry));
        }
        let prologue = Place {
            layer: None,
            ids,
            input: &[],
        };
        let mut hidden = self.run(&graph.prologue, &prologue, trace)?;
        for (number, layer) in graph.layers.iter().enumerate() {
            let place = Place {
                layer: Some(number),
                ids,
                input: &hidden,
            };
            hidden = self.run(&graph.templates[layer.template].section, &place, trace)?;
        }
        Ok(hidden)
    }

    /// Logits `[rows, vocab]` of hidden states `[rows, hidden]`.
    fn head(&mut self, hidden: &[f32], trace: Trace) -> Result<Vec<f32>, EvalError> {
        let place = Place {
            layer: None,
            ids: &[],
            input: hidden,
        };
        self.run(&self.graph.epilogue, &place, trace)
    }

    /// Computes the nodes of a section in order; gives its output.
    fn run(&mut self, section: &Section, place: &Place, trace: Trace) -> Result<Vec<f32>, EvalError> {
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
            let value = self.node(node, &operands, place)?;
            if let Value::Floats(values) = &value {
                trace(Traced {
                    layer: place.layer,
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

    fn node(&mut self, node: &Node, operands: &Operands, place: &Place) -> Result<Value, EvalError> {
        let result = match &node.op {
            Op::Tokens => return Ok(Value::Tokens),
            Op::LayerInput => place.input.to_vec(),
            Op::Weight(id) => return Ok(Value::Weight(*id)),
            Op::Gather => {
                let table = self.weight(operands.weight(0)?, place.layer)?;
                let columns = operands.columns(0)?;
                let vocab = table.len() / columns;
                if let Some(&id) = place.ids.iter().find(|&&id| id as usize >= vocab) {
                    return Err(EvalError::Token { id, vocab });
                }
                ops::gather(&table, columns, place.ids)
            }
            Op::Linear => {
                let weight = self.weight(operands.weight(1)?, place.layer)?;
                let bias = match operands.count() {
                    0..=2 => None,
                    _ => Some(self.weight(operands.weight(2)?, place.layer)?),
                };
                ops::linear(operands.floats(0)?, &weight, bias.as_deref(), operands.columns(1)?)
            }
            Op::RmsNorm { eps, unit_offset } => {
                let weight = self.weight(operands.weight(1)?, place.layer)?;
                ops::rms_norm(operands.floats(0)?, &weight, *eps, *unit_offset)
            }
            Op::Unary(function) => {
                let x = operands.floats(0)?.iter();
                x.map(|&x| ops::unary(*function, x)).collect()
            }
            Op::Binary(function) => {
                let pairs = operands.floats(0)?.iter().zip(operands.floats(1)?);
                pairs.map(|(&a, &b)| ops::binary(*function, a, b)).collect()
            }
            Op::Scale(factor) => operands.floats(0)?.iter().map(|x| x * factor).collect(),
            Op::Softcap(cap) => {
                let x = operands.floats(0)?.iter();
                x.map(|&x| ops::softcap(x, *cap)).collect()
            }
            Op::SplitHeads { .. } | Op::MergeHeads => operands.floats(0)?.to_vec(),
            Op::Rope(rope) => {
                let (heads, width) = heads(node)?;
                let spec = &self.graph.ropes[rope.0];
                ops::rope(operands.floats(0)?, heads, width, self.position, spec)
            }
            Op::CacheWrite(state) => {
                let cache = self.caches.entry(cache_key(node, place, *state)?).or_default();
                cache.resize(operands.count(), Vec::new());
                for (plane, values) in cache.iter_mut().enumerate() {
                    values.extend_from_slice(operands.floats(plane)?);
                }
                return Ok(Value::Cache(*state));
            }
            Op::Attention(spec) => {
                let state = operands.cache(1)?;
                let (heads, width) = heads(node)?;
                let shape = AttentionShape {
                    heads,
                    kv_heads: self.graph.states[state.0].shape[0].value(),
                    width,
                };
                let cache = self.caches.get(&cache_key(node, place, state)?);
                let Some([keys, values]) = cache.map(Vec::as_slice) else {
                    return Err(broken(node, "reads a cache that does not hold keys and values"));
                };
                ops::attention(operands.floats(0)?, keys, values, self.position, shape, spec)
            }
            Op::Slice { start, len } => {
                let columns = operands.columns(0)?;
                ops::slice(operands.floats(0)?, columns, start.value(), len.value())
            }
            _ => return Err(broken(node, "is not evaluated yet")),
        };
        Ok(Value::Floats(result))
    }

    fn weight(&self, id: WeightId, layer: Option<usize>) -> Result<Cow<'a, [f32]>, EvalError> {
        let decl = &self.graph.weights[id.0];
        let name = match layer {
            Some(number) => decl.name_in(self.graph.layers[number].index),
            None => decl.name.clone(),
        };
        match self.weights.values(&name) {
            Ok(values) if values.len() as u64 == decl.elements() => Ok(values),
            Ok(values) => Err(EvalError::WeightSize {
                name,
                expected: decl.elements(),
                found: values.len(),
            }),
            Err(source) => Err(EvalError::Weight { name, source }),
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

/// Heads and width of a result `[T, heads, width]`.
fn heads(node: &Node) -> Result<(usize, usize), EvalError> {
    match node.shape.dims.as_slice() {
        [heads, width] => Ok((heads.value(), width.value())),
        _ => Err(broken(node, "is not [T, heads, width]")),
    }
}

fn cache_key(node: &Node, place: &Place, state: StateId) -> Result<(usize, StateId), EvalError> {
    match place.layer {
        Some(layer) => Ok((layer, state)),
        None => Err(broken(node, "uses state outside a layer")),
    }
}

fn broken(node: &Node, what: &'static str) -> EvalError {
    EvalError::Graph {
        node: node.name.clone().unwrap_or_else(|| "without a name".to_string()),
        op: format!("{:?}", node.op),
        what,
    }
}

#[cfg(test)]
mod tests;
