//! The tokens of a file with their kinds.

use serde_json::Value;

use super::cursor::Value as Stored;
use super::metadata::Metadata;
use crate::checkpoint::CheckpointError;
use crate::checkpoint::tokenizer::added_token;

/// `llama_token_type` in llama.cpp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Part of the model's vocabulary proper (also bytes and unused tokens).
    Normal,
    /// Matched whole in the text, and left out of decoded text.
    Control,
    /// Matched whole in the text.
    UserDefined,
}

pub(super) struct Vocabulary<'a> {
    pub tokens: Vec<&'a str>,
    pub kinds: Vec<Kind>,
}

/// Ends of a text or a turn by name, whatever kind the file gives them, as llama.cpp knows them: a file names one or two ends,
/// and its vocabulary has more.
const ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<turn|>",
    "<|tool_response>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "[e~[",
    "<eos>",
    "<｜end▁of▁sentence｜>",
    // Where one completes code between two parts, the model goes on to another file or has nothing to say.
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
];
/// An end where it is a control token. Gemma has it as HTML's tag.
const END_OR_TAG: &str = "</s>";

impl<'a> Vocabulary<'a> {
    pub fn read(metadata: &Metadata<'a>) -> Result<Self, CheckpointError> {
        const KINDS: &str = "tokenizer.ggml.token_type";
        let tokens = metadata
            .texts("tokenizer.ggml.tokens")?
            .ok_or_else(|| metadata.damaged("metadata tokenizer.ggml.tokens is missing".to_string()))?;
        let kind = |value| match value {
            Stored::Signed(2 | 3) | Stored::Unsigned(2 | 3) => Kind::Control,
            Stored::Signed(4) | Stored::Unsigned(4) => Kind::UserDefined,
            _ => Kind::Normal,
        };
        let mut kinds: Vec<Kind> = match metadata.array(KINDS)? {
            Some(array) => array.values().into_iter().flatten().map(kind).collect(),
            None => vec![Kind::Normal; tokens.len()],
        };
        if kinds.len() != tokens.len() {
            return Err(metadata.mistyped(KINDS, "one number for each token"));
        }
        for (kind, token) in kinds.iter_mut().zip(&tokens) {
            if ENDS.contains(token) {
                *kind = Kind::Control;
            }
        }
        Ok(Vocabulary { tokens, kinds })
    }

    /// Ids of the tokens that end a text or a turn by their names.
    pub fn ends(&self) -> impl Iterator<Item = u32> {
        let has = |token: &str| self.tokens.contains(&token);
        // Harmony and Solar end each message of an answer with `<|end|>`, and the answer with one of the others.
        let end_of_message = (has("<|return|>") && has("<|call|>")) || (has("<|calls|>") && has("<|flush|>"));
        let tokens = (0..).zip(self.tokens.iter().zip(&self.kinds));
        let ends = tokens.filter(move |(_, (token, kind))| {
            **kind == Kind::Control
                && (ENDS.contains(token) || **token == END_OR_TAG)
                && !(end_of_message && **token == "<|end|>")
        });
        ends.map(|(id, _)| id)
    }

    pub fn added_tokens(&self) -> Vec<Value> {
        let tokens = (0..).zip(self.tokens.iter().zip(&self.kinds));
        let added = tokens.filter(|(_, (_, kind))| **kind != Kind::Normal);
        added
            .map(|(id, (token, kind))| added_token(id, token, *kind == Kind::Control))
            .collect()
    }
}
