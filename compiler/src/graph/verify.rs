use thiserror::Error;

use super::ModelGraph;

/// A graph that breaks its own rules.
#[derive(Debug, Error)]
#[error("{pass}: {section}: {what}")]
pub struct GraphError {
    pub pass: String,
    pub section: String,
    pub what: String,
}

/// Checks a graph after `pass`.
pub fn verify(_graph: &ModelGraph, _pass: &str) -> Result<(), GraphError> {
    Ok(())
}
