//! How the evaluator gets at weights and states.

use std::borrow::Cow;

use super::operands::Operands;
use super::{EvalError, Evaluator, SectionInput};
use crate::graph::{StateId, WeightDecl, WeightId};

impl<'a> Evaluator<'a> {
    /// All elements of a weight.
    pub(super) fn weight(&self, id: WeightId, layer: Option<usize>) -> Result<Cow<'a, [f32]>, EvalError> {
        let decl = &self.graph.weights[id.0];
        let name = self.name(decl, layer);
        match self.weights.values(&name) {
            Ok(values) if values.len() as u64 == decl.elements() => Ok(values),
            Ok(values) => Err(EvalError::WeightSize {
                name,
                expected: decl.elements(),
                found: values.len(),
            }),
            Err(cause) => Err(EvalError::Weight { name, cause }),
        }
    }

    /// The weight that is operand `position`, if there are so many operands.
    pub(super) fn optional(
        &self,
        operands: &Operands,
        position: usize,
        input: &SectionInput,
    ) -> Result<Option<Cow<'a, [f32]>>, EvalError> {
        let id = operands.optional_weight(position)?;
        id.map(|id| self.weight(id, input.layer)).transpose()
    }

    /// What a weight `[experts, ..]` holds for one of the experts.
    pub(super) fn of_expert(
        &self,
        id: WeightId,
        expert: usize,
        layer: Option<usize>,
    ) -> Result<Cow<'a, [f32]>, EvalError> {
        let decl = &self.graph.weights[id.0];
        let sizes: Vec<usize> = decl.shape.iter().skip(1).map(|dim| dim.value()).collect();
        let elements: usize = sizes.iter().product();
        let columns = sizes.last().copied().unwrap_or(1);
        let rows = elements / columns;
        let name = self.name(decl, layer);
        match self.weights.rows(&name, expert * rows..(expert + 1) * rows, columns) {
            Ok(values) if values.len() == elements => Ok(values),
            Ok(values) => Err(EvalError::WeightSize {
                name,
                expected: elements as u64,
                found: values.len(),
            }),
            Err(cause) => Err(EvalError::Weight { name, cause }),
        }
    }

    fn name(&self, decl: &WeightDecl, layer: Option<usize>) -> String {
        match layer {
            Some(number) => decl.name_in(self.graph.layers[number].index),
            None => decl.name.clone(),
        }
    }

    /// The planes of a state in the layer that the node stands in.
    pub(super) fn state(
        &mut self,
        operands: &Operands,
        state: StateId,
        input: &SectionInput,
    ) -> Result<&mut Vec<Vec<f32>>, EvalError> {
        match input.layer {
            Some(layer) => Ok(self.states.entry((layer, state)).or_default()),
            None => Err(operands.broken("uses state outside a layer")),
        }
    }

    /// As [`state`](Self::state), for a state that has one plane.
    pub(super) fn one_plane(
        &mut self,
        operands: &Operands,
        state: StateId,
        input: &SectionInput,
    ) -> Result<&mut Vec<f32>, EvalError> {
        let planes = self.state(operands, state, input)?;
        planes.resize(1, Vec::new());
        Ok(&mut planes[0])
    }
}
