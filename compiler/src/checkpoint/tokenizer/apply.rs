//! Puts what other files declare into a `tokenizer.json` that [`super::check`] has passed.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::class::Class;
use super::declared::{Declared, Token};
use super::file::{frame, isolate, underscores_to_spaces};

/// Adds the declared tokens as transformers does: one that the vocabulary has keeps its id, others get the next. Where a token
/// is declared twice, the flags of `added_tokens_decoder` count.
pub(super) fn add_tokens(tokenizer: &mut Value, declared: &Declared) {
    let entries = match tokenizer["added_tokens"].take() {
        Value::Array(entries) => entries,
        _ => Vec::new(),
    };
    let mut added = Added::new(entries, &tokenizer["model"]["vocab"]);
    for (_, token) in &declared.added {
        added.set(token);
    }
    for token in declared.names.iter().map(|(_, token)| token).chain(&declared.extra) {
        if !added.places.contains_key(&token.content) {
            let special = true;
            added.set(&Token {
                special,
                ..token.clone()
            });
        }
    }
    tokenizer["added_tokens"] = Value::Array(added.entries);
}

/// The entries of `added_tokens`, and what new ones need.
struct Added<'a> {
    entries: Vec<Value>,
    /// Where each token stands. Only looked up: its order does not matter.
    places: HashMap<String, usize>,
    /// A map of the model's own tokens to their ids, or the list of a Unigram model.
    vocabulary: &'a Value,
    /// The first id behind all tokens.
    next: u64,
}

impl<'a> Added<'a> {
    fn new(entries: Vec<Value>, vocabulary: &'a Value) -> Self {
        let own = match vocabulary {
            Value::Object(tokens) => tokens.len(),
            Value::Array(pieces) => pieces.len(),
            _ => 0,
        };
        let behind_added = entries.iter().filter_map(|token| Some(token["id"].as_u64()? + 1)).max();
        let places = entries.iter().enumerate();
        let places = places.filter_map(|(place, token)| Some((token["content"].as_str()?.to_string(), place)));
        Added {
            places: places.collect(),
            vocabulary,
            next: behind_added.unwrap_or(0).max(own as u64),
            entries,
        }
    }

    /// Adds the token, or gives the one that is there these flags.
    fn set(&mut self, token: &Token) {
        if let Some(&place) = self.places.get(&token.content) {
            let known = &mut self.entries[place];
            *known = token.entry(known["id"].clone());
            return;
        }
        let id = self.id_in_vocabulary(&token.content).unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        self.places.insert(token.content.clone(), self.entries.len());
        self.entries.push(token.entry(id.into()));
    }

    fn id_in_vocabulary(&self, content: &str) -> Option<u64> {
        match self.vocabulary {
            Value::Object(tokens) => tokens.get(content)?.as_u64(),
            Value::Array(pieces) => {
                let id = pieces.iter().position(|piece| piece[0] == *content)?;
                Some(id as u64)
            }
            _ => None,
        }
    }
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
