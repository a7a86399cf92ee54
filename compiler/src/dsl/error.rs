use std::fmt;

use thiserror::Error;

use crate::config::ConfigError;
use crate::graph::{GraphError, Span};

/// Why an architecture and a config do not make a model.
#[derive(Debug, Error)]
pub enum DefineError {
    /// The config lacks something, or asks for something unknown.
    #[error("{architecture}: {cause}")]
    Config { architecture: String, cause: ConfigError },
    /// The definition is wrong under this config: all that was found, in the order of tracing.
    #[error("{architecture}: {}", list(problems))]
    Definition {
        architecture: String,
        problems: Vec<Problem>,
    },
    /// The builder made a graph that breaks the graph's own rules: a defect of the compiler.
    #[error("{architecture}: {cause}")]
    Graph { architecture: String, cause: GraphError },
}

/// One mistake, at the author's line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub span: Span,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.span, self.message)
    }
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(|p| format!("\n  {p}")).collect();
    let noun = if lines.len() == 1 { "problem" } else { "problems" };
    format!("{} {noun} in the definition{}", lines.len(), lines.concat())
}
