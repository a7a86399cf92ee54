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
    /// Generation stops at any of these; may be empty.
    pub eos_token_ids: Vec<u32>,
    pub bos_token_id: Option<u32>,
}

impl ModelFacts {
    /// Reads them from a config.json, in whichever spelling.
    pub fn read(config: &Value) -> Result<Self, ConfigError> {
        let normal = normalize(config)?;
        let reader = Reader::new(&normal)?;
        let field = |key: &str| reader.field::<usize>(key, key);
        let bos_token_id: Option<usize> = reader.field("bos_token_id", "bos_token_id")?;
        let eos: Option<Value> = normal.get("eos_token_id").cloned();
        let eos_token_ids = match eos {
            Some(Value::Array(_)) => reader.field("eos_token_id", "eos_token_id")?,
            _ => Vec::from_iter(reader.field::<Option<usize>>("eos_token_id", "eos_token_id")?),
        };
        Ok(ModelFacts {
            vocab_size: field("vocab_size")?,
            hidden_size: field("hidden_size")?,
            layers: field("num_hidden_layers")?,
            max_context: field("max_position_embeddings")?,
            eos_token_ids: eos_token_ids.into_iter().map(|id| id as u32).collect(),
            bos_token_id: bos_token_id.map(|id| id as u32),
        })
    }
}
