use serde::{Deserialize, Serialize};
use tokenizers::Tokenizer;

use super::TextError;
use super::channels::Format;
use super::chat::ChatTemplate;
use super::template::WallTime;

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`; a template may know others.
    pub role: String,
    pub content: String,
    /// What the assistant thought before. Templates know it as `thinking` or as `reasoning_content`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
}

impl Message {
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Message {
            role: role.into(),
            content: content.into(),
            reasoning: None,
        }
    }
}

/// Tokenizer and chat template of one model.
pub struct TextModel {
    pub(super) tokenizer: Tokenizer,
    chat: Result<ChatTemplate, TemplateFault>,
    pub(super) format: Format,
    now: Option<WallTime>,
    template_arguments: Vec<(String, serde_json::Value)>,
}

/// Why there is no chat; kept until somebody asks for a chat, since raw prompts work without.
enum TemplateFault {
    Missing,
    Unusable(String),
}

impl TextModel {
    /// Builds from the text of the checkpoint's files.
    ///
    /// `tokenizer_config` gives the special tokens that templates name (`bos_token` ...) and, where
    /// `chat_template` is absent, may hold the template itself. A faulty template is no error here:
    /// [`render_chat`](Self::render_chat) reports it.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] or [`TextError::TokenizerConfig`] for files that cannot be read.
    pub fn load(
        tokenizer_json: &[u8],
        tokenizer_config: Option<&str>,
        chat_template: Option<&str>,
    ) -> Result<TextModel, TextError> {
        let fault = |error: tokenizers::Error| TextError::Tokenizer {
            message: error.to_string(),
        };
        let mut tokenizer = open(tokenizer_json).map_err(fault)?;
        // Files of encoder models cut and pad every text; a prompt must stay as it is.
        tokenizer.with_truncation(None).map_err(fault)?;
        tokenizer.with_padding(None);

        let config: serde_json::Value = match tokenizer_config {
            Some(text) => serde_json::from_str(text).map_err(|error| TextError::TokenizerConfig {
                message: error.to_string(),
            })?,
            None => serde_json::Value::Null,
        };
        let template = chat_template.map_or_else(|| template_in_config(&config), Ok);
        let chat = template.and_then(|source| ChatTemplate::new(source, &config).map_err(TemplateFault::Unusable));
        Ok(TextModel {
            format: Format::of(&tokenizer),
            tokenizer,
            chat,
            now: None,
            template_arguments: Vec::new(),
        })
    }

    /// Fixes the time that templates see through `strftime_now`: seconds since the beginning of 1970 by the same clock on
    /// the wall, without time zones. Without it they see the system's clock in its time zone, and in a browser none.
    pub fn set_now(&mut self, wall_seconds: u64) {
        self.now = Some(WallTime::from_seconds(wall_seconds));
    }

    /// Gives chat templates a variable of this name, as keyword arguments of transformers' `apply_chat_template` do:
    /// `reasoning_effort`, `enable_thinking` and the like. What a template does not know, it ignores.
    pub fn set_template_argument(&mut self, name: impl Into<String>, value: serde_json::Value) {
        self.template_arguments.push((name.into(), value));
    }

    /// Token ids of a text. Text that spells a special token becomes that token.
    ///
    /// With `add_special` the tokenizer adds what it puts around a prompt (often a first token such as
    /// `<bos>`): right for raw prompts, wrong for [`render_chat`](Self::render_chat)'s text, which holds
    /// all of its special tokens already.
    ///
    /// # Errors
    /// [`TextError::Encode`] where the tokenizer refuses the text.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TextError> {
        let encoding = self
            .tokenizer
            .encode_fast(text, add_special)
            .map_err(|error| TextError::Encode {
                message: error.to_string(),
            })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of token ids; ids outside the vocabulary are dropped, with `skip_special` special tokens too.
    ///
    /// # Errors
    /// [`TextError::Decode`] where the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TextError> {
        self.tokenizer
            .decode(ids, skip_special)
            .map_err(|error| TextError::Decode {
                message: error.to_string(),
            })
    }

    /// The text of a token as it stands in the vocabulary.
    pub(super) fn token_text(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    /// The text of a special token; `None` for every other id.
    pub(super) fn special_token_text(&self, id: u32) -> Option<String> {
        let token = self.token_text(id)?;
        let added = self.tokenizer.get_added_vocabulary();
        added.is_special_token(&token).then_some(token)
    }

    /// Whether answers may have other channels than the answer itself, e.g. reasoning: see [`ChannelStream`](super::ChannelStream).
    pub fn has_channels(&self) -> bool {
        !matches!(self.format, Format::Plain)
    }

    /// Whether the model has a chat template. One that cannot be used counts: [`render_chat`](Self::render_chat) says why.
    pub fn has_chat_template(&self) -> bool {
        !matches!(self.chat, Err(TemplateFault::Missing))
    }

    /// Whether chats can be rendered at all, before there is one.
    ///
    /// # Errors
    /// [`TextError::NoChatTemplate`], or [`TextError::ChatTemplate`] for a template that cannot be read.
    pub fn check_chat_template(&self) -> Result<(), TextError> {
        self.chat_template().map(drop)
    }

    fn chat_template(&self) -> Result<&ChatTemplate, TextError> {
        match &self.chat {
            Ok(template) => Ok(template),
            Err(TemplateFault::Missing) => Err(TextError::NoChatTemplate),
            Err(TemplateFault::Unusable(message)) => Err(TextError::ChatTemplate {
                message: message.clone(),
            }),
        }
    }

    /// The conversation as the prompt text that the model was trained on, as transformers'
    /// `apply_chat_template` renders it. `add_generation_prompt` opens the assistant's next turn.
    ///
    /// # Errors
    /// [`TextError::NoChatTemplate`], [`TextError::ChatTemplate`] for a template that fails,
    /// [`TextError::ChatRefused`] where the template itself objects, e.g. to the order of roles.
    pub fn render_chat(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TextError> {
        let template = self.chat_template()?;
        template.render(messages, add_generation_prompt, self.now, &self.template_arguments)
    }

    /// Token ids of a conversation: [`render_chat`](Self::render_chat), encoded.
    ///
    /// # Errors
    /// As for the two.
    pub fn encode_chat(&self, messages: &[Message], add_generation_prompt: bool) -> Result<Vec<u32>, TextError> {
        self.encode(&self.render_chat(messages, add_generation_prompt)?, false)
    }
}

/// Opens a tokenizer and tries it. The tokenizers crate panics on some faulty files: on what is not JSON, and on what
/// contradicts itself, as when the template of special tokens names one that is not there.
fn open(json: &[u8]) -> tokenizers::Result<Tokenizer> {
    serde_json::from_slice::<serde::de::IgnoredAny>(json)?;
    let opened = std::panic::catch_unwind(|| {
        let tokenizer = Tokenizer::from_bytes(json)?;
        tokenizer.encode_fast("", true)?;
        Ok(tokenizer)
    });
    opened.unwrap_or_else(|_| Err("it contradicts itself".into()))
}

/// `chat_template` of a tokenizer_config.json: a string, or a list of named ones, of which the default.
fn template_in_config(config: &serde_json::Value) -> Result<&str, TemplateFault> {
    let named = match config.get("chat_template") {
        None | Some(serde_json::Value::Null) => return Err(TemplateFault::Missing),
        Some(serde_json::Value::String(template)) => return Ok(template),
        Some(other) => other.as_array().map(Vec::as_slice).unwrap_or_default(),
    };
    let default = named.iter().find(|entry| entry["name"] == "default");
    let template = default.and_then(|entry| entry.get("template")?.as_str());
    template.ok_or_else(|| {
        TemplateFault::Unusable("tokenizer_config.json has a chat_template, and none of the name `default`".to_string())
    })
}
