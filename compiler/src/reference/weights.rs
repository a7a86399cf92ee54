use std::borrow::Cow;
use std::collections::HashMap;

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
}

/// A map of weights was asked for a name that it lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no such weight")]
pub struct MissingWeight;

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
