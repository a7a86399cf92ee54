//! SentencePiece BPE vocabularies, which list pieces but no merges.
//!
//! Any two pieces whose concatenation is a piece merge, the best piece first: by score, or for
//! Gemma, whose scores do not follow its merges, by order in the file. Both as in transformers
//! (`generate_merges`, `gguf_tokenizer_mapping.py`).

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;

use serde_json::{Value, json};

use super::cursor::Value as Stored;
use super::metadata::Metadata;
use super::tokenizer::{Bpe, Ids, Pipeline, Vocabulary};
use crate::checkpoint::CheckpointError;

/// Runs of two and more spaces, which the file spells as such, as they reach the model: `▁▁`.
pub(super) fn respell_spaces<'a>(tokens: &[&'a str]) -> Vec<Cow<'a, str>> {
    let spaces = |token: &str| token.contains(' ') && token.trim().is_empty();
    let respell = |&token: &&'a str| match spaces(token) {
        true => Cow::Owned("▁".repeat(token.chars().count())),
        false => Cow::Borrowed(token),
    };
    tokens.iter().map(respell).collect()
}

pub(super) fn gemma<'a>(vocabulary: &'a Vocabulary<'a>) -> Pipeline<'a> {
    let order = (0..vocabulary.tokens.len()).map(|id| -(id as f32)).collect::<Vec<_>>();
    Pipeline {
        normalizer: spaces_to_underscores(),
        pre_tokenizer: json!({
            "type": "Split",
            "pattern": { "String": " " },
            "behavior": "MergedWithPrevious",
            "invert": false,
        }),
        decoder: decoder(false),
        model: model(vocabulary, &order),
        bos_by_default: true,
    }
}

pub(super) fn llama<'a>(
    metadata: &Metadata<'_>,
    vocabulary: &'a Vocabulary<'a>,
) -> Result<Pipeline<'a>, CheckpointError> {
    const SCORES: &str = "tokenizer.ggml.scores";
    let array = metadata.array(SCORES)?;
    let values = array.and_then(|array| array.values()).into_iter().flatten();
    let scores: Vec<f32> = values
        .filter_map(|value| match value {
            Stored::F32(score) if !score.is_nan() => Some(score),
            _ => None,
        })
        .collect();
    if scores.len() != vocabulary.tokens.len() {
        return Err(metadata.mistyped(SCORES, "one number for each token"));
    }
    let prefix = metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let normalizer = if prefix {
        let prepend = json!({ "type": "Prepend", "prepend": "▁" });
        json!({ "type": "Sequence", "normalizers": [prepend, spaces_to_underscores()] })
    } else {
        spaces_to_underscores()
    };
    Ok(Pipeline {
        normalizer,
        pre_tokenizer: Value::Null,
        decoder: decoder(prefix),
        model: model(vocabulary, &scores),
        bos_by_default: true,
    })
}

fn spaces_to_underscores() -> Value {
    json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" })
}

fn decoder(strip_prefix: bool) -> Value {
    let mut steps = vec![
        json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if strip_prefix {
        steps.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    json!({ "type": "Sequence", "decoders": steps })
}

fn model<'a>(vocabulary: &'a Vocabulary<'a>, scores: &[f32]) -> Bpe<'a> {
    let unknown = vocabulary.tokens.iter().find(|token| **token == "<unk>");
    Bpe {
        unk_token: unknown.copied(),
        fuse_unk: true,
        byte_fallback: true,
        ignore_merges: false,
        vocab: Ids(&vocabulary.tokens),
        merges: merges(&vocabulary.tokens, scores),
    }
}

/// All pairs of pieces that make a piece: best score first, then the longer left part, the longer
/// right part, and the order of the pieces.
fn merges<'a>(tokens: &[&'a str], scores: &[f32]) -> Vec<[&'a str; 2]> {
    // Only looked up, never walked: its order does not matter.
    let ids: HashMap<&str, usize> = tokens.iter().enumerate().map(|(id, &token)| (token, id)).collect();
    let mut merges = Vec::new();
    for (id, &token) in tokens.iter().enumerate() {
        for (cut, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(cut);
            if let (Some(&left_id), Some(&right_id)) = (ids.get(left), ids.get(right)) {
                let lengths = (left.chars().count(), right.chars().count());
                merges.push((scores[id], Reverse(lengths), id, (left_id, right_id), [left, right]));
            }
        }
    }
    merges.sort_unstable_by(|a, b| {
        let by_score = b.0.total_cmp(&a.0);
        by_score.then_with(|| (a.1, a.2, a.3).cmp(&(b.1, b.2, b.3)))
    });
    merges.into_iter().map(|merge| merge.4).collect()
}
