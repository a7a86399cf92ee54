//! Text in, text out: tokenizer, chat template, and streaming text from token ids.
//!
//! [`TextModel`] is made of a checkpoint's own files: `tokenizer.json`, `tokenizer_config.json` and a
//! Jinja chat template with the semantics of Hugging Face transformers. [`TokenStream`] turns ids into
//! text as they come, [`ChannelStream`] also tells reasoning, answers and calls of tools apart.

mod channels;
mod chat;
mod detokenize;
mod error;
mod model;
mod stop;
mod stream;
mod template;
mod transcript;

pub use channels::{Channel, ChannelEvent, ChannelKind, ChannelStream};
pub use error::TextError;
pub use model::{Message, TextModel};
pub use stream::{Pushed, TokenStream};
pub use transcript::{ChannelText, Transcript};
