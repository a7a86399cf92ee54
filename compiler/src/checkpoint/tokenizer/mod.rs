//! The text side of a Hugging Face directory, as transformers' `AutoTokenizer` understands it, written down as one
//! `tokenizer.json` that says everything.
//!
//! [`directory`] finds the files; [`model_file`] and [`vocab_files`] write a `tokenizer.json` where there is none but what
//! one is made from; [`declared`] reads what other files declare about tokens, and [`apply`] puts it in;
//! [`check`] refuses what the `tokenizers` crate would.

mod apply;
mod check;
mod class;
mod declared;
mod directory;
mod file;
mod merges;
mod model_file;
mod protobuf;
mod template;
mod vocab_files;

pub(super) use directory::read;
pub(super) use file::{
    Bpe, Ids, Model, Pipeline, added_token, byte_level, isolate, spaces_to_underscores, underscores_to_spaces,
};
pub(super) use merges::merges_by_score;

/// The files that turn text into token ids and back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextAssets {
    /// Text of a Hugging Face `tokenizer.json`.
    pub tokenizer_json: String,
    /// Text of a `tokenizer_config.json`: the special tokens by name.
    pub tokenizer_config_json: Option<String>,
    /// Jinja source.
    pub chat_template: Option<String>,
}
