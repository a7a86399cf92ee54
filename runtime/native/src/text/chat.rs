//! Chat templates with the semantics of transformers' `apply_chat_template`: its Jinja settings, its
//! functions, and Python's way of writing values.

use minijinja::value::{Serde, Value};

use super::template::{Template, WallTime, describe, refusal};
use super::{Message, TextError};

pub(super) struct ChatTemplate {
    template: Template,
    /// `bos_token` and its like.
    special_tokens: Vec<(String, String)>,
}

impl ChatTemplate {
    /// Compiles a template; `config` is tokenizer_config.json. The error is text for people.
    pub(super) fn new(source: &str, config: &serde_json::Value) -> Result<Self, String> {
        Ok(ChatTemplate {
            template: Template::new(source).map_err(|error| describe(&error))?,
            special_tokens: special_tokens(config),
        })
    }

    pub(super) fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        now: Option<WallTime>,
        arguments: &[(String, serde_json::Value)],
    ) -> Result<String, TextError> {
        let mut context: Vec<(&str, Value)> = self
            .special_tokens
            .iter()
            .map(|(name, token)| (name.as_str(), Value::from(token.as_str())))
            .collect();
        context.extend([
            ("messages", messages.iter().map(message_value).collect()),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
        ]);
        let arguments = arguments.iter();
        context.extend(arguments.map(|(name, value)| (name.as_str(), Value::from(Serde(value)))));
        self.template
            .render(context, now)
            .map_err(|error| match refusal(&error) {
                Some(message) => TextError::ChatRefused { message },
                None => TextError::ChatTemplate {
                    message: describe(&error),
                },
            })
    }
}

fn message_value(message: &Message) -> Value {
    let mut fields = vec![("role", message.role.as_str()), ("content", message.content.as_str())];
    if let Some(reasoning) = &message.reasoning {
        // Harmony's name and that of Qwen, DeepSeek and others.
        fields.extend([
            ("thinking", reasoning.as_str()),
            ("reasoning_content", reasoning.as_str()),
        ]);
    }
    Value::from_pairs(fields)
}

/// The special tokens of tokenizer_config.json by name; each is a string or an object with `content`.
fn special_tokens(config: &serde_json::Value) -> Vec<(String, String)> {
    let Some(config) = config.as_object() else {
        return Vec::new();
    };
    config
        .iter()
        .filter(|(name, _)| name.ends_with("_token"))
        .filter_map(|(name, token)| {
            let text = token.as_str().or_else(|| token.get("content")?.as_str())?;
            Some((name.clone(), text.to_string()))
        })
        .collect()
}
