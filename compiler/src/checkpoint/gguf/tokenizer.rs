//! Metadata to `tokenizer.json`, in the form that the `tokenizers` crate reads.
//!
//! What llama.cpp and transformers agree on is followed to the id; where the file leaves a choice,
//! the Hugging Face tokenizer of the model family decides (see [`super::sentencepiece`] for Gemma).

use std::collections::BTreeSet;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::cursor::Value as Stored;
use super::metadata::Metadata;
use super::{Family, byte_level, sentencepiece};
use crate::checkpoint::{CheckpointError, TextAssets};

/// Ends of a turn by name: a chat stops there even where the file names only an end of text.
const TURN_ENDS: &[&str] = &[
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|return|>",
    "<|call|>",
];

/// `llama_token_type` in llama.cpp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Part of the model's vocabulary proper (also bytes and unused tokens).
    Normal,
    /// Matched whole in the text, and left out of decoded text.
    Control,
    /// Matched whole in the text.
    UserDefined,
}

/// The tokens of a file with their kinds.
pub(super) struct Vocabulary<'a> {
    pub tokens: Vec<&'a str>,
    pub kinds: Vec<Kind>,
}

/// A `tokenizer.json`.
#[derive(Serialize)]
struct TokenizerFile<'a> {
    version: &'static str,
    truncation: (),
    padding: (),
    added_tokens: Vec<Value>,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    model: Bpe<'a>,
}

/// The parts of a `tokenizer.json` that differ between kinds of tokenizer.
pub(super) struct Pipeline<'a> {
    pub normalizer: Value,
    pub pre_tokenizer: Value,
    pub decoder: Value,
    pub model: Bpe<'a>,
    /// Whether text starts with the beginning-of-sequence token where the file says nothing.
    pub bos_by_default: bool,
}

/// The `model` of a `tokenizer.json`. Borrows its strings: there may be a million of them.
#[derive(Serialize)]
#[serde(tag = "type", rename = "BPE")]
pub(super) struct Bpe<'a> {
    pub unk_token: Option<&'a str>,
    pub fuse_unk: bool,
    pub byte_fallback: bool,
    pub ignore_merges: bool,
    pub vocab: Ids<'a>,
    pub merges: Vec<[&'a str; 2]>,
}

/// Tokens in the order of their ids; written as a map to them.
pub(super) struct Ids<'a>(pub &'a [&'a str]);

impl Serialize for Ids<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().enumerate().map(|(id, token)| (token, id)))
    }
}

