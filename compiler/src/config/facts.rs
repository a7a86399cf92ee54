use serde_json::Value;

use super::{ConfigError, Reader};
use crate::graph::Dim;

/// What a bundle's manifest says of the model, besides its programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFacts {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub layers: usize,
    /// Positions the model was made for.
    pub max_context: usize,
}

impl ModelFacts {
    /// Reads them from a config.json in its [normal](super::normalize) form.
    ///
    /// # Errors
    /// A number is missing, or is none from 1 on.
    pub fn read(normal: &Value) -> Result<Self, ConfigError> {
        let reader = Reader::new(normal)?;
        let field = |key: &str| reader.field::<Dim>(key, key).map(Dim::value);
        Ok(ModelFacts {
            vocab_size: field("vocab_size")?,
            hidden_size: field("hidden_size")?,
            layers: field("num_hidden_layers")?,
            max_context: field("max_position_embeddings")?,
        })
    }
}
