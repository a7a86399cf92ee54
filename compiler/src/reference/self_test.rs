use kiln_bundle::SelfTest;

use super::{EvalError, Evaluator, WeightValues};
use crate::graph::ModelGraph;

/// How many of the largest logits a self-test keeps.
const TOP: usize = 20;

/// Evaluates a short prompt and keeps what the last token's logits are.
///
/// # Errors
/// See [`EvalError`]; also where a logit is not finite.
pub fn self_test(graph: &ModelGraph, weights: &dyn WeightValues, ids: &[u32]) -> Result<SelfTest, EvalError> {
    let logits = Evaluator::new(graph, weights).feed_last(ids)?;
    if let Some((id, value)) = logits.iter().enumerate().find(|(_, logit)| !logit.is_finite()) {
        return Err(EvalError::NotFinite { id, value: *value });
    }
    let mut top_logits: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
    // Stable: of equal logits, the smaller id comes first.
    top_logits.sort_by(|a, b| b.1.total_cmp(&a.1));
    top_logits.truncate(TOP);
    let square: f64 = logits.iter().map(|&logit| f64::from(logit).powi(2)).sum();
    Ok(SelfTest {
        ids: ids.to_vec(),
        top_logits,
        norm: square.sqrt() as f32,
    })
}
