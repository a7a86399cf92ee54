//! Metadata to `tokenizer.json`, in the form that the `tokenizers` crate reads.
//!
//! What llama.cpp and transformers agree on is followed to the id; where the file leaves a choice,
//! the Hugging Face tokenizer of the model family decides (see [`super::sentencepiece`] for Gemma).

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::metadata::Metadata;
use super::pre_tokenizers::PreTokenizer;
use super::vocabulary::Vocabulary;
use super::{Family, byte_level, sentencepiece};
use crate::checkpoint::{CheckpointError, TextAssets};

/// The kind of tokenizer, where there is one: models without also say so.
fn model<'a>(metadata: &Metadata<'a>) -> Result<Option<&'a str>, CheckpointError> {
    let model = metadata.text("tokenizer.ggml.model")?;
    Ok(model.filter(|model| !matches!(*model, "none" | "no_vocab")))
}

/// `None` for a file without a tokenizer.
pub(super) fn translate(family: Family, metadata: &Metadata<'_>) -> Result<Option<TextAssets>, CheckpointError> {
    let Some(model) = model(metadata)? else {
        return Ok(None);
    };
    let mut vocabulary = Vocabulary::read(metadata)?;
    let (pipeline, bos_by_default) = match model {
        "gpt2" => {
            let pre_tokenizer = PreTokenizer::of(metadata)?;
            let pipeline = byte_level::translate(metadata, &vocabulary, pre_tokenizer)?;
            (pipeline, pre_tokenizer.bos)
        }
        "llama" => {
            sentencepiece::define_runs_of_spaces(&mut vocabulary);
            let pipeline = match family {
                Family::Gemma3 => sentencepiece::gemma(&vocabulary),
                _ => sentencepiece::llama(metadata, &vocabulary)?,
            };
            (pipeline, true)
        }
        other => {
            let what = format!(
                "tokenizer model {other:?} cannot be translated, only gpt2 and llama; use the \
                 model's Hugging Face directory"
            );
            return Err(metadata.unsupported(what));
        }
    };
    let special = |name: &str| -> Result<Option<(u64, &str)>, CheckpointError> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let Some(id) = metadata.size(&key)? else {
            return Ok(None);
        };
        match vocabulary.tokens.get(id as usize) {
            Some(token) => Ok(Some((id, *token))),
            None => Err(metadata.damaged(format!("metadata {key} {id} is beyond the vocabulary"))),
        }
    };
    let (bos, eos) = (special("bos")?, special("eos")?);
    let add_bos = metadata.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(bos_by_default);
    let add_eos = metadata.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    let tokenizer = pipeline.with_tokens(
        vocabulary.added_tokens(),
        bos.filter(|_| add_bos),
        eos.filter(|_| add_eos),
    );
    let tokenizer_json = serde_json::to_string(&tokenizer).map_err(|e| metadata.damaged(e.to_string()))?;
    let mut config = Map::new();
    let named = [
        ("bos", bos),
        ("eos", eos),
        ("unk", special("unknown")?),
        ("pad", special("padding")?),
    ];
    for (name, token) in named {
        if let Some((_, token)) = token {
            config.insert(format!("{name}_token"), json!(token));
        }
    }
    Ok(Some(TextAssets {
        tokenizer_json,
        tokenizer_config_json: Some(Value::Object(config).to_string()),
        chat_template: metadata.text("tokenizer.chat_template")?.map(str::to_string),
    }))
}

/// What a user should know of the tokenizer.
pub(super) fn warnings(metadata: &Metadata<'_>) -> Result<Vec<String>, CheckpointError> {
    let unnamed = model(metadata)? == Some("gpt2") && metadata.text("tokenizer.ggml.pre")?.is_none();
    let warning = "the file does not say how its model cuts text into words (tokenizer.ggml.pre), so that is done in \
                   llama.cpp's default way and some tokens may be others than the model knows; a newer conversion says it";
    Ok(Vec::from_iter(unnamed.then(|| warning.to_string())))
}

/// Tokens at which generation stops: those that the file names, first the end of text, and those that its vocabulary has.
pub(super) fn end_tokens(metadata: &Metadata<'_>) -> Result<Vec<u32>, CheckpointError> {
    let mut ends = Vec::new();
    for name in ["eos", "eot", "eom"] {
        let id = metadata.size(&format!("tokenizer.ggml.{name}_token_id"))?;
        ends.extend(id.and_then(|id| u32::try_from(id).ok()));
    }
    if metadata.get("tokenizer.ggml.tokens").is_some() {
        ends.extend(Vocabulary::read(metadata)?.ends());
    }
    let mut seen = BTreeSet::new();
    ends.retain(|end| seen.insert(*end));
    Ok(ends)
}
