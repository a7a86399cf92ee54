//! Memory-mapped files, and the tensors in them as the checkpoint means them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

use super::stored::{Conversion, StoredTensor};
use super::{CheckpointError, SourceType, TensorInfo, mxfp4, unreadable};

/// A file's contents, paged in as they are read.
#[derive(Debug)]
pub(super) struct MappedFile {
    /// File name without folders, for messages.
    pub name: String,
    map: Mmap,
}

impl MappedFile {
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let io = |e| CheckpointError::io(path, e);
        let file = File::open(path).map_err(io)?;
        // SAFETY: the map is read-only. Whoever changes a checkpoint while it is being compiled
        // gets other weights, or a fault if the file shrinks: the usual contract of mapped files.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let name = path
            .file_name()
            .unwrap_or(path.as_os_str())
            .to_string_lossy()
            .into_owned();
        unreadable::check_is_content(&name, &map)?;
        Ok(MappedFile { name, map })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    pub fn damaged(&self, what: impl Into<String>) -> CheckpointError {
        CheckpointError::Damaged {
            file: self.name.clone(),
            what: what.into(),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct TensorStore {
    files: Vec<MappedFile>,
    tensors: BTreeMap<String, StoredTensor>,
}

impl TensorStore {
    /// Every tensor's byte range must lie within its file: the reader of the format checked that.
    pub fn new(files: Vec<MappedFile>, tensors: BTreeMap<String, StoredTensor>) -> Self {
        TensorStore { files, tensors }
    }

    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    pub fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|tensor| &tensor.info)
    }

    pub fn read_rows(&self, name: &str, rows: Range<usize>) -> Result<Cow<'_, [u8]>, CheckpointError> {
        let tensor = self
            .tensors
            .get(name)
            .ok_or_else(|| CheckpointError::NoTensor { name: name.to_string() })?;
        if let SourceType::Other(_) = tensor.info.source {
            return Err(CheckpointError::TensorType {
                name: name.to_string(),
                source_type: tensor.info.source,
                file: tensor.info.file.clone(),
            });
        }
        let total = tensor.info.matrix().0;
        let missing = || CheckpointError::NoRows {
            name: name.to_string(),
            wanted: rows.clone(),
            rows: total,
        };
        if rows.end > total || rows.start > rows.end {
            return Err(missing());
        }
        let part = |file: usize, bytes: &Range<usize>| {
            let file = self.files.get(file).map(MappedFile::bytes);
            file.and_then(|file| file.get(bytes.clone())).ok_or_else(missing)
        };
        let of_rows = |all: &'_ [u8]| {
            let row_bytes = all.len() / total.max(1);
            rows.start * row_bytes..rows.end * row_bytes
        };
        let all = part(tensor.file, &tensor.bytes)?;
        let plain = &all[of_rows(all)];
        Ok(match &tensor.conversion {
            Conversion::None => Cow::Borrowed(plain),
            Conversion::PlusOne => Cow::Owned(minus_one(plain)),
            // A bias is one row, but its elements are ordered like the matrix's rows.
            Conversion::RotaryPairs { heads } if tensor.info.shape.len() == 1 => {
                let elements = tensor.info.shape[0];
                Cow::Owned(split_pairs(all, elements, *heads, 0..elements))
            }
            Conversion::RotaryPairs { heads } => Cow::Owned(split_pairs(all, total, *heads, rows)),
            Conversion::Mxfp4 { scales_file, scales } => {
                let scales = part(*scales_file, scales)?;
                Cow::Owned(mxfp4::interleave(plain, &scales[of_rows(scales)]))
            }
        })
    }
}

/// Rows `wanted` of a matrix of `rows` rows, as they are after each head's interleaved rotary
/// pairs have been split into halves.
fn split_pairs(all: &[u8], rows: usize, heads: usize, wanted: Range<usize>) -> Vec<u8> {
    let row_bytes = all.len() / rows.max(1);
    let head = (rows / heads.max(1)).max(1);
    let mut bytes = Vec::with_capacity(wanted.len() * row_bytes);
    for row in wanted {
        let (base, within) = (row / head * head, row % head);
        let (second, pair) = (within / (head / 2).max(1), within % (head / 2).max(1));
        let stored = base + 2 * pair + second;
        bytes.extend_from_slice(&all[stored * row_bytes..(stored + 1) * row_bytes]);
    }
    bytes
}

fn minus_one(bytes: &[u8]) -> Vec<u8> {
    let words = bytes.as_chunks::<4>().0;
    words
        .iter()
        .flat_map(|word| (f32::from_le_bytes(*word) - 1.0).to_le_bytes())
        .collect()
}
