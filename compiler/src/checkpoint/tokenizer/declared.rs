//! What the files beside `tokenizer.json` declare about tokens.

use serde_json::{Map, Value};

/// A token that is matched whole in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub content: String,
    pub single_word: bool,
    pub lstrip: bool,
    pub rstrip: bool,
    pub normalized: bool,
    pub special: bool,
}

/// Tokens and their names.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Declared {
    /// `bos_token` and its like, in the order of the files.
    pub names: Vec<(String, Token)>,
    /// Tokens that are matched whole, in the order of their ids. transformers takes the flags from here, and the id from the
    /// vocabulary: the next one where the token is not in it.
    pub added: Vec<(u64, Token)>,
    /// Special tokens without a name.
    pub extra: Vec<Token>,
}

/// The files, each an object, or null where it is absent.
#[derive(Default)]
pub(super) struct Declarations {
    pub tokenizer_config: Value,
    pub special_tokens_map: Value,
    pub added_tokens: Value,
}

impl Declared {
    /// As transformers reads them: `added_tokens_decoder` of `tokenizer_config.json` makes the two older files void.
    pub fn read(files: &Declarations) -> Self {
        let mut entries: Map<String, Value> = files.tokenizer_config.as_object().cloned().unwrap_or_default();
        let decoder = entries.remove("added_tokens_decoder");
        let decoder = decoder.as_ref().and_then(Value::as_object);
        if decoder.is_none()
            && let Some(map) = files.special_tokens_map.as_object()
        {
            entries.extend(map.clone());
        }
        let mut declared = Declared::default();
        // The older name of the list counts only without the newer.
        let extra = [
            entries.get("extra_special_tokens"),
            entries.get("additional_special_tokens"),
        ];
        match extra.into_iter().flatten().find(|value| !is_empty(value)) {
            Some(Value::Array(tokens)) => declared.extra = tokens.iter().filter_map(Token::special).collect(),
            Some(Value::Object(names)) => declared.names.extend(named(names, |_| true)),
            _ => {}
        }
        declared.names.extend(named(&entries, |name| name.ends_with("_token")));
        declared.added = match decoder {
            Some(tokens) => {
                let token = |(id, value): (&String, &Value)| Some((id.parse().ok()?, Token::of(value, false)?));
                tokens.iter().filter_map(token).collect()
            }
            None => declared.older_added_tokens(&files.added_tokens),
        };
        declared.added.sort_by_key(|(id, _)| *id);
        for (_, named) in &mut declared.names {
            if let Some((_, token)) = declared.added.iter().find(|(_, token)| token.content == named.content) {
                *named = token.clone();
            }
        }
        declared
    }

    /// `added_tokens.json` has ids alone: what is special stands elsewhere.
    fn older_added_tokens(&self, file: &Value) -> Vec<(u64, Token)> {
        let special = |content: &str| {
            let named = self.names.iter().map(|(_, token)| token);
            named.chain(&self.extra).any(|token| token.content == content)
        };
        let tokens = file.as_object().into_iter().flatten();
        let tokens = tokens.filter_map(|(content, id)| Some((id.as_u64()?, Token::new(content, special(content)))));
        tokens.collect()
    }
}

impl Token {
    pub fn new(content: &str, special: bool) -> Self {
        Token {
            content: content.to_string(),
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: !special,
            special,
        }
    }

    /// A special token: its text, or an object with it.
    fn special(value: &Value) -> Option<Self> {
        match value {
            Value::String(content) => Some(Token::new(content, true)),
            value => Token::of(value, true),
        }
    }

    /// An object with `content` and flags.
    pub fn of(value: &Value, special: bool) -> Option<Self> {
        let flag = |name: &str| value.get(name).and_then(Value::as_bool);
        let special = special || flag("special").unwrap_or(false);
        Some(Token {
            content: value.get("content")?.as_str()?.to_string(),
            single_word: flag("single_word").unwrap_or(false),
            lstrip: flag("lstrip").unwrap_or(false),
            rstrip: flag("rstrip").unwrap_or(false),
            normalized: flag("normalized").unwrap_or(!special),
            special,
        })
    }
}

fn named(entries: &Map<String, Value>, is_name: impl Fn(&str) -> bool) -> Vec<(String, Token)> {
    let entries = entries.iter().filter(|(name, _)| is_name(name));
    let tokens = entries.filter_map(|(name, value)| Some((name.clone(), Token::special(value)?)));
    tokens.filter(|(_, token)| !token.content.is_empty()).collect()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        other => other.is_null(),
    }
}
