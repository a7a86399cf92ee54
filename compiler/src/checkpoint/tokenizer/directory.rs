//! Which files of a directory make its tokenizer.

use std::path::Path;

use serde_json::{Map, Value};

use super::class::Class;
use super::declared::{Declarations, Declared};
use super::model_file::{self, Manner};
use super::{TextAssets, apply, check, template, vocab_files};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::files::Files;

const TOKENIZER: &str = "tokenizer.json";
const MODEL: &str = "tokenizer.model";
/// Tokenizers that Kiln does not read.
const UNREAD: &[&str] = &[
    "tekken.json",
    "tiktoken.model",
    "qwen.tiktoken",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.txt",
    "vocab.json",
];

/// The text files of a checkpoint, whose `config` is that of `config.json`; `None` without a tokenizer. What a user should
/// know of them goes to `warnings`.
///
/// # Errors
/// A file that cannot be read, or is not what its name says.
pub(in crate::checkpoint) fn read(
    directory: &Path,
    files: &Files,
    config: &Value,
    warnings: &mut Vec<String>,
) -> Result<Option<TextAssets>, CheckpointError> {
    let object = |name: &str| files.json(&directory.join(name)).map(Option::unwrap_or_default);
    let declarations = Declarations {
        tokenizer_config: object("tokenizer_config.json")?,
        special_tokens_map: object("special_tokens_map.json")?,
        added_tokens: object("added_tokens.json")?,
    };
    let class = Class::of(&declarations.tokenizer_config, config);
    let mut declared = Declared::read(&declarations);
    let path = directory.join(TOKENIZER);
    let found = files.json(&path)?;
    let made = found.is_none();
    let found = match found {
        Some(tokenizer) => Some(check::checked(tokenizer, &path)?),
        None => make(
            directory,
            files,
            class,
            &declarations.tokenizer_config,
            &mut declared,
            warnings,
        )?,
    };
    let Some(mut tokenizer) = found else {
        return Ok(None);
    };
    apply::add_tokens(&mut tokenizer, &declared);
    if made {
        apply::set_frame(&mut tokenizer, &declared, &declarations.tokenizer_config);
    }
    apply::set_prefix_space(&mut tokenizer, class, &declarations.tokenizer_config);
    apply::spell_out_digits(&mut tokenizer["pre_tokenizer"]);
    Ok(Some(TextAssets {
        tokenizer_config_json: Some(names(&declared, class, &tokenizer).to_string()),
        tokenizer_json: tokenizer.to_string(),
        chat_template: template::read(directory, files, &declarations.tokenizer_config, warnings)?,
    }))
}

/// Makes a tokenizer of the files that older checkpoints have instead of `tokenizer.json`.
fn make(
    directory: &Path,
    files: &Files,
    class: Class,
    tokenizer_config: &Value,
    declared: &mut Declared,
    warnings: &mut Vec<String>,
) -> Result<Option<Value>, CheckpointError> {
    let advice =
        "make a tokenizer.json with transformers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)";
    let (vocab, merges) = (directory.join("vocab.json"), directory.join("merges.txt"));
    if vocab.exists() && merges.exists() {
        return vocab_files::read(&vocab, &merges, files, class).map(Some);
    }
    if let Some(bytes) = files.bytes(&directory.join(MODEL))? {
        let manner = Manner {
            legacy: tokenizer_config.get("legacy").and_then(Value::as_bool).unwrap_or(true),
            own_class: class != Class::AsInFile,
        };
        match model_file::convert(&bytes, manner, declared) {
            Ok(tokenizer) => return Ok(Some(tokenizer)),
            Err(fault) => warnings.push(format!(
                "{MODEL} {fault}, so the bundle has no tokenizer and takes token ids only; {advice}"
            )),
        }
        return Ok(None);
    }
    if let Some(file) = UNREAD.iter().find(|file| directory.join(file).exists()) {
        warnings.push(format!(
            "Kiln does not read {file}, so the bundle has no tokenizer and takes token ids only; {advice}"
        ));
    }
    Ok(None)
}

/// The special tokens by name: those that files declare, and those of the class that the vocabulary has.
fn names(declared: &Declared, class: Class, tokenizer: &Value) -> Value {
    let mut names = Map::new();
    let vocabulary = &tokenizer["model"]["vocab"];
    let added = tokenizer["added_tokens"].as_array();
    for (name, token) in class.special_tokens() {
        let known = vocabulary.get(token).is_some()
            || added.is_some_and(|added| added.iter().any(|entry| entry["content"] == **token));
        if known {
            names.insert(name.to_string(), (*token).into());
        }
    }
    for (name, token) in &declared.names {
        names.insert(name.clone(), token.content.clone().into());
    }
    Value::Object(names)
}
