use serde_json::Value;

use super::{ConfigError, Reader, normalize};

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
    /// Reads them from a config.json, in whichever spelling.
    pub fn read(config: &Value) -> Result<Self, ConfigError> {
        let normal = normalize(config)?;
        let reader = Reader::new(&normal)?;
        let field = |key: &str| reader.field::<usize>(key, key);
        Ok(ModelFacts {
            vocab_size: field("vocab_size")?,
            hidden_size: field("hidden_size")?,
            layers: field("num_hidden_layers")?,
            max_context: field("max_position_embeddings")?,
        })
    }
}
