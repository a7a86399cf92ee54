//! Puts what other files declare into a `tokenizer.json` that [`super::check`] has passed.

use serde_json::{Value, json};

use super::class::Class;
use super::declared::{Declared, Token};
use super::file::{frame, isolate, underscores_to_spaces};

/// Adds the declared tokens as transformers does: one that the vocabulary has keeps its id, others get the next. Where a token
/// is declared twice, the flags of `added_tokens_decoder` count.
pub(super) fn add_tokens(tokenizer: &mut Value, declared: &Declared) {
    let mut added = match tokenizer["added_tokens"].take() {
        Value::Array(added) => added,
        _ => Vec::new(),
    };
    let vocabulary = Vocabulary(&tokenizer["model"]["vocab"]);
    for (_, token) in &declared.added {
        match added.iter_mut().find(|known| known["content"] == *token.content) {
            Some(known) => *known = token.entry(known["id"].clone()),
            None => added.push(token.entry(vocabulary.id(&token.content, &added).into())),
        }
    }
    let special = declared.names.iter().map(|(_, token)| token).chain(&declared.extra);
    for token in special {
        if !added.iter().any(|known| known["content"] == *token.content) {
            let id = vocabulary.id(&token.content, &added).into();
            let special = true;
            added.push(
                Token {
                    special,
                    ..token.clone()
                }
                .entry(id),
            );
        }
    }
    tokenizer["added_tokens"] = Value::Array(added);
}

impl Token {
    /// As an entry of `added_tokens`.
    fn entry(&self, id: Value) -> Value {
        json!({
            "id": id,
            "content": self.content,
            "single_word": self.single_word,
            "lstrip": self.lstrip,
            "rstrip": self.rstrip,
            "normalized": self.normalized,
            "special": self.special,
        })
    }
}

/// A model's own tokens: a map to their ids, or the list of a Unigram model.
struct Vocabulary<'a>(&'a Value);

impl Vocabulary<'_> {
    fn get(&self, content: &str) -> Option<u64> {
        match self.0 {
            Value::Object(tokens) => tokens.get(content)?.as_u64(),
            Value::Array(pieces) => {
                let id = pieces.iter().position(|piece| piece[0] == *content)?;
                Some(id as u64)
            }
            _ => None,
        }
    }

    /// The token's id here, or the first behind all tokens.
    fn id(&self, content: &str, added: &[Value]) -> u64 {
        let behind_added = added
            .iter()
            .filter_map(|token| token["id"].as_u64())
            .max()
            .map(|id| id + 1);
        let own = match self.0 {
            Value::Object(tokens) => tokens.len(),
            Value::Array(pieces) => pieces.len(),
            _ => 0,
        };
        self.get(content)
            .unwrap_or_else(|| behind_added.unwrap_or(0).max(own as u64))
    }
}

/// Whether text gets a space in front: a setting of the classes that make a tokenizer of their own.
pub(super) fn set_prefix_space(tokenizer: &mut Value, class: Class, tokenizer_config: &Value) {
    let setting = |name: &str| tokenizer_config.get(name).and_then(Value::as_bool);
    match (class, setting("add_prefix_space")) {
        (Class::AsInFile | Class::Gemma, _) => {}
        (Class::Llama, prefix) => {
            // transformers takes byte-level files as they are, though many name this class.
            if !is_byte_level(&tokenizer["pre_tokenizer"]) && !is_byte_level(&tokenizer["decoder"]) {
                set_metaspace(tokenizer, prefix.unwrap_or(true), setting("legacy").unwrap_or(false));
            }
        }
        (_, Some(prefix)) => set_in_byte_level(&mut tokenizer["pre_tokenizer"], prefix),
        (_, None) => {}
    }
}

fn is_byte_level(step: &Value) -> bool {
    step["type"] == "ByteLevel" || parts(step).is_some_and(|parts| parts.iter().any(is_byte_level))
}

/// The steps of a sequence.
fn parts(step: &Value) -> Option<&Vec<Value>> {
    ["pretokenizers", "decoders"]
        .iter()
        .find_map(|name| step[name].as_array())
}

fn set_in_byte_level(step: &mut Value, prefix: bool) {
    if step["type"] == "ByteLevel" {
        step["add_prefix_space"] = prefix.into();
    } else if let Some(parts) = step.get_mut("pretokenizers").and_then(Value::as_array_mut) {
        parts.iter_mut().for_each(|part| set_in_byte_level(part, prefix));
    }
}

/// Digits by their category instead of a step that knows only ASCII's in JavaScript.
pub(super) fn spell_out_digits(step: &mut Value) {
    if step["type"] == "Digits" {
        let individual = step["individual_digits"].as_bool().unwrap_or(false);
        *step = isolate(if individual { r"\p{N}" } else { r"\p{N}+" });
    } else if let Some(parts) = step.get_mut("pretokenizers").and_then(Value::as_array_mut) {
        parts.iter_mut().for_each(spell_out_digits);
    }
}

/// The steps of transformers' `LlamaTokenizer`, which replace those of the file.
fn set_metaspace(tokenizer: &mut Value, prefix: bool, legacy: bool) {
    let scheme = match (prefix, legacy) {
        (false, _) => "never",
        (true, true) => "always",
        (true, false) => "first",
    };
    tokenizer["normalizer"] = Value::Null;
    tokenizer["pre_tokenizer"] = json!({
        "type": "Metaspace",
        "replacement": "▁",
        "prepend_scheme": scheme,
        "split": false,
    });
    tokenizer["decoder"] = underscores_to_spaces(true, prefix);
}

/// Puts the tokens around a text that `add_bos_token` and `add_eos_token` ask for. transformers heeds them only where it makes
/// the tokenizer itself, and takes what a `tokenizer.json` has otherwise.
pub(super) fn set_frame(tokenizer: &mut Value, declared: &Declared, tokenizer_config: &Value) {
    let token = |name: &str| {
        if tokenizer_config.get(format!("add_{name}")) != Some(&Value::Bool(true)) {
            return None;
        }
        let (_, token) = declared.names.iter().find(|(known, _)| known == name)?;
        let added = tokenizer["added_tokens"].as_array()?;
        let entry = added.iter().find(|entry| entry["content"] == *token.content)?;
        Some((entry["id"].as_u64()?, token.content.as_str()))
    };
    let frame = frame(token("bos_token"), token("eos_token"));
    tokenizer["post_processor"] = frame;
}
