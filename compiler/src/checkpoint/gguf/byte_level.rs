//! Byte-level BPE as in GPT-2, with the pre-tokenizer that `tokenizer.ggml.pre` names.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::metadata::Metadata;
use super::tokenizer::{Bpe, Ids, Pipeline, Vocabulary};
use crate::checkpoint::CheckpointError;

pub(super) fn translate<'a>(
    metadata: &Metadata<'a>,
    vocabulary: &'a Vocabulary<'a>,
) -> Result<Pipeline<'a>, CheckpointError> {
    let pre = metadata.text("tokenizer.ggml.pre")?.unwrap_or("default");
    let llama3 = matches!(pre, "llama-bpe" | "llama3" | "llama-v3" | "lfm2");
    let (normalizer, pre_tokenizer) = match pre {
        "gpt-2" | "olmo" => (Value::Null, bytes(true)),
        "smollm" => {
            let digits = json!({ "type": "Digits", "individual_digits": true });
            let both = json!({ "type": "Sequence", "pretokenizers": [digits, bytes(true)] });
            (Value::Null, both)
        }
        "qwen2" => (json!({ "type": "NFC" }), split(&words(r"\p{N}"))),
        "gpt-4o" => (Value::Null, split(O200K)),
        _ if llama3 => (Value::Null, split(&words(r"\p{N}{1,3}"))),
        other => {
            let what = format!(
                "pre-tokenizer {other:?} cannot be translated, only gpt-2, olmo, smollm, llama-bpe, \
                 lfm2, qwen2 and gpt-4o; use the model's Hugging Face directory"
            );
            return Err(metadata.unsupported(what));
        }
    };
    let lines = metadata.texts("tokenizer.ggml.merges")?.unwrap_or_default();
    let mut merges = Vec::with_capacity(lines.len());
    // Only asked for members: its order does not matter.
    let tokens: HashSet<&str> = vocabulary.tokens.iter().copied().collect();
    for line in lines {
        match line.split_once(' ') {
            Some((left, right))
                if [left, right, &[left, right].concat()]
                    .iter()
                    .all(|part| tokens.contains(part)) =>
            {
                merges.push([left, right]);
            }
            _ => {
                let what = format!("merge {line:?} does not join two tokens to a third");
                return Err(metadata.damaged(what));
            }
        }
    }
    Ok(Pipeline {
        normalizer,
        pre_tokenizer,
        decoder: bytes(true),
        model: Bpe {
            unk_token: None,
            fuse_unk: false,
            byte_fallback: false,
            ignore_merges: llama3,
            vocab: Ids(&vocabulary.tokens),
            merges,
        },
        bos_by_default: llama3,
    })
}

/// One regular expression for Llama 3 and Qwen, but for the digits in a token.
fn words(digits: &str) -> String {
    format!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
}

/// GPT-4o's and GPT-OSS's: `o200k_base` in
/// <https://github.com/openai/tiktoken/blob/main/tiktoken_ext/openai_public.py>.
const O200K: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

fn split(pattern: &str) -> Value {
    let split = json!({
        "type": "Split",
        "pattern": { "Regex": pattern },
        "behavior": "Isolated",
        "invert": false,
    });
    json!({ "type": "Sequence", "pretokenizers": [split, bytes(false)] })
}

fn bytes(use_regex: bool) -> Value {
    json!({
        "type": "ByteLevel",
        "add_prefix_space": false,
        "trim_offsets": false,
        "use_regex": use_regex,
    })
}
