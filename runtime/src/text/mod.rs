//! Text in, text out: tokenizer, chat template, and streaming text from token ids.
//!
//! [`TextModel`] is made of a checkpoint's own files: `tokenizer.json`, `tokenizer_config.json` and a
//! Jinja chat template with the semantics of Hugging Face transformers. [`TokenStream`] turns ids into
//! text as they come.

mod chat;
mod detokenize;
mod error;
mod jinja;
mod model;
mod python;
mod stop;
mod stream;

pub use error::TextError;
pub use model::{Message, TextModel};
pub use stream::{Pushed, TokenStream};
