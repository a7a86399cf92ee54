//! The parts of a `tokenizer.json`, as the `tokenizers` crate reads it.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

/// A `tokenizer.json`. Borrows its strings: there may be a million of them.
#[derive(Serialize)]
pub(in crate::checkpoint) struct TokenizerFile<'a> {
    pub version: &'static str,
    pub truncation: (),
    pub padding: (),
    pub added_tokens: Vec<Value>,
    pub normalizer: Value,
    pub pre_tokenizer: Value,
    pub post_processor: Value,
    pub decoder: Value,
    pub model: Model<'a>,
}

/// What differs between kinds of tokenizer.
pub(in crate::checkpoint) struct Pipeline<'a> {
    pub normalizer: Value,
    pub pre_tokenizer: Value,
    pub decoder: Value,
    pub model: Model<'a>,
}

impl<'a> Pipeline<'a> {
    /// With the tokens that are matched whole, and those at the beginning and the end of each text.
    pub fn with_tokens(
        self,
        added_tokens: Vec<Value>,
        bos: Option<(u64, &str)>,
        eos: Option<(u64, &str)>,
    ) -> TokenizerFile<'a> {
        TokenizerFile {
            version: "1.0",
            truncation: (),
            padding: (),
            added_tokens,
            normalizer: self.normalizer,
            pre_tokenizer: self.pre_tokenizer,
            post_processor: frame(bos, eos),
            decoder: self.decoder,
            model: self.model,
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "type")]
pub(in crate::checkpoint) enum Model<'a> {
    #[serde(rename = "BPE")]
    Bpe(Bpe<'a>),
    Unigram(Unigram<'a>),
}

#[derive(Serialize)]
pub(in crate::checkpoint) struct Bpe<'a> {
    pub unk_token: Option<&'a str>,
    pub fuse_unk: bool,
    pub byte_fallback: bool,
    pub ignore_merges: bool,
    pub vocab: Ids<'a>,
    pub merges: Vec<[&'a str; 2]>,
}

#[derive(Serialize)]
pub(in crate::checkpoint) struct Unigram<'a> {
    pub unk_id: Option<usize>,
    pub byte_fallback: bool,
    /// Pieces and their log probabilities, in the order of their ids.
    pub vocab: Vec<(&'a str, f64)>,
}

/// Tokens and their ids, in this order; written as a map.
pub(in crate::checkpoint) struct Ids<'a>(pub Vec<(&'a str, u64)>);

impl<'a> Ids<'a> {
    /// Tokens in the order of their ids.
    pub fn in_order(tokens: &[&'a str]) -> Self {
        Ids(tokens.iter().copied().zip(0..).collect())
    }
}

impl Serialize for Ids<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

/// A token that is matched whole in the text. Decoded text leaves a special one out.
pub(in crate::checkpoint) fn added_token(id: u64, content: &str, special: bool) -> Value {
    json!({
        "id": id,
        "content": content,
        "single_word": false,
        "lstrip": false,
        "rstrip": false,
        "normalized": false,
        "special": special,
    })
}

/// Isolates what a regular expression matches.
pub(in crate::checkpoint) fn isolate(pattern: &str) -> Value {
    json!({
        "type": "Split",
        "pattern": { "Regex": pattern },
        "behavior": "Isolated",
        "invert": false,
    })
}

/// Bytes as the letters of GPT-2's alphabet; before, text is split as GPT-2 does where `use_regex`.
pub(in crate::checkpoint) fn byte_level(use_regex: bool) -> Value {
    json!({
        "type": "ByteLevel",
        "add_prefix_space": false,
        "trim_offsets": false,
        "use_regex": use_regex,
    })
}

/// The decoder of SentencePiece vocabularies: `▁` is a space, and the first one is no part of the text where encoding puts
/// it there.
pub(in crate::checkpoint) fn underscores_to_spaces(byte_fallback: bool, strip_first: bool) -> Value {
    let mut steps = vec![json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " })];
    if byte_fallback {
        steps.push(json!({ "type": "ByteFallback" }));
    }
    steps.push(json!({ "type": "Fuse" }));
    if strip_first {
        steps.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    json!({ "type": "Sequence", "decoders": steps })
}

pub(in crate::checkpoint) fn spaces_to_underscores() -> Value {
    json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" })
}

/// The post-processor that adds tokens at the beginning and the end of each text.
pub(in crate::checkpoint) fn frame(bos: Option<(u64, &str)>, eos: Option<(u64, &str)>) -> Value {
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
