use std::collections::BTreeMap;

use super::cursor::{Array, Value};
use crate::checkpoint::CheckpointError;

/// Typed access to a file's metadata; errors name the file and the key.
pub(super) struct Metadata<'a> {
    file: &'a str,
    values: &'a BTreeMap<&'a str, Value<'a>>,
}

impl<'a> Metadata<'a> {
    pub fn new(file: &'a str, values: &'a BTreeMap<&'a str, Value<'a>>) -> Self {
        Metadata { file, values }
    }

    pub fn damaged(&self, what: String) -> CheckpointError {
        CheckpointError::Damaged {
            file: self.file.to_string(),
            what,
        }
    }

    pub fn unsupported(&self, what: String) -> CheckpointError {
        CheckpointError::Unsupported {
            file: self.file.to_string(),
            what,
        }
    }

    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.values.get(key).copied()
    }

    pub fn text(&self, key: &str) -> Result<Option<&'a str>, CheckpointError> {
        self.typed(key, "a string", |value| match value {
            Value::Text(text) => Some(text),
            _ => None,
        })
    }

    pub fn require_text(&self, key: &str) -> Result<&'a str, CheckpointError> {
        self.text(key)?.ok_or_else(|| self.absent(key))
    }

    pub fn bool(&self, key: &str) -> Result<Option<bool>, CheckpointError> {
        self.typed(key, "a truth value", |value| match value {
            Value::Bool(value) => Some(value),
            _ => None,
        })
    }

    /// A size, count or id: at most 2^32 - 1.
    pub fn size(&self, key: &str) -> Result<Option<u64>, CheckpointError> {
        self.typed(key, "one small non-negative integer", |value| {
            let value = match value {
                Value::Unsigned(value) => value,
                Value::Signed(value) => u64::try_from(value).ok()?,
                _ => return None,
            };
            u32::try_from(value).ok().map(u64::from)
        })
    }

    pub fn require_size(&self, key: &str) -> Result<u64, CheckpointError> {
        self.size(key)?.ok_or_else(|| self.absent(key))
    }

    /// A finite number. An f32 becomes the f64 with the same shortest decimal, since that is what
    /// the original config said: 1e-6, not 9.99999997e-7.
    pub fn number(&self, key: &str) -> Result<Option<f64>, CheckpointError> {
        self.typed(key, "a finite number", |value| {
            let value = match value {
                Value::F32(value) => value.to_string().parse().ok()?,
                Value::F64(value) => value,
                _ => return None,
            };
            value.is_finite().then_some(value)
        })
    }

    pub fn require_number(&self, key: &str) -> Result<f64, CheckpointError> {
        self.number(key)?.ok_or_else(|| self.absent(key))
    }

    pub fn array(&self, key: &str) -> Result<Option<Array<'a>>, CheckpointError> {
        self.typed(key, "an array", |value| match value {
            Value::Array(array) => Some(array),
            _ => None,
        })
    }

    /// An array of strings.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>, CheckpointError> {
        let Some(array) = self.array(key)? else {
            return Ok(None);
        };
        let texts = array.texts().ok_or_else(|| self.mistyped(key, "an array of strings"))?;
        Ok(Some(texts.collect()))
    }

    fn typed<T>(
        &self,
        key: &str,
        wanted: &str,
        read: impl Fn(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, CheckpointError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.mistyped(key, wanted)),
        }
    }

    pub fn mistyped(&self, key: &str, wanted: &str) -> CheckpointError {
        self.damaged(format!("metadata {key} is not {wanted}"))
    }

    fn absent(&self, key: &str) -> CheckpointError {
        self.damaged(format!("metadata {key} is missing"))
    }
}
