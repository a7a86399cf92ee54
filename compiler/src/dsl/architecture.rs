use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::{Builder, DefineError, Logits, Problem, Tokens, Weights};
use crate::config::{self, Config, ConfigError, Conventions, Reader, UnreadKey};
use crate::graph::{self, Dim, ModelGraph, Shape};

/// A model family: makes a graph of any of its configs. Written with `#[architecture]`.
#[derive(Clone)]
pub struct Architecture {
    names: &'static [&'static str],
    model_types: &'static [&'static str],
    unused: &'static [&'static str],
    conventions: fn() -> Conventions,
    define: Arc<Define>,
}

/// What an architecture makes of a config.json.
#[derive(Clone, Debug)]
pub struct Defined {
    pub graph: ModelGraph,
    /// The config.json in its [normal](config::normalize) form, the family's defaults filled in.
    pub config: Value,
    /// Keys of it that nobody has read and that may matter: for a note to the user. Those that are known to matter are an
    /// error.
    pub unread: Vec<UnreadKey>,
}

type Define = dyn Fn(&str, &Reader<'_>) -> Result<ModelGraph, DefineError> + Send + Sync;

impl Architecture {
    /// `names` are Hugging Face's, as in `architectures` of config.json; there is at least one. `definition` may be a
    /// closure, of a definition that is only known when the program runs.
    pub fn new<C: Config + 'static>(
        names: &'static [&'static str],
        definition: impl for<'g> Fn(&C, Weights<'g>, Tokens<'g>) -> Logits<'g> + Send + Sync + 'static,
    ) -> Self {
        let define = move |name: &str, reader: &Reader<'_>| {
            let architecture = || name.to_string();
            let of_config = |cause| DefineError::Config {
                architecture: architecture(),
                cause,
            };
            let vocabulary: Option<Dim> = reader.field("vocab_size", "vocab_size").map_err(of_config)?;
            let config = C::read(reader).map_err(of_config)?;
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
            graph::verify(&graph, "definition").map_err(|cause| DefineError::Graph {
                architecture: architecture(),
                cause,
            })?;
            Ok(graph)
        };
        Architecture {
            names,
            model_types: &[],
            unused: &[],
            conventions: C::conventions,
            define: Arc::new(define),
        }
    }

    /// Names that the family's configs give themselves in `model_type`.
    pub fn of_types(self, model_types: &'static [&'static str]) -> Self {
        Architecture { model_types, ..self }
    }

    /// Parts of its checkpoints that generating text does not use, such as `vision_tower`.
    pub fn without(self, unused: &'static [&'static str]) -> Self {
        Architecture { unused, ..self }
    }

    pub fn names(&self) -> &'static [&'static str] {
        self.names
    }

    pub fn model_types(&self) -> &'static [&'static str] {
        self.model_types
    }

    /// The graph for a config.json, in whichever spelling.
    ///
    /// # Errors
    /// As for [`Architecture::define`].
    pub fn build(&self, config: &Value) -> Result<ModelGraph, DefineError> {
        self.define(config).map(|defined| defined.graph)
    }

    /// The graph for a config.json, and what became of the config.
    ///
    /// # Errors
    /// The config lacks something, asks for something that the definition does not have or sets a key that changes the
    /// model and that the definition does not read; or the definition is wrong under this config.
    pub fn define(&self, config: &Value) -> Result<Defined, DefineError> {
        let name = self.name_in(config);
        let of_config = |cause: ConfigError| DefineError::Config {
            architecture: name.to_string(),
            cause,
        };
        let normal = self.normal(config).map_err(of_config)?;
        let reader = Reader::new(&normal).map_err(of_config)?;
        let mut graph = (self.define)(name, &reader)?;
        graph.unused = self.unused;
        let (wrong, unread): (Vec<_>, _) = reader.unread().into_iter().partition(|key| key.changes_the_model);
        if !wrong.is_empty() {
            return Err(of_config(ConfigError::Unread(wrong)));
        }
        Ok(Defined {
            graph,
            config: normal,
            unread,
        })
    }

    /// A config.json in its [normal](config::normalize) form, with what the family assumes.
    ///
    /// # Errors
    /// As for [`config::normalize`].
    pub fn normal(&self, config: &Value) -> Result<Value, ConfigError> {
        config::normalize(config, &(self.conventions)())
    }

    /// The name that the config uses for this architecture.
    fn name_in(&self, config: &Value) -> &'static str {
        // A larger model's name is not that of the text model within it.
        let asked = match config::text_model_type(config) {
            Some(_) => Vec::new(),
            None => config::architecture_names(config),
        };
        let known = self.names.iter().find(|name| asked.contains(name));
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
