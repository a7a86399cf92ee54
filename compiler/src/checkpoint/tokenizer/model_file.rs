//! SentencePiece's `tokenizer.model` to a `tokenizer.json` that encodes alike, as transformers converts it
//! (`SpmConverter.build_tokenizer_from_spm_proto`).
//!
//! The fields are those of
//! <https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto>.

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use super::declared::{Declared, Token};
use super::file::{Bpe, Ids, Model, Pipeline, Unigram, isolate, spaces_to_underscores, underscores_to_spaces};
use super::merges::merges_by_score;
use super::protobuf::{Field, Fields};

const NORMAL: u64 = 1;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

struct Piece<'a> {
    text: &'a str,
    score: f32,
    kind: u64,
}

struct Spec<'a> {
    pieces: Vec<Piece<'a>>,
    unigram: bool,
    byte_fallback: bool,
    /// Ids, and the texts that stand for them where the pieces do not say.
    unknown: (Option<u64>, &'a str),
    bos: (Option<u64>, &'a str),
    eos: (Option<u64>, &'a str),
    /// Unicode normalization, in SentencePiece's own form.
    charsmap: &'a [u8],
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    escape_whitespaces: bool,
}

/// How transformers converts a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Manner {
    /// A space goes before the text behind each special token too.
    pub legacy: bool,
    /// A class of its own matches the user's pieces before it puts a space in front, and all pieces merge. Otherwise it is as in
    /// SentencePiece.
    pub own_class: bool,
}

/// The tokenizer of these bytes. Its special tokens get names where `declared` has none.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with the file's name.
pub(super) fn convert(bytes: &[u8], manner: Manner, declared: &mut Declared) -> Result<Value, String> {
    let Manner { legacy, own_class } = manner;
    let spec = Spec::read(bytes)?;
    let texts: Vec<&str> = spec.pieces.iter().map(|piece| piece.text).collect();
    let of_kind = |kind: u64| (0..).zip(&spec.pieces).filter(move |(_, piece)| piece.kind == kind);
    let mut user_defined: Vec<&str> = of_kind(USER_DEFINED).map(|(_, piece)| piece.text).collect();
    if own_class {
        let added = (of_kind(USER_DEFINED)).map(|(id, piece)| {
            let normalized = false;
            (
                id,
                Token {
                    normalized,
                    ..Token::new(piece.text, false)
                },
            )
        });
        declared.added.extend(added);
        user_defined.clear();
    }
    let unknown = spec.unknown.0.map(|id| id as usize).filter(|id| *id < texts.len());
    let model = if spec.unigram {
        Model::Unigram(Unigram {
            unk_id: unknown,
            byte_fallback: spec.byte_fallback,
            vocab: spec
                .pieces
                .iter()
                .map(|piece| (piece.text, f64::from(piece.score)))
                .collect(),
        })
    } else {
        let scores: Vec<f32> = spec.pieces.iter().map(|piece| piece.score).collect();
        Model::Bpe(Bpe {
            unk_token: unknown.map(|id| texts[id]),
            fuse_unk: true,
            byte_fallback: spec.byte_fallback,
            ignore_merges: !user_defined.is_empty(),
            vocab: Ids::in_order(&texts),
            merges: merges_by_score(&texts, &scores, |id| own_class || spec.pieces[id].kind == NORMAL),
        })
    };
    let pipeline = Pipeline {
        normalizer: json!({ "type": "Sequence", "normalizers": spec.normalizers(legacy) }),
        pre_tokenizer: spec.pre_tokenizer(legacy, user_defined),
        decoder: underscores_to_spaces(spec.byte_fallback, spec.add_dummy_prefix),
        model,
    };
    for (name, (id, text)) in [
        ("bos_token", spec.bos),
        ("eos_token", spec.eos),
        ("unk_token", spec.unknown),
    ] {
        if id.is_some() && !declared.names.iter().any(|(known, _)| known == name) {
            declared.names.push((name.to_string(), Token::new(text, true)));
        }
    }
    declared
        .extra
        .extend(of_kind(CONTROL).map(|(_, piece)| Token::new(piece.text, true)));
    serde_json::to_value(pipeline.with_tokens(Vec::new(), None, None))
        .map_err(|error| format!("cannot be written: {error}"))
}

impl<'a> Spec<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let damaged = || "is no SentencePiece model, or a damaged one".to_string();
        let mut spec = Spec {
            pieces: Vec::new(),
            unigram: true,
            byte_fallback: false,
            unknown: (Some(0), "<unk>"),
            bos: (Some(1), "<s>"),
            eos: (Some(2), "</s>"),
            charsmap: &[],
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        };
        for field in Fields::of(bytes) {
            match field.ok_or_else(damaged)? {
                Field::Bytes(1, piece) => spec.pieces.push(Piece::read(piece).ok_or_else(damaged)?),
                Field::Bytes(2, trainer) => spec.read_trainer(trainer)?,
                Field::Bytes(3, normalizer) => spec.read_normalizer(normalizer).ok_or_else(damaged)?,
                _ => {}
            }
        }
        match spec.pieces.is_empty() {
            true => Err(damaged()),
            false => Ok(spec),
        }
    }

    fn read_trainer(&mut self, message: &'a [u8]) -> Result<(), String> {
        let damaged = || "is damaged".to_string();
        // -1, for none, is written as if it had 64 bits.
        let id = |value: u64| u32::try_from(value).ok().map(u64::from);
        let text = |bytes: &'a [u8]| std::str::from_utf8(bytes).map_err(|_| damaged());
        for field in Fields::of(message) {
            match field.ok_or_else(damaged)? {
                Field::Integer(3, 1) => self.unigram = true,
                Field::Integer(3, 2) => self.unigram = false,
                Field::Integer(3, _) => {
                    return Err("has words or characters as its pieces, which Kiln does not read".to_string());
                }
                Field::Integer(35, value) => self.byte_fallback = value != 0,
                Field::Integer(40, value) => self.unknown.0 = id(value),
                Field::Integer(41, value) => self.bos.0 = id(value),
                Field::Integer(42, value) => self.eos.0 = id(value),
                Field::Bytes(45, bytes) => self.unknown.1 = text(bytes)?,
                Field::Bytes(46, bytes) => self.bos.1 = text(bytes)?,
                Field::Bytes(47, bytes) => self.eos.1 = text(bytes)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_normalizer(&mut self, message: &'a [u8]) -> Option<()> {
        for field in Fields::of(message) {
            match field? {
                Field::Bytes(2, charsmap) => self.charsmap = charsmap,
                Field::Integer(3, value) => self.add_dummy_prefix = value != 0,
                Field::Integer(4, value) => self.remove_extra_whitespaces = value != 0,
                Field::Integer(5, value) => self.escape_whitespaces = value != 0,
                _ => {}
            }
        }
        Some(())
    }

    /// Patterns name the ends of a text by what is not beside them: `^` and `$` are those of lines in JavaScript.
    fn normalizers(&self, legacy: bool) -> Vec<Value> {
        let replace = |pattern: &str, content: &str| json!({ "type": "Replace", "pattern": { "Regex": pattern }, "content": content });
        let mut steps = Vec::new();
        if !self.charsmap.is_empty() {
            steps.push(json!({ "type": "Precompiled", "precompiled_charsmap": BASE64_STANDARD.encode(self.charsmap) }));
        }
        if self.remove_extra_whitespaces {
            steps.extend([replace(r"(?<![\s\S]) +| +(?![\s\S])", ""), replace(" {2,}", " ")]);
        }
        if self.escape_whitespaces {
            steps.push(spaces_to_underscores());
        }
        if self.add_dummy_prefix && legacy {
            // Metaspace puts no space before one; SentencePiece does.
            steps.push(replace(r"(?<![\s\S])▁", "▁▁"));
        }
        steps
    }

    /// The space in front, then the user's pieces: they are taken whole and merge with nothing.
    fn pre_tokenizer(&self, legacy: bool, mut user_defined: Vec<&str>) -> Value {
        let mut steps = Vec::new();
        if self.add_dummy_prefix {
            steps.push(json!({
                "type": "Metaspace",
                "replacement": "▁",
                "prepend_scheme": if legacy { "always" } else { "first" },
                "split": false,
            }));
        }
        if !user_defined.is_empty() {
            user_defined.sort_by_key(|piece| std::cmp::Reverse(piece.chars().count()));
            let pieces: Vec<String> = user_defined.into_iter().map(literally).collect();
            steps.push(isolate(&pieces.join("|")));
        }
        match steps.is_empty() {
            true => Value::Null,
            false => json!({ "type": "Sequence", "pretokenizers": steps }),
        }
    }
}

impl<'a> Piece<'a> {
    fn read(message: &'a [u8]) -> Option<Self> {
        let mut piece = Piece {
            text: "",
            score: 0.0,
            kind: NORMAL,
        };
        for field in Fields::of(message) {
            match field? {
                Field::Bytes(1, text) => piece.text = std::str::from_utf8(text).ok()?,
                Field::Float(2, score) if score.is_finite() => piece.score = score,
                Field::Integer(3, kind) => piece.kind = kind,
                _ => {}
            }
        }
        (!piece.text.is_empty()).then_some(piece)
    }
}

/// A regular expression that matches this text.
fn literally(text: &str) -> String {
    let mut pattern = String::new();
    for character in text.chars() {
        if r"\^$.|?*+()[]{}".contains(character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}
