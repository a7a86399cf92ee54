//! The GGUF container: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
//!
//! Nothing in the file is trusted: every count and length is checked against the bytes that are
//! left, and arrays stay in the file until someone walks them, so that memory is bounded by what
//! the file really holds.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::cursor::{Cursor, ParseError, Value};
use crate::checkpoint::SourceType;

const MAGIC: &[u8] = b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;
/// ggml's own limit.
const MAX_DIMENSIONS: u32 = 4;

#[derive(Debug)]
pub(super) struct Header<'a> {
    pub metadata: BTreeMap<&'a str, Value<'a>>,
    pub tensors: Vec<Tensor<'a>>,
}

#[derive(Debug)]
pub(super) struct Tensor<'a> {
    pub name: &'a str,
    /// Row-major, the reverse of the file's order.
    pub shape: Vec<usize>,
    pub source: SourceType,
    /// Which of the model's files holds it.
    pub file: usize,
    /// Within the file.
    pub bytes: Range<usize>,
}

impl<'a> Header<'a> {
    pub fn read(file: &'a [u8]) -> Result<Self, ParseError> {
        let mut at = Cursor::new(file);
        if at.take(4, "the magic number")? != MAGIC {
            return Err(ParseError::Damaged("it does not begin with GGUF".to_string()));
        }
        match at.u32("the version")? {
            2 | 3 => {}
            version if version.swap_bytes() <= 3 => {
                let what = "big-endian GGUF is not supported; convert it to little-endian";
                return Err(ParseError::Unsupported(what.to_string()));
            }
            version => {
                let what = format!("GGUF version {version} is not supported, only 2 and 3");
                return Err(ParseError::Unsupported(what));
            }
        }
        let tensor_count = at.u64("the number of tensors")?;
        let metadata_count = at.u64("the number of metadata entries")?;

        // Whatever the counts claim: each turn consumes bytes or fails.
        let mut metadata = BTreeMap::new();
        for _ in 0..metadata_count {
            let key = at.text("a metadata key")?;
            let value = at.value(key)?;
            if metadata.insert(key, value).is_some() {
                return Err(ParseError::Damaged(format!("metadata {key} occurs twice")));
            }
        }
        let mut entries = Vec::new();
        let mut names = BTreeSet::new();
        for _ in 0..tensor_count {
            let entry = TensorEntry::read(&mut at)?;
            if !names.insert(entry.name) {
                return Err(ParseError::Damaged(format!("tensor {} occurs twice", entry.name)));
            }
            entries.push(entry);
        }
        let alignment = match metadata.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(Value::Unsigned(alignment)) if alignment.is_power_of_two() => *alignment,
            Some(_) => {
                let what = "general.alignment is not a power of two".to_string();
                return Err(ParseError::Damaged(what));
            }
        };
        let tensors = locate(&entries, at.position() as u64, alignment, file.len() as u64)?;
        Ok(Header { metadata, tensors })
    }
}

/// A tensor as the header describes it.
struct TensorEntry<'a> {
    name: &'a str,
    shape: Vec<usize>,
    type_number: u32,
    offset: u64,
}

impl<'a> TensorEntry<'a> {
    fn read(at: &mut Cursor<'a>) -> Result<Self, ParseError> {
        let name = at.text("a tensor name")?;
        let dimensions = at.u32("the dimensions of a tensor")?;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            let what = format!("tensor {name} has {dimensions} dimensions");
            return Err(ParseError::Damaged(what));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let size = at.u64("the shape of a tensor")?;
            shape.push(usize::try_from(size).unwrap_or(usize::MAX));
        }
        shape.reverse();
        Ok(TensorEntry {
            name,
            shape,
            type_number: at.u32("the type of a tensor")?,
            offset: at.u64("the place of a tensor")?,
        })
    }
}

/// Finds each tensor's bytes. Types that Kiln lacks are all reported at once.
fn locate<'a>(
    entries: &[TensorEntry<'a>],
    header_end: u64,
    alignment: u64,
    file_size: u64,
) -> Result<Vec<Tensor<'a>>, ParseError> {
    let unknown: Vec<String> = entries
        .iter()
        .filter(|entry| source_type(entry.type_number).is_none())
        .map(|entry| format!("tensor {} has type {}", entry.name, type_name(entry.type_number)))
        .collect();
    if let Some(first) = unknown.first() {
        return Err(ParseError::Unsupported(format!(
            "{first} ({} such tensors); Kiln reads F32, F16, BF16, Q8_0, Q5_0, Q4_0, Q4_1, Q4_K, \
             Q6_K and MXFP4: choose a file in one of these quantizations",
            unknown.len()
        )));
    }
    let data = header_end.checked_next_multiple_of(alignment);
    let mut tensors = Vec::new();
    for entry in entries {
        let Some(source) = source_type(entry.type_number) else {
            continue;
        };
        let damaged = |what: String| ParseError::Damaged(format!("tensor {} {what}", entry.name));
        let elements = entry.shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
        let row = entry.shape.last().copied().unwrap_or(1);
        // Rows must be whole blocks, so that they can be read one by one.
        let bytes = elements.and_then(|n| source.bytes(row).and_then(|_| source.bytes(n)));
        let Some(bytes) = bytes.filter(|&bytes| bytes > 0) else {
            return Err(damaged(format!("cannot be {source} of shape {:?}", entry.shape)));
        };
        if !entry.offset.is_multiple_of(alignment) {
            return Err(damaged(format!("is not aligned to {alignment} bytes")));
        }
        let start = data.and_then(|data| data.checked_add(entry.offset));
        let end = start.and_then(|start| start.checked_add(bytes as u64));
        match (start, end) {
            (Some(start), Some(end)) if end <= file_size => tensors.push(Tensor {
                name: entry.name,
                shape: entry.shape.clone(),
                source,
                file: 0,
                bytes: start as usize..end as usize,
            }),
            _ => {
                let what = format!("of {bytes} bytes lies beyond the file's end at {file_size}");
                return Err(damaged(what));
            }
        }
    }
    Ok(tensors)
}

/// `ggml_type` in <https://github.com/ggml-org/ggml/blob/master/include/ggml.h>.
fn source_type(number: u32) -> Option<SourceType> {
    match number {
        0 => Some(SourceType::F32),
        1 => Some(SourceType::F16),
        2 => Some(SourceType::Q4_0),
        3 => Some(SourceType::Q4_1),
        6 => Some(SourceType::Q5_0),
        8 => Some(SourceType::Q8_0),
        12 => Some(SourceType::Q4K),
        14 => Some(SourceType::Q6K),
        30 => Some(SourceType::Bf16),
        39 => Some(SourceType::Mxfp4),
        _ => None,
    }
}

/// ggml's name of a type that [`source_type`] does not know.
fn type_name(number: u32) -> String {
    let name = match number {
        7 => "Q5_1",
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        13 => "Q5_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        40 => "NVFP4",
        other => return format!("number {other}"),
    };
    name.to_string()
}
