use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::{Builder, DefineError, Logits, Problem, Tokens, Weights};
use crate::config::{self, Config, ConfigError, Reader};
use crate::graph::{self, Dim, ModelGraph, Shape};

/// A model family: makes a graph of any of its configs. Written with `#[architecture]`.
#[derive(Clone)]
pub struct Architecture {
    names: &'static [&'static str],
    define: Arc<Define>,
}

type Define = dyn Fn(&str, &Reader<'_>) -> Result<ModelGraph, DefineError> + Send + Sync;

impl Architecture {
    /// `names` are Hugging Face's, as in `architectures` of config.json; there is at least one. `definition` may be a
    /// closure, of a definition that is only known when the program runs.
    pub fn new<C: Config + 'static>(
        names: &'static [&'static str],
        definition: impl for<'g> Fn(&C, Weights<'g>, Tokens<'g>) -> Logits<'g> + Send + Sync + 'static,
    ) -> Self {
        let define = move |name: &str, config: &Reader<'_>| {
            let architecture = || name.to_string();
            let of_config = |source| DefineError::Config {
                architecture: architecture(),
                source,
            };
            let vocabulary: Option<Dim> = config.field("vocab_size", "vocab_size").map_err(of_config)?;
            let config = C::read(config).map_err(of_config)?;
            let builder = Builder::new();
            let (weights, tokens) = builder.start();
            let logits = definition(&config, weights, tokens);
            let graph = builder
                .finish(name, logits)
                .map_err(|problems| DefineError::Definition {
                    architecture: architecture(),
                    problems,
                })?;
            let mut problems: Vec<Problem> = (graph::oversized(&graph).into_iter())
                .map(|(span, message)| Problem { span, message })
                .collect();
            problems.extend(other_vocabulary(&graph, vocabulary));
            if !problems.is_empty() {
                return Err(DefineError::Definition {
                    architecture: architecture(),
                    problems,
                });
            }
            graph::verify(&graph, "definition").map_err(|source| DefineError::Graph {
                architecture: architecture(),
                source,
            })?;
            Ok(graph)
        };
        Architecture {
            names,
            define: Arc::new(define),
        }
    }

    pub fn names(&self) -> &'static [&'static str] {
        self.names
    }

    /// The graph for a config.json, in whichever spelling.
    pub fn build(&self, config: &Value) -> Result<ModelGraph, DefineError> {
        let name = self.name_in(config);
        let of_config = |source: ConfigError| DefineError::Config {
            architecture: name.to_string(),
            source,
        };
        let normal = config::normalize(config).map_err(of_config)?;
        let reader = Reader::new(&normal).map_err(of_config)?;
        (self.define)(name, &reader)
    }

    /// The name that the config uses for this architecture.
    fn name_in(&self, config: &Value) -> &'static str {
        let asked = config::architecture_name(config);
        let known = self.names.iter().find(|name| Some(**name) == asked);
        known.or(self.names.first()).copied().unwrap_or("unnamed")
    }
}

/// A definition whose output is not `[T, vocab_size]`, where config.json has a `vocab_size`: what it returns are no logits.
fn other_vocabulary(graph: &ModelGraph, vocabulary: Option<Dim>) -> Option<Problem> {
    let output = &graph.head.nodes[graph.head.output];
    let wanted = Shape::per_token([vocabulary?]);
    let sizes = |shape: &Shape| shape.dims.iter().map(|dim| dim.value()).collect::<Vec<_>>();
    (sizes(&output.shape) != sizes(&wanted)).then(|| Problem {
        span: output.span,
        message: format!(
            "the definition returns {}, but logits are {wanted}; does it end without a linear map to the vocabulary?",
            output.shape
        ),
    })
}

impl fmt::Debug for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Architecture").field(&self.names).finish()
    }
}
