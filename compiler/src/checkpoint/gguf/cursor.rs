//! Numbers, strings and arrays of a GGUF file, each checked against the bytes that are left.

use crate::checkpoint::CheckpointError;

/// Arrays in arrays, at most.
const MAX_NESTING: u32 = 4;

/// A metadata value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Unsigned(u64),
    Signed(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    Text(&'a str),
    Array(Array<'a>),
}

/// An array whose elements have been checked but not collected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Array<'a> {
    element: Type,
    bytes: &'a [u8],
}

/// A [`CheckpointError`] that does not know its file yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ParseError {
    Damaged(String),
    Unsupported(String),
}

/// `gguf_metadata_value_type`, in the order of its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl ParseError {
    pub fn in_file(self, file: &str) -> CheckpointError {
        let file = file.to_string();
        match self {
            ParseError::Damaged(what) => CheckpointError::Damaged { file, what },
            ParseError::Unsupported(what) => CheckpointError::Unsupported { file, what },
        }
    }
}

impl<'a> Array<'a> {
    /// The elements, if they are strings.
    pub fn texts(self) -> Option<impl Iterator<Item = &'a str>> {
        let mut at = Cursor::new(self.bytes);
        // The header's reader has walked them once already: this fails behind the last one only.
        let walk = std::iter::from_fn(move || at.text("").ok());
        (self.element == Type::Text).then_some(walk)
    }

    /// The elements, if they are numbers or truth values.
    pub fn values(self) -> Option<impl Iterator<Item = Value<'a>>> {
        let size = self.element.size()? as usize;
        let element = self.element;
        Some(self.bytes.chunks_exact(size).map(move |bytes| element.decode(bytes)))
    }
}

impl Type {
    fn of(number: u32) -> Option<Self> {
        use Type::*;
        let all = [U8, I8, U16, I16, U32, I32, F32, Bool, Text, Array, U64, I64, F64];
        all.get(number as usize).copied()
    }

    /// Bytes of a value; `None` where that varies.
    fn size(self) -> Option<u64> {
        match self {
            Type::U8 | Type::I8 | Type::Bool => Some(1),
            Type::U16 | Type::I16 => Some(2),
            Type::U32 | Type::I32 | Type::F32 => Some(4),
            Type::U64 | Type::I64 | Type::F64 => Some(8),
            Type::Text | Type::Array => None,
        }
    }

    /// A value from its [`Type::size`] bytes.
    fn decode<'a>(self, bytes: &[u8]) -> Value<'a> {
        let mut word = [0; 8];
        let size = bytes.len().min(8);
        word[..size].copy_from_slice(&bytes[..size]);
        let unsigned = u64::from_le_bytes(word);
        let unused_bits = 64 - 8 * size as u32;
        // Moves the value's own sign bit to the top and back.
        let signed = |bits: u64| (bits as i64).wrapping_shl(unused_bits).wrapping_shr(unused_bits);
        match self {
            Type::I8 | Type::I16 | Type::I32 | Type::I64 => Value::Signed(signed(unsigned)),
            Type::F32 => Value::F32(f32::from_bits(unsigned as u32)),
            Type::F64 => Value::F64(f64::from_bits(unsigned)),
            Type::Bool => Value::Bool(unsigned != 0),
            _ => Value::Unsigned(unsigned),
        }
    }
}

/// A place in the file. Whatever is read there says what it was, for the error.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    file: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(file: &'a [u8]) -> Self {
        Cursor { file, position: 0 }
    }

    pub fn position(&self) -> usize {
        self.position
    }

    pub fn take(&mut self, size: u64, what: &str) -> Result<&'a [u8], ParseError> {
        let end = usize::try_from(size)
            .ok()
            .and_then(|size| self.position.checked_add(size));
        let bytes = end.and_then(|end| self.file.get(self.position..end));
        let Some(bytes) = bytes else {
            return Err(ParseError::Damaged(format!(
                "it ends within {what} of {size} bytes at byte {}",
                self.position
            )));
        };
        self.position += bytes.len();
        Ok(bytes)
    }

    pub fn u32(&mut self, what: &str) -> Result<u32, ParseError> {
        let bytes = self.take(4, what)?;
        Ok(bytes.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte)))
    }

    pub fn u64(&mut self, what: &str) -> Result<u64, ParseError> {
        let bytes = self.take(8, what)?;
        Ok(bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)))
    }

    pub fn text(&mut self, what: &str) -> Result<&'a str, ParseError> {
        let size = self.u64(what)?;
        let bytes = self.take(size, what)?;
        std::str::from_utf8(bytes).map_err(|_| ParseError::Damaged(format!("{what} is not UTF-8 text")))
    }

    pub fn value(&mut self, key: &str) -> Result<Value<'a>, ParseError> {
        let element = self.value_type(key)?;
        match element {
            Type::Text => Ok(Value::Text(self.text(key)?)),
            Type::Array => Ok(Value::Array(self.array(key, 1)?)),
            number => {
                let size = number.size().unwrap_or(0);
                Ok(number.decode(self.take(size, key)?))
            }
        }
    }

    fn value_type(&mut self, key: &str) -> Result<Type, ParseError> {
        let number = self.u32(key)?;
        Type::of(number).ok_or_else(|| ParseError::Damaged(format!("metadata {key} has the unknown type {number}")))
    }

    fn array(&mut self, key: &str, depth: u32) -> Result<Array<'a>, ParseError> {
        let element = self.value_type(key)?;
        let len = self.u64(key)?;
        let start = self.position;
        match element.size() {
            Some(size) => {
                self.take(size.saturating_mul(len), key)?;
            }
            None if depth >= MAX_NESTING => {
                return Err(ParseError::Damaged(format!("metadata {key} is nested too deeply")));
            }
            None => {
                for _ in 0..len {
                    match element {
                        Type::Array => drop(self.array(key, depth + 1)?),
                        _ => drop(self.text(key)?),
                    }
                }
            }
        }
        Ok(Array {
            element,
            bytes: &self.file[start..self.position],
        })
    }
}
