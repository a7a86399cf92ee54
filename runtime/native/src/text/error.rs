use thiserror::Error;

/// What can go wrong between text and token ids.
#[derive(Debug, Error)]
pub enum TextError {
    #[error(
        "tokenizer.json cannot be read: {message}; compile the model again from a checkpoint with a valid tokenizer"
    )]
    Tokenizer { message: String },
    #[error(
        "tokenizer_config.json cannot be read: {message}; compile the model again from a checkpoint with a valid one"
    )]
    TokenizerConfig { message: String },
    #[error("the text cannot be tokenized: {message}")]
    Encode { message: String },
    #[error("token ids cannot be turned into text: {message}")]
    Decode { message: String },
    /// Base models have no chat template.
    #[error("this model has no chat template; give it a raw prompt instead (`run-model generate --raw`)")]
    NoChatTemplate,
    /// The template is not Jinja, or uses what Kiln does not know.
    #[error("the chat template fails: {message}; give the model a raw prompt instead (`run-model generate --raw`)")]
    ChatTemplate { message: String },
    /// The template's own `raise_exception`.
    #[error("the chat template refuses these messages: {message}")]
    ChatRefused { message: String },
}
