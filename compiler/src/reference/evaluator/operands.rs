//! What nodes hand to each other.

use super::EvalError;
use crate::graph::{Node, StateId, WeightId};
use crate::reference::ops::Choice;

/// What a node gives to its users.
pub(super) enum Value {
    Tokens,
    Floats(Vec<f32>),
    /// The choices of each token.
    Routing(Vec<Vec<Choice>>),
    /// Fetched where it is used.
    Weight(WeightId),
    /// The layer's own instance of the state.
    Cache(StateId),
}

/// What a node is computed from.
pub(super) struct Operands<'v> {
    pub(super) node: &'v Node,
    pub(super) operands: Vec<(&'v Node, &'v Value)>,
}

impl<'v> Operands<'v> {
    fn get(&self, position: usize) -> Result<(&'v Node, &'v Value), EvalError> {
        let operand = self.operands.get(position);
        operand.copied().ok_or_else(|| self.broken("lacks an operand"))
    }

    pub(super) fn count(&self) -> usize {
        self.operands.len()
    }

    pub(super) fn floats(&self, position: usize) -> Result<&'v [f32], EvalError> {
        match self.get(position)? {
            (_, Value::Floats(values)) => Ok(values),
            _ => Err(self.broken("takes an operand that is no activation")),
        }
    }

    pub(super) fn routing(&self, position: usize) -> Result<&'v [Vec<Choice>], EvalError> {
        match self.get(position)? {
            (_, Value::Routing(choices)) => Ok(choices),
            _ => Err(self.broken("takes an operand that is no routing")),
        }
    }

    pub(super) fn weight(&self, position: usize) -> Result<WeightId, EvalError> {
        match self.get(position)? {
            (_, Value::Weight(id)) => Ok(*id),
            _ => Err(self.broken("takes an operand that is no weight")),
        }
    }

    /// As [`weight`](Self::weight); `None` where there are fewer operands.
    pub(super) fn optional_weight(&self, position: usize) -> Result<Option<WeightId>, EvalError> {
        if position < self.count() {
            self.weight(position).map(Some)
        } else {
            Ok(None)
        }
    }

    pub(super) fn cache(&self, position: usize) -> Result<StateId, EvalError> {
        match self.get(position)? {
            (_, Value::Cache(state)) => Ok(*state),
            _ => Err(self.broken("takes an operand that is no cache")),
        }
    }

    /// Size of the operand's last dimension.
    pub(super) fn columns(&self, position: usize) -> Result<usize, EvalError> {
        match self.get(position)?.0.shape.dims.last() {
            Some(columns) if columns.value() > 0 => Ok(columns.value()),
            _ => Err(self.broken("takes an operand without columns")),
        }
    }

    /// Heads and width of an operand `[T, heads, width]`.
    pub(super) fn heads(&self, position: usize) -> Result<(usize, usize), EvalError> {
        heads(self.get(position)?.0)
    }

    pub(super) fn broken(&self, what: &'static str) -> EvalError {
        broken(self.node, what)
    }
}

/// Heads and width of a result `[T, heads, width]`.
pub(super) fn heads(node: &Node) -> Result<(usize, usize), EvalError> {
    match node.shape.dims.as_slice() {
        [heads, width] if heads.value() > 0 && width.value() > 0 => Ok((heads.value(), width.value())),
        _ => Err(broken(node, "is not [T, heads, width]")),
    }
}

pub(super) fn broken(node: &Node, what: &'static str) -> EvalError {
    EvalError::Graph {
        node: node.name.clone().unwrap_or_else(|| "without a name".to_string()),
        op: format!("{:?}", node.op),
        what,
    }
}