/// `None` for a file without a tokenizer.
pub(super) fn translate(family: Family, metadata: &Metadata<'_>) -> Result<Option<TextAssets>, CheckpointError> {
    let Some(model) = metadata.text("tokenizer.ggml.model")? else {
        return Ok(None);
    };
    let mut vocabulary = Vocabulary::read(metadata)?;
    let respelled;
    let pipeline = match (model, family) {
        ("gpt2", _) => byte_level::translate(metadata, &vocabulary)?,
        ("llama", Family::Gemma3) => {
            respelled = sentencepiece::respell_spaces(&vocabulary.tokens);
            vocabulary.tokens = respelled.iter().map(|token| token.as_ref()).collect();
            sentencepiece::gemma(&vocabulary)
        }
        ("llama", _) => sentencepiece::llama(metadata, &vocabulary)?,
        (other, _) => {
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
    let add_bos = metadata.bool("tokenizer.ggml.add_bos_token")?;
    let add_bos = add_bos.unwrap_or(pipeline.bos_by_default);
    let add_eos = metadata.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    let frame = (bos.filter(|_| add_bos), eos.filter(|_| add_eos));
    let tokenizer = TokenizerFile {
        version: "1.0",
        truncation: (),
        padding: (),
        added_tokens: vocabulary.added_tokens(),
        normalizer: pipeline.normalizer,
        pre_tokenizer: pipeline.pre_tokenizer,
        post_processor: post_processor(frame.0, frame.1),
        decoder: pipeline.decoder,
        model: pipeline.model,
    };
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
    config.insert("add_bos_token".to_string(), json!(add_bos));
    config.insert("add_eos_token".to_string(), json!(add_eos));
    config.insert("clean_up_tokenization_spaces".to_string(), json!(false));
    Ok(Some(TextAssets {
        tokenizer_json,
        tokenizer_config_json: Some(Value::Object(config).to_string()),
        chat_template: metadata.text("tokenizer.chat_template")?.map(str::to_string),
    }))
}

/// Tokens at which generation stops: the end of text, and the end of a turn where the file or
/// the vocabulary names one.
pub(super) fn end_tokens(metadata: &Metadata<'_>) -> Result<Vec<u32>, CheckpointError> {
    let mut ends = Vec::new();
    for name in ["eos", "eot", "eom"] {
        let id = metadata.size(&format!("tokenizer.ggml.{name}_token_id"))?;
        ends.extend(id.and_then(|id| u32::try_from(id).ok()));
    }
    if metadata.get("tokenizer.ggml.tokens").is_some() {
        let vocabulary = Vocabulary::read(metadata)?;
        for (id, token) in vocabulary.tokens.iter().enumerate() {
            if vocabulary.kinds[id] == Kind::Control && TURN_ENDS.contains(token) {
                ends.extend(u32::try_from(id));
            }
        }
    }
    let mut seen = BTreeSet::new();
    ends.retain(|end| seen.insert(*end));
    Ok(ends)
}

impl<'a> Vocabulary<'a> {
    fn read(metadata: &Metadata<'a>) -> Result<Self, CheckpointError> {
        const KINDS: &str = "tokenizer.ggml.token_type";
        let tokens = metadata
            .texts("tokenizer.ggml.tokens")?
            .ok_or_else(|| metadata.damaged("metadata tokenizer.ggml.tokens is missing".to_string()))?;
        let kind = |value| match value {
            Stored::Signed(2 | 3) | Stored::Unsigned(2 | 3) => Kind::Control,
            Stored::Signed(4) | Stored::Unsigned(4) => Kind::UserDefined,
            _ => Kind::Normal,
        };
        let kinds = match metadata.array(KINDS)? {
            Some(array) => array.values().into_iter().flatten().map(kind).collect(),
            None => vec![Kind::Normal; tokens.len()],
        };
        if kinds.len() != tokens.len() {
            return Err(metadata.mistyped(KINDS, "one number for each token"));
        }
        Ok(Vocabulary { tokens, kinds })
    }

    fn added_tokens(&self) -> Vec<Value> {
        let added = self.tokens.iter().zip(&self.kinds).enumerate();
        let added = added.filter(|(_, (token, kind))| match kind {
            Kind::Normal => false,
            Kind::Control => true,
            // Runs of spaces are merged by the model: text reaches it with ▁ for a space.
            Kind::UserDefined => !token.chars().all(|c| c == '▁'),
        });
        added
            .map(|(id, (token, kind))| {
                json!({
                    "id": id,
                    "content": token,
                    "single_word": false,
                    "lstrip": false,
                    "rstrip": false,
                    "normalized": false,
                    "special": *kind == Kind::Control,
                })
            })
            .collect()
    }
}

/// Adds the tokens at the beginning and the end of each text.
fn post_processor(bos: Option<(u64, &str)>, eos: Option<(u64, &str)>) -> Value {
    if bos.is_none() && eos.is_none() {
        return Value::Null;
    }
    let part = |sequence: &str, type_id: u32| {
        let special = |token: Option<(u64, &str)>| {
            token.map(|(_, token)| json!({ "SpecialToken": { "id": token, "type_id": type_id } }))
        };
        let text = json!({ "Sequence": { "id": sequence, "type_id": type_id } });
        special(bos)
            .into_iter()
            .chain([text])
            .chain(special(eos))
            .collect::<Vec<_>>()
    };
    let mut tokens = Map::new();
    for (id, token) in bos.into_iter().chain(eos) {
        tokens.insert(
            token.to_string(),
            json!({ "id": token, "ids": [id], "tokens": [token] }),
        );
    }
    let pair = [part("A", 0), part("B", 1)].concat();
    json!({
        "type": "TemplateProcessing",
        "single": part("A", 0),
        "pair": pair,
        "special_tokens": tokens,
    })
}
