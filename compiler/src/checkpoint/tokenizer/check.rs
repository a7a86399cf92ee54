//! Whether a `tokenizer.json` is one, as far as that can be told without its regular expressions: the `tokenizers` crate, which
//! the runtime opens it with, would bring the compiler forty crates more.

use std::path::Path;

use serde_json::{Map, Value};

use crate::checkpoint::CheckpointError;

/// Gives the tokenizer back if a runtime can use it; `path` is named where it cannot.
///
/// # Errors
/// [`CheckpointError::Tokenizer`].
pub(super) fn checked(tokenizer: Value, path: &Path) -> Result<Value, CheckpointError> {
    match check(&tokenizer) {
        Ok(()) => Ok(tokenizer),
        Err(what) => Err(CheckpointError::Tokenizer {
            file: path.display().to_string(),
            what,
        }),
    }
}

type Fault = Result<(), String>;

const ENTRIES: &[&str] = &[
    "version",
    "truncation",
    "padding",
    "added_tokens",
    "normalizer",
    "pre_tokenizer",
    "post_processor",
    "decoder",
    "model",
];

fn check(tokenizer: &Value) -> Fault {
    let entries = tokenizer.as_object().ok_or("is no JSON object")?;
    if let Some(other) = entries.keys().find(|key| !ENTRIES.contains(&key.as_str())) {
        return Err(format!("has the entry {other:?}, so it is no tokenizer"));
    }
    if let Some(version) = tokenizer.get("version").filter(|version| **version != "1.0") {
        return Err(format!("has version {version}, where Kiln reads \"1.0\""));
    }
    check_model(tokenizer.get("model").ok_or("has no model")?)?;
    let added = tokenizer.get("added_tokens").map(|_| array(tokenizer, "added_tokens"));
    for (index, token) in added.transpose()?.into_iter().flatten().enumerate() {
        let content = token.get("content").and_then(Value::as_str);
        let id = token
            .get("id")
            .and_then(Value::as_u64)
            .and_then(|id| u32::try_from(id).ok());
        let (Some(content), Some(_)) = (content, id) else {
            return Err(format!("has no text or no id for added_tokens[{index}]"));
        };
        for flag in ["single_word", "lstrip", "rstrip", "normalized", "special"] {
            if token.get(flag).and_then(Value::as_bool).is_none() {
                return Err(format!("does not say whether the added token {content:?} is {flag}"));
            }
        }
    }
    for (name, list, kinds) in STEPS {
        check_step(tokenizer.get(*name).unwrap_or(&Value::Null), name, list, kinds)?;
    }
    check_post_processor(tokenizer.get("post_processor").unwrap_or(&Value::Null))
}

/// Steps: where they stand, what their sequences call their parts, and their kinds.
const STEPS: &[(&str, &str, &[&str])] = &[
    (
        "normalizer",
        "normalizers",
        &[
            "BertNormalizer",
            "Strip",
            "StripAccents",
            "NFC",
            "NFD",
            "NFKC",
            "NFKD",
            "Sequence",
            "Lowercase",
            "Nmt",
            "Precompiled",
            "Replace",
            "Prepend",
            "ByteLevel",
        ],
    ),
    (
        "pre_tokenizer",
        "pretokenizers",
        &[
            "BertPreTokenizer",
            "ByteLevel",
            "CharDelimiterSplit",
            "Metaspace",
            "Whitespace",
            "Sequence",
            "Split",
            "Punctuation",
            "WhitespaceSplit",
            "Digits",
            "UnicodeScripts",
            "FixedLength",
        ],
    ),
    (
        "decoder",
        "decoders",
        &[
            "BPEDecoder",
            "ByteLevel",
            "WordPiece",
            "Metaspace",
            "CTC",
            "Sequence",
            "Replace",
            "Fuse",
            "Strip",
            "ByteFallback",
        ],
    ),
    (
        "post_processor",
        "processors",
        &[
            "RobertaProcessing",
            "BertProcessing",
            "ByteLevel",
            "TemplateProcessing",
            "Sequence",
        ],
    ),
];

