use serde_json::{Map, Value};

/// What the configs of a model family leave unsaid, or spell otherwise: of `#[config(assume(..))]` and
/// `#[config(alias = "..")]`.
#[derive(Clone, Debug, Default)]
pub struct Conventions {
    assumed: Vec<(&'static str, Value)>,
    /// Another spelling, and the key itself.
    aliases: Vec<(&'static str, &'static str)>,
}

impl Conventions {
    /// `key` is `value` where a config.json has no such key. One that is null stays null.
    pub fn assume(&mut self, key: &'static str, value: Value) {
        self.assumed.push((key, value));
    }

    /// `other` is another spelling of `key`, which wins where a config has both.
    pub fn alias(&mut self, other: &'static str, key: &'static str) {
        self.aliases.push((other, key));
    }

    pub fn join(&mut self, other: Conventions) {
        self.assumed.extend(other.assumed);
        self.aliases.extend(other.aliases);
    }

    pub(super) fn apply(&self, config: &mut Map<String, Value>) {
        for (other, key) in &self.aliases {
            if let Some(value) = config.remove(*other).filter(|value| !value.is_null()) {
                config.insert(key.to_string(), value);
            }
        }
        let scaled = config.get("rope_scaling").is_some_and(|scaling| !scaling.is_null());
        for (key, value) in &self.assumed {
            // Rotary parameters have two spellings, and null means that there are none.
            let absent = match *key {
                "rope_parameters" => !scaled && config.get(*key).is_none_or(Value::is_null),
                key => !config.contains_key(key),
            };
            if absent {
                config.insert(key.to_string(), value.clone());
            }
        }
    }
}
