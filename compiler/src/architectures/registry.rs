use serde_json::Value;
use thiserror::Error;

use super::spelling::misspelled;
use crate::config;
use crate::dsl::Architecture;

/// The architectures that a compiler knows.
#[derive(Clone, Debug)]
pub struct Registry {
    architectures: Vec<Architecture>,
}

/// A config.json of an architecture that the registry lacks.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown architecture {}{}; known are {}", self.named(), self.guess(), .known.join(", "))]
pub struct UnknownArchitecture {
    /// `None` if config.json names none.
    pub name: Option<String>,
    /// What config.json says instead of a name, or of the text model within the architecture.
    pub model_type: Option<String>,
    /// The known name that it seems to be a misspelling of.
    pub nearest: Option<String>,
    pub known: Vec<String>,
}

impl UnknownArchitecture {
    fn named(&self) -> String {
        match (&self.name, &self.model_type) {
            (Some(name), None) => format!("`{name}`"),
            (Some(name), Some(text)) => format!("`{name}` with a text model of type `{text}`"),
            (None, Some(model_type)) => format!("of model_type `{model_type}` (config.json has no `architectures`)"),
            (None, None) => "(config.json has neither `architectures` nor `model_type`)".to_string(),
        }
    }

    fn guess(&self) -> String {
        match &self.nearest {
            Some(name) => format!(" (did you mean `{name}`?)"),
            None => String::new(),
        }
    }
}

impl Registry {
    /// Knows nothing.
    pub fn empty() -> Self {
        Registry {
            architectures: Vec::new(),
        }
    }

    /// With one more architecture, which goes before a known one of the same name.
    pub fn with(mut self, architecture: Architecture) -> Self {
        self.architectures.insert(0, architecture);
        self
    }

    pub fn lookup(&self, name: &str) -> Result<&Architecture, UnknownArchitecture> {
        let found = self.architectures.iter().find(|a| a.names().contains(&name));
        found.ok_or_else(|| self.unknown(Some(name), None))
    }

    /// The architecture that a config.json names; where it names none, or only the model without its head (`LlamaModel`),
    /// the one of its `model_type`. Of a model that also sees or hears, the `model_type` of its text model must fit too.
    pub fn for_config(&self, config: &Value) -> Result<&Architecture, UnknownArchitecture> {
        let names = config::architecture_names(config);
        let text = config::text_model_type(config);
        let named: Vec<&Architecture> = (self.architectures.iter())
            .filter(|architecture| names.iter().any(|name| architecture.names().contains(name)))
            .collect();
        let knows = |of: &Architecture, model_type| of.model_types().contains(&model_type);
        let fitting = named.iter().find(|of| match text {
            Some(text) if !of.model_types().is_empty() => knows(of, text),
            _ => true,
        });
        if let Some(architecture) = fitting {
            return Ok(architecture);
        }
        if !named.is_empty() {
            return Err(self.unknown(names.first().copied(), text));
        }
        if let Some(name) = names.iter().find(|name| !name.ends_with("Model")) {
            return Err(self.unknown(Some(name), None));
        }
        let model_type = text.or(config::model_type(config));
        let of_type = model_type.and_then(|model_type| self.architectures.iter().find(|of| knows(of, model_type)));
        of_type.ok_or_else(|| self.unknown(names.first().copied(), model_type))
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.architectures.iter().flat_map(|a| a.names()).copied().collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn unknown(&self, name: Option<&str>, model_type: Option<&str>) -> UnknownArchitecture {
        let known = self.names();
        let meant = name
            .filter(|_| model_type.is_none())
            .and_then(|name| misspelled(name, &known));
        UnknownArchitecture {
            name: name.map(str::to_string),
            model_type: model_type.map(str::to_string),
            nearest: meant.map(str::to_string),
            known: known.into_iter().map(str::to_string).collect(),
        }
    }
}

/// Knows what Kiln ships.
impl Default for Registry {
    fn default() -> Self {
        use super::*;
        Registry {
            architectures: vec![
                gemma3(),
                gpt_oss(),
                granite(),
                granitemoe(),
                lfm2(),
                lfm2_moe(),
                llama(),
                mistral(),
                olmoe(),
                qwen3(),
                qwen3_5(),
                qwen3_5_moe(),
                qwen3_moe(),
                qwen3_next(),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_unknown_is_named() {
        let registry = Registry::default();
        let error = registry.lookup("LLamaForCausalLm").unwrap_err();
        assert_eq!(error.nearest.as_deref(), Some("LlamaForCausalLM"));
        assert_eq!(
            error.to_string(),
            "unknown architecture `LLamaForCausalLm` (did you mean `LlamaForCausalLM`?); \
             known are Gemma3ForCausalLM, Gemma3ForConditionalGeneration, GptOssForCausalLM, GraniteForCausalLM, \
             GraniteMoeForCausalLM, Lfm2ForCausalLM, Lfm2MoeForCausalLM, LlamaForCausalLM, \
             Mistral3ForConditionalGeneration, MistralForCausalLM, OlmoeForCausalLM, Qwen3ForCausalLM, \
             Qwen3MoeForCausalLM, Qwen3NextForCausalLM, Qwen3_5ForCausalLM, Qwen3_5ForConditionalGeneration, \
             Qwen3_5MoeForCausalLM, Qwen3_5MoeForConditionalGeneration"
        );
        let message = |config: Value| registry.for_config(&config).unwrap_err().to_string();
        for (config, part) in [
            (json!({}), "neither `architectures` nor `model_type`"),
            (
                json!({ "architectures": [], "model_type": "bert" }),
                "of model_type `bert`",
            ),
            (
                json!({ "architectures": ["LlamaForTokenClassification"], "model_type": "llama" }),
                "`LlamaForToken",
            ),
            (json!({ "architectures": 3 }), "neither"),
            (
                json!({
                    "architectures": ["Mistral3ForConditionalGeneration"], "text_config": { "model_type": "ministral3" },
                }),
                "`Mistral3ForConditionalGeneration` with a text model of type `ministral3`",
            ),
        ] {
            assert!(message(config.clone()).contains(part), "{config}");
        }
    }

    #[test]
    fn a_model_type_stands_in_for_a_name() {
        let registry = Registry::default();
        for architecture in &registry.architectures {
            for model_type in architecture.model_types() {
                for names in [json!(null), json!([]), json!(["SomeModel"])] {
                    let config = json!({ "architectures": names, "model_type": model_type });
                    let found = registry.for_config(&config).unwrap();
                    assert_eq!(found.names(), architecture.names(), "{config}");
                }
            }
            assert!(!architecture.model_types().is_empty(), "{architecture:?}");
        }
        let nested = json!({ "text_config": { "model_type": "gemma3_text" } });
        assert_eq!(registry.for_config(&nested).unwrap().names()[0], "Gemma3ForCausalLM");
    }
}
