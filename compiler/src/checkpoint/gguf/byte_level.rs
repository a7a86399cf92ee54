//! Byte-level BPE as in GPT-2, with merges listed in the file.

use std::collections::HashSet;

use super::metadata::Metadata;
use super::pre_tokenizers::PreTokenizer;
use super::vocabulary::Vocabulary;
use crate::checkpoint::CheckpointError;
use crate::checkpoint::tokenizer::{Bpe, Ids, Model, Pipeline, byte_level};

pub(super) fn translate<'a>(
    metadata: &Metadata<'a>,
    vocabulary: &Vocabulary<'a>,
    pre_tokenizer: &PreTokenizer,
) -> Result<Pipeline<'a>, CheckpointError> {
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
        normalizer: pre_tokenizer.normalizer(),
        pre_tokenizer: pre_tokenizer.steps(),
        decoder: byte_level(true),
        model: Model::Bpe(Bpe {
            unk_token: None,
            fuse_unk: false,
            byte_fallback: false,
            ignore_merges: pre_tokenizer.ignore_merges,
            vocab: Ids::in_order(&vocabulary.tokens),
            merges,
        }),
    })
}