fn check_step(step: &Value, name: &str, list: &str, kinds: &[&str]) -> Fault {
    if step.is_null() {
        return Ok(());
    }
    let kind = step.get("type").and_then(Value::as_str);
    match kind.filter(|kind| kinds.contains(kind)) {
        Some("Sequence") => {
            let parts = array(step, list).map_err(|what| format!("{what} in {name}"))?;
            parts.iter().try_for_each(|part| check_step(part, name, list, kinds))
        }
        Some(_) => Ok(()),
        None => Err(format!("has a {name} of no known kind ({})", kind.unwrap_or("none"))),
    }
}

/// A template of tokens around a text must say what ids they have.
fn check_post_processor(step: &Value) -> Fault {
    if step["type"] == "Sequence" {
        let parts = step["processors"].as_array().into_iter().flatten();
        return parts.into_iter().try_for_each(check_post_processor);
    }
    if step["type"] != "TemplateProcessing" {
        return Ok(());
    }
    for piece in array(step, "single")?.iter().chain(array(step, "pair")?) {
        let Some(special) = piece.get("SpecialToken") else {
            continue;
        };
        let name = special.get("id").and_then(Value::as_str).unwrap_or_default();
        if step["special_tokens"].get(name).is_none() {
            return Err(format!("puts {name:?} around texts and does not say what that is"));
        }
    }
    Ok(())
}

fn check_model(model: &Value) -> Fault {
    let kind = match model.get("type").and_then(Value::as_str) {
        Some(kind) => kind,
        // Files of before 2021 do not say.
        None if model.get("merges").is_some() => "BPE",
        None if model.get("vocab").is_some_and(Value::is_array) => "Unigram",
        None => "WordLevel",
    };
    match kind {
        "Unigram" => {
            let pieces = array(model, "vocab")?;
            let no_piece = |piece: &Value| piece[0].as_str().is_none() || piece[1].as_f64().is_none();
            if let Some(id) = pieces.iter().position(no_piece) {
                return Err(format!("has a vocabulary whose entry {id} is no token with a score"));
            }
            match model.get("unk_id").filter(|id| !id.is_null()) {
                Some(id) if id.as_u64().is_none_or(|id| id >= pieces.len() as u64) => {
                    Err(format!("has the unknown token {id} outside its vocabulary"))
                }
                _ => Ok(()),
            }
        }
        "BPE" | "WordPiece" | "WordLevel" => {
            let vocabulary = model.get("vocab").and_then(Value::as_object);
            let vocabulary = vocabulary.ok_or("has a model without vocabulary")?;
            for (token, id) in vocabulary {
                if id.as_u64().is_none_or(|id| u32::try_from(id).is_err()) {
                    return Err(format!("has no id for the token {token:?}"));
                }
            }
            match kind {
                "BPE" => check_merges(model, vocabulary),
                _ => Ok(()),
            }
        }
        other => Err(format!("has a model of no known kind ({other})")),
    }
}

fn check_merges(model: &Value, vocabulary: &Map<String, Value>) -> Fault {
    let prefix = model
        .get("continuing_subword_prefix")
        .and_then(Value::as_str)
        .unwrap_or_default();
    for (index, merge) in array(model, "merges")?.iter().enumerate() {
        if merge.as_str().is_some_and(|line| line.starts_with("#version")) {
            continue;
        }
        let pair = match merge {
            Value::String(pair) => pair.split_once(' ').filter(|(_, right)| !right.contains(' ')),
            pair => pair[0].as_str().zip(pair[1].as_str()).filter(|_| pair[2].is_null()),
        };
        let joined = pair.map(|(left, right)| [left, right.strip_prefix(prefix).unwrap_or(right)].concat());
        let parts = pair.zip(joined.as_deref());
        if !parts.is_some_and(|((left, right), joined)| {
            [left, right, joined].iter().all(|part| vocabulary.contains_key(*part))
        }) {
            return Err(format!(
                "has merge {index}, {merge}, which does not join two tokens to a third"
            ));
        }
    }
    Ok(())
}

fn array<'a>(value: &'a Value, name: &str) -> Result<&'a Vec<Value>, String> {
    let array = value.get(name).and_then(Value::as_array);
    array.ok_or_else(|| format!("has no list of {name}"))
}
