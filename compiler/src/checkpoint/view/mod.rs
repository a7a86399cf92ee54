//! A checkpoint's tensors as the weights that a definition declares.
//!
//! Checkpoints hold one tensor for each expert, gate and up projections in one tensor, matrices by columns. Behind
//! [`View`] there are only weights: by their declared names and shapes, banks of rank 3.

mod place;
mod read;
mod rows;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use super::naming::Named;
use super::validate::tensor_problems;
use super::{CheckpointError, ExpectedTensor, TensorInfo, TensorProblem, TensorSource};
use crate::graph::DeclaredWeight;
use place::Place;

/// The declared weights as tensors, read from the tensors of a checkpoint when they are asked for.
///
/// A tensor of a weight's own name and shape is taken as it is, however the weight is declared to be stored; and
/// where one tensor for each expert is declared (`experts.{expert}.up_proj`), one for all of them
/// (`experts.up_proj`).
pub struct View<'a> {
    source: Named<'a>,
    weights: BTreeMap<String, Seen>,
}

struct Seen {
    info: TensorInfo,
    place: Place,
}

impl<'a> View<'a> {
    /// Finds every declared weight in `source`, and checks that `source` holds nothing else.
    ///
    /// # Errors
    /// [`CheckpointError::Tensors`] with every tensor that is missing, misshapen, surplus or of a type that cannot be
    /// read, in terms of the checkpoint's own tensors.
    pub fn new(source: &'a dyn TensorSource, declared: &[DeclaredWeight]) -> Result<Self, CheckpointError> {
        View::of(Named::plainly(source), declared)
    }

    pub(super) fn of(named: Named<'a>, declared: &[DeclaredWeight]) -> Result<Self, CheckpointError> {
        let source: &dyn TensorSource = &named;
        let count = source.names().len();
        let find = |weight| Place::find(source, count, weight);
        let places: Vec<Place> = declared.iter().map(find).collect();
        let expected: Vec<ExpectedTensor> = places.iter().flat_map(|place| place.expected(source)).collect();
        let mut problems = tensor_problems(source, &expected);
        let mut weights = BTreeMap::new();
        for (weight, place) in declared.iter().zip(places) {
            let Some(first) = place.tensors().first().and_then(|name| source.info(name)) else {
                continue;
            };
            problems.extend(unreadable_parts(source, &place, first));
            let elements = weight
                .shape
                .iter()
                .try_fold(1, |elements: usize, &dim| elements.checked_mul(dim));
            let info = TensorInfo {
                shape: weight.shape.clone(),
                source: first.source,
                bytes: elements.and_then(|elements| first.source.bytes(elements)).unwrap_or(0) as u64,
                file: first.file.clone(),
            };
            weights.insert(weight.name.clone(), Seen { info, place });
        }
        if problems.is_empty() {
            Ok(View { source: named, weights })
        } else {
            Err(CheckpointError::Tensors(problems))
        }
    }
}

/// Tensors that cannot be read as parts of one weight: of another type than the first, or blocks where elements are
/// needed one by one.
fn unreadable_parts(source: &dyn TensorSource, place: &Place, first: &TensorInfo) -> Vec<TensorProblem> {
    let in_blocks = first.source.block().is_some_and(|(elements, _)| elements > 1);
    let parts = place
        .tensors()
        .iter()
        .filter_map(|name| Some((name, source.info(name)?)));
    parts
        .filter_map(|(name, info)| {
            let (name, source_type) = (name.clone(), info.source);
            if source_type != first.source {
                let others = first.source;
                return Some(TensorProblem::UnlikeExpert {
                    name,
                    source_type,
                    others,
                });
            }
            (in_blocks && place.reads_elements()).then(|| TensorProblem::UnreadableType {
                name,
                source_type,
                file: info.file.clone(),
            })
        })
        .collect()
}

impl TensorSource for View<'_> {
    fn names(&self) -> Vec<String> {
        self.weights.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.weights.get(name).map(|weight| &weight.info)
    }

    fn read_rows(&self, name: &str, rows: Range<usize>) -> Result<Cow<'_, [u8]>, CheckpointError> {
        let weight = self
            .weights
            .get(name)
            .ok_or_else(|| CheckpointError::NoTensor { name: name.to_string() })?;
        let total = weight.info.matrix().0;
        if rows.end > total || rows.start > rows.end {
            return Err(CheckpointError::NoRows {
                name: name.to_string(),
                wanted: rows,
                rows: total,
            });
        }
        match &weight.place {
            Place::Own(tensor) => self.source.read_rows(&tensor.name, rows),
            Place::Within(within) => read::rows(&self.source, within, rows),
        }
    }
}
