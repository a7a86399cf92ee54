//! SentencePiece BPE vocabularies, which list pieces but no merges.
//!
//! Any two pieces whose concatenation is a piece merge, the best piece first: by score, or for
//! Gemma, whose scores do not follow its merges, by order in the file. Both as in transformers
//! (`generate_merges`, `gguf_tokenizer_mapping.py`).
//!
//! A run of two and more spaces is spelled as such and, as in SentencePiece and llama.cpp, is matched in the text before
//! anything merges, the longest first.

use serde_json::{Value, json};

use super::cursor::Value as Stored;
use super::metadata::Metadata;
use super::vocabulary::{Kind, Vocabulary};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::tokenizer::{
    Bpe, Ids, Model, Pipeline, merges_by_score, spaces_to_underscores, underscores_to_spaces,
};

/// Runs of spaces are user-defined whatever kind the file gives them: no merge makes them.
pub(super) fn define_runs_of_spaces(vocabulary: &mut Vocabulary<'_>) {
    for (token, kind) in vocabulary.tokens.iter().zip(&mut vocabulary.kinds) {
        if token.len() > 1 && token.bytes().all(|byte| byte == b' ') {
            *kind = Kind::UserDefined;
        }
    }
}

pub(super) fn gemma<'a>(vocabulary: &Vocabulary<'a>) -> Pipeline<'a> {
    let order = (0..vocabulary.tokens.len()).map(|id| -(id as f32)).collect::<Vec<_>>();
    Pipeline {
        normalizer: spaces_to_underscores(),
        pre_tokenizer: json!({
            "type": "Split",
            "pattern": { "String": " " },
            "behavior": "MergedWithPrevious",
            "invert": false,
        }),
        decoder: underscores_to_spaces(true, false),
        model: model(vocabulary, &order),
    }
}

pub(super) fn llama<'a>(metadata: &Metadata<'_>, vocabulary: &Vocabulary<'a>) -> Result<Pipeline<'a>, CheckpointError> {
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
        decoder: underscores_to_spaces(true, prefix),
        model: model(vocabulary, &scores),
    })
}

fn model<'a>(vocabulary: &Vocabulary<'a>, scores: &[f32]) -> Model<'a> {
    let unknown = vocabulary.tokens.iter().find(|token| **token == "<unk>");
    Model::Bpe(Bpe {
        unk_token: unknown.copied(),
        fuse_unk: true,
        byte_fallback: true,
        ignore_merges: false,
        vocab: Ids::in_order(&vocabulary.tokens),
        merges: merges_by_score(&vocabulary.tokens, scores, |_| true),
    })
}
