//! Text from token ids as they come: what is given out never changes afterwards, and all of it together
//! is what the tokenizer's decoder makes of all ids at once.

use tokenizers::DecoderWrapper;

use super::{TextError, TextModel};

/// Tokens before the pending ones that are decoded with them, so that a decoder which treats the start
/// of a text specially (Llama 2 drops its first space) sees that this is not the start.
const CONTEXT: usize = 4;

pub(super) struct Detokenizer<'a> {
    model: &'a TextModel,
    kind: Kind,
}

enum Kind {
    /// Byte-level vocabularies: a token is bytes. At most three bytes wait for the rest of a character.
    Bytes { pending: Vec<u8> },
    /// All others, through the tokenizer's decoder.
    Window {
        context: Vec<u32>,
        pending: Vec<u32>,
        /// Runs of byte tokens (`<0xE6>`) stand for their UTF-8 text only if all of the run is valid.
        byte_fallback: bool,
    },
}

impl<'a> Detokenizer<'a> {
    pub(super) fn new(model: &'a TextModel) -> Self {
        let decoder = model.tokenizer.get_decoder();
        let kind = if matches!(decoder, Some(DecoderWrapper::ByteLevel(_))) {
            Kind::Bytes { pending: Vec::new() }
        } else {
            Kind::Window {
                context: Vec::new(),
                pending: Vec::new(),
                byte_fallback: decoder.is_some_and(has_byte_fallback),
            }
        };
        Detokenizer { model, kind }
    }

    /// The text that becomes certain with one more token. An id outside the vocabulary is no text.
    pub(super) fn push(&mut self, id: u32) -> Result<String, TextError> {
        let Some(token) = self.model.tokenizer.id_to_token(id) else {
            return Ok(String::new());
        };
        match &mut self.kind {
            Kind::Bytes { pending } => {
                push_bytes_of(&token, pending);
                Ok(take_characters(pending))
            }
            Kind::Window {
                pending, byte_fallback, ..
            } => {
                pending.push(id);
                if *byte_fallback && is_byte_token(&token) {
                    return Ok(String::new());
                }
                self.decode_pending()
            }
        }
    }

    /// What still waits for a token that does not come.
    pub(super) fn finish(&mut self) -> Result<String, TextError> {
        match &mut self.kind {
            Kind::Bytes { pending } => {
                let text = String::from_utf8_lossy(pending).into_owned();
                pending.clear();
                Ok(text)
            }
            Kind::Window { .. } => self.decode_pending(),
        }
    }

    fn decode_pending(&mut self) -> Result<String, TextError> {
        let Kind::Window { context, pending, .. } = &mut self.kind else {
            return Ok(String::new());
        };
        let before = self.model.decode(context, true)?;
        context.append(pending);
        let after = self.model.decode(context, true)?;
        context.drain(..context.len().saturating_sub(CONTEXT));
        let kept = common_prefix(&before, &after);
        Ok(after[kept..].to_string())
    }
}

fn has_byte_fallback(decoder: &DecoderWrapper) -> bool {
    match decoder {
        DecoderWrapper::ByteFallback(_) => true,
        DecoderWrapper::Sequence(sequence) => sequence.get_decoders().iter().any(has_byte_fallback),
        _ => false,
    }
}

/// `<0x00>` to `<0xFF>`, as the ByteFallback decoder reads them.
fn is_byte_token(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// Length in bytes, on a character's boundary, of what both texts begin with.
fn common_prefix(a: &str, b: &str) -> usize {
    let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b);
    same.map(|(c, _)| c.len_utf8()).sum()
}

/// Appends the bytes of a token of a byte-level vocabulary. A token with a character outside the
/// alphabet is an added one and stands for its own text.
fn push_bytes_of(token: &str, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    for c in token.chars() {
        let Some(byte) = byte_of(c) else {
            bytes.truncate(start);
            bytes.extend_from_slice(token.as_bytes());
            return;
        };
        bytes.push(byte);
    }
}

/// GPT-2's alphabet of bytes: printable Latin-1 stands for itself, the other 68 bytes follow in order
/// from U+0100.
fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7F) as u8),
        0x143 => Some(0xAD),
        _ => None,
    }
}

/// Takes all whole characters; what may yet become one stays. Bytes that never can are U+FFFD, in the
/// same number as `String::from_utf8_lossy` makes of them.
fn take_characters(pending: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut rest = pending.as_slice();
    while let Err(error) = std::str::from_utf8(rest) {
        let (valid, invalid) = rest.split_at(error.valid_up_to());
        text.push_str(&String::from_utf8_lossy(valid));
        rest = invalid;
        let Some(length) = error.error_len() else {
            let taken = pending.len() - rest.len();
            pending.drain(..taken);
            return text;
        };
        text.push(char::REPLACEMENT_CHARACTER);
        rest = &rest[length..];
    }
    text.push_str(&String::from_utf8_lossy(rest));
    pending.clear();
    text
}
