//! Chat templates with the semantics of transformers' `apply_chat_template`: its Jinja settings, its
//! functions, and Python's way of writing values.

use std::fmt;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State};

use super::jinja::without_python_extensions;
use super::{Message, TextError, python};

const NAME: &str = "chat_template";

pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    /// `bos_token` and its like.
    special_tokens: Vec<(String, String)>,
}

impl ChatTemplate {
    /// Compiles a template; `config` is tokenizer_config.json. The error is text for people.
    pub(super) fn new(source: &str, config: &serde_json::Value) -> Result<Self, String> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| describe(&error))?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(write_as_python);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", raise_exception);
        environment
            .add_template_owned(NAME, without_python_extensions(source))
            .map_err(|error| describe(&error))?;
        Ok(ChatTemplate {
            environment,
            special_tokens: special_tokens(config),
        })
    }

    pub(super) fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        now: Option<u64>,
        arguments: &[(String, serde_json::Value)],
    ) -> Result<String, TextError> {
        let strftime_now = move |format: &str| -> Result<String, Error> {
            let now = now.or_else(system_clock).ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidOperation,
                    "the template asks for the date, and there is no clock: call `set_now`",
                )
            })?;
            Ok(python::strftime(format, now))
        };
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
            ("strftime_now", Value::from_function(strftime_now)),
        ]);
        let arguments = arguments.iter();
        context.extend(arguments.map(|(name, value)| (name.as_str(), Value::from(Serde(value)))));
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(Value::from_pairs(context)))
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

/// Seconds since 1970 UTC.
fn system_clock() -> Option<u64> {
    // `SystemTime::now` panics in a browser.
    if cfg!(target_arch = "wasm32") {
        return None;
    }
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    elapsed.ok().map(|elapsed| elapsed.as_secs())
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

/// Marks the error of `raise_exception` among all others.
#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.to_string()).with_source(Refused(message.to_string())))
}

/// The message of a `raise_exception` somewhere below this error.
fn refusal(error: &Error) -> Option<String> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(Refused(message)) = error.downcast_ref() {
            return Some(message.clone());
        }
        cause = error.source();
    }
    None
}

/// An error with all that caused it.
fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Values in `{{ }}` as Python writes them, where that differs.
fn write_as_python(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::None => Ok(out.write_str("None")?),
        ValueKind::Bool => Ok(out.write_str(if value.is_true() { "True" } else { "False" })?),
        _ => minijinja::escape_formatter(out, state, value),
    }
}

/// Python's `json.dumps(value, ensure_ascii=False, indent=indent)`.
fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let ensure_ascii: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    python::json(value, indent, ensure_ascii.unwrap_or(false))
        .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}
