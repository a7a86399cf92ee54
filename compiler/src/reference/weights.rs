use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use thiserror::Error;

/// Why a weight could not be had; each source of weights has its own reasons.
pub type WeightError = Box<dyn std::error::Error + Send + Sync>;

/// Where the evaluator finds weights.
///
/// They are asked for where they are used, once for each use in a step, and dropped right after.
pub trait WeightValues {
    /// All elements of the tensor with this full checkpoint name, row-major.
    ///
    /// # Errors
    /// No such tensor, or it cannot be read.
    fn values(&self, name: &str) -> Result<Cow<'_, [f32]>, WeightError>;

    /// Rows `rows` of the tensor seen as a matrix of `columns`, its last dimension: the matrix of one expert is some
    /// rows of a bank. A source that can read them without the others should.
    ///
    /// # Errors
    /// As for [`values`](Self::values), or there are fewer rows.
    fn rows(&self, name: &str, rows: Range<usize>, columns: usize) -> Result<Cow<'_, [f32]>, WeightError> {
        let elements = rows.start * columns..rows.end * columns;
        let part = match self.values(name)? {
            Cow::Borrowed(all) => all.get(elements).map(Cow::Borrowed),
            Cow::Owned(all) => all.get(elements).map(|part| Cow::Owned(part.to_vec())),
        };
        part.ok_or_else(|| MissingRows(rows).into())
    }
}

/// A map of weights was asked for a name that it lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no such weight")]
pub struct MissingWeight;

/// A weight was asked for rows that it lacks.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no rows {} to {}", .0.start, .0.end)]
pub struct MissingRows(pub Range<usize>);

impl WeightValues for HashMap<String, Vec<f32>> {
    fn values(&self, name: &str) -> Result<Cow<'_, [f32]>, WeightError> {
        let values = self.get(name).ok_or(MissingWeight)?;
        Ok(Cow::Borrowed(values))
    }
}

impl<F, E> WeightValues for F
where
    F: Fn(&str) -> Result<Vec<f32>, E>,
    E: Into<WeightError>,
{
    fn values(&self, name: &str) -> Result<Cow<'_, [f32]>, WeightError> {
        self(name).map(Cow::Owned).map_err(Into::into)
    }
}
