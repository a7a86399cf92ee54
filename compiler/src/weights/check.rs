use rayon::prelude::*;

use super::PackError;
use super::encode::BadValue;
use crate::checkpoint::TensorSource;
use crate::graph::{DeclaredWeight, WeightRole};

/// Checks the weights that are kept as they are, vectors and routers, which are small: every value must be finite.
/// The others are checked as they are packed.
///
/// # Errors
/// [`PackError::Value`] with the first bad row of a matrix or element of a vector, or a tensor that cannot be read.
pub fn check_exact(source: &dyn TensorSource, declared: &[DeclaredWeight]) -> Result<(), PackError> {
    let small = |weight: &&DeclaredWeight| matches!(weight.role, WeightRole::Vector | WeightRole::Exact);
    let small: Vec<&DeclaredWeight> = declared.iter().filter(small).collect();
    // All of them, so that the first one in the model's order is named whatever thread is the fastest.
    let checked: Vec<Result<(), PackError>> = small.par_iter().map(|weight| check(source, weight)).collect();
    checked.into_iter().collect()
}

fn check(source: &dyn TensorSource, weight: &DeclaredWeight) -> Result<(), PackError> {
    let values = source.read_f32(&weight.name)?;
    let row_length = match (weight.role, weight.shape.last()) {
        (WeightRole::Exact, Some(&columns)) => columns.max(1),
        _ => 1,
    };
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => Err(PackError::Value {
            name: weight.name.clone(),
            row: at / row_length,
            problem: BadValue::NotFinite,
        }),
    }
}
