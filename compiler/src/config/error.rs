use serde_json::Value;
use thiserror::Error;

use super::UnreadKey;

/// What is wrong with a config.json.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ConfigError {
    #[error("config.json: `{field}` is missing ({expected})")]
    Missing { field: String, expected: String },
    #[error("config.json: `{field}` should be {expected}, found {found}")]
    Type {
        field: String,
        expected: String,
        /// The JSON text, shortened.
        found: String,
    },
    #[error("config.json: `{field}` = {found}: {problem}")]
    Unsupported {
        field: String,
        found: String,
        problem: String,
    },
    /// Keys that change what the model computes, and that the definition does not read.
    #[error(
        "config.json: {} change{} what the model computes, and this architecture does not read {}: the answers would be \
         wrong (delete what does not apply to the model)",
        list(.0), if .0.len() == 1 { "s" } else { "" }, if .0.len() == 1 { "it" } else { "them" }
    )]
    Unread(Vec<UnreadKey>),
}

impl ConfigError {
    pub fn ill_typed(field: &str, expected: &str, found: &Value) -> Self {
        ConfigError::Type {
            field: field.to_string(),
            expected: expected.to_string(),
            found: shortened(found),
        }
    }

    pub fn unsupported(field: &str, found: &Value, problem: impl Into<String>) -> Self {
        ConfigError::Unsupported {
            field: field.to_string(),
            found: shortened(found),
            problem: problem.into(),
        }
    }
}

pub(super) fn shortened(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text,
    }
}

fn list(keys: &[UnreadKey]) -> String {
    let texts: Vec<String> = keys.iter().map(UnreadKey::to_string).collect();
    texts.join(", ")
}
