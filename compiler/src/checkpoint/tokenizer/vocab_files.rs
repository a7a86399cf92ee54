//! `vocab.json` and `merges.txt`: byte-level BPE as GPT-2 came with it.

use std::path::Path;

use serde_json::{Value, json};

use super::check;
use super::class::Class;
use super::file::{Bpe, Ids, Model, Pipeline, byte_level, isolate};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::files::Files;

/// Qwen's words; also in transformers' `tokenization_qwen2.py`.
const QWEN_WORDS: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|",
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// # Errors
/// Unreadable files, and what makes no tokenizer.
pub(super) fn read(vocab: &Path, merges: &Path, files: &Files, class: Class) -> Result<Value, CheckpointError> {
    let tokens = files.json(vocab)?.unwrap_or_default();
    let lines = files.text(merges)?.unwrap_or_default();
    let fault = |path: &Path, what: String| CheckpointError::Tokenizer {
        file: path.display().to_string(),
        what,
    };
    let entries = tokens.as_object().into_iter().flatten();
    let ids = entries.map(|(token, id)| match id.as_u64() {
        Some(id) => Ok((token.as_str(), id)),
        None => Err(fault(vocab, format!("has no id for the token {token:?}"))),
    });
    let ids: Vec<(&str, u64)> = ids.collect::<Result<_, _>>()?;
    let lines = lines.lines().map(str::trim_end);
    let pairs = lines.filter(|line| !line.is_empty() && !line.starts_with("#version"));
    let pairs = pairs.map(|line| match line.split_once(' ') {
        Some((left, right)) => Ok([left, right]),
        None => Err(fault(
            merges,
            format!("has the line {line:?}, which is no pair of tokens"),
        )),
    });
    let normalizer = match class {
        Class::Qwen2 | Class::GptNeoX | Class::Cohere => json!({ "type": "NFC" }),
        _ => Value::Null,
    };
    let pre_tokenizer = match class {
        Class::Qwen2 => json!({ "type": "Sequence", "pretokenizers": [isolate(QWEN_WORDS), byte_level(false)] }),
        _ => byte_level(true),
    };
    let pipeline = Pipeline {
        normalizer,
        pre_tokenizer,
        decoder: byte_level(true),
        model: Model::Bpe(Bpe {
            unk_token: None,
            fuse_unk: false,
            byte_fallback: false,
            ignore_merges: false,
            vocab: Ids(ids),
            merges: pairs.collect::<Result<_, _>>()?,
        }),
    };
    let file = pipeline.with_tokens(Vec::new(), None, None);
    let tokenizer = serde_json::to_value(&file).map_err(|error| fault(vocab, error.to_string()))?;
    check::checked(tokenizer, merges)
}
