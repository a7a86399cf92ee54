//! Weight shards: safetensors files written as a stream.
//!
//! The safetensors crate writes only what is all in memory, so the header (a length and JSON) is written here;
//! a test reads the files back with that crate.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use kiln_bundle::{Shard, WeightTensor};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::EmitError;

/// Shards end before they exceed this: small enough for browser caches.
const SHARD_BYTES: u64 = 1 << 30;

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    pub name: String,
    pub bytes: u64,
    /// f32 values rather than packed words.
    pub floats: bool,
}

/// Where each tensor will lie, and the header of each shard.
#[derive(Debug)]
pub struct Layout {
    pub tensors: Vec<WeightTensor>,
    headers: Vec<Vec<u8>>,
    bytes: Vec<u64>,
}

impl Layout {
    /// Lays tensors out in order.
    pub fn new(planned: &[Planned]) -> Self {
        let mut groups: Vec<Vec<&Planned>> = Vec::new();
        let mut filled = u64::MAX;
        for tensor in planned {
            if filled.saturating_add(tensor.bytes) > SHARD_BYTES {
                groups.push(Vec::new());
                filled = 0;
            }
            filled += tensor.bytes;
            groups.last_mut().expect("a group was begun").push(tensor);
        }
        let mut layout = Layout {
            tensors: Vec::new(),
            headers: Vec::new(),
            bytes: Vec::new(),
        };
        for (shard, group) in groups.iter().enumerate() {
            let header = header(group);
            let mut offset = header.len() as u64;
            for tensor in group {
                layout.tensors.push(WeightTensor {
                    name: tensor.name.clone(),
                    shard: shard as u32,
                    offset,
                    bytes: tensor.bytes,
                });
                offset += tensor.bytes;
            }
            layout.headers.push(header);
            layout.bytes.push(offset);
        }
        layout
    }

    fn file_name(&self, shard: usize) -> String {
        format!("weights-{:05}-of-{:05}.safetensors", shard + 1, self.headers.len())
    }
}

fn header(group: &[&Planned]) -> Vec<u8> {
    let mut entries = serde_json::Map::new();
    let mut offset = 0;
    for tensor in group {
        let dtype = if tensor.floats { "F32" } else { "U32" };
        let end = offset + tensor.bytes;
        let entry = json!({ "dtype": dtype, "shape": [tensor.bytes / 4], "data_offsets": [offset, end] });
        entries.insert(tensor.name.clone(), entry);
        offset = end;
    }
    let mut text = serde_json::Value::Object(entries).to_string().into_bytes();
    // Spaces are allowed after the JSON; tensors begin aligned.
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend(text);
    header
}

/// Writes the shards of a layout, tensor after tensor.
pub struct ShardWriter<'a> {
    folder: PathBuf,
    layout: &'a Layout,
    next: usize,
    open: Option<Open>,
    shards: Vec<Shard>,
}

struct Open {
    path: PathBuf,
    file: BufWriter<File>,
    hash: Sha256,
}

impl<'a> ShardWriter<'a> {
    pub fn new(folder: PathBuf, layout: &'a Layout) -> Self {
        ShardWriter {
            folder,
            layout,
            next: 0,
            open: None,
            shards: Vec::new(),
        }
    }

    /// Writes the next tensor of the layout.
    ///
    /// # Errors
    /// The file system refuses (a full disk), or `content` is not of the planned size, a fault of Kiln.
    pub fn write(&mut self, content: &[u8]) -> Result<(), EmitError> {
        let tensor = &self.layout.tensors[self.next];
        if content.len() as u64 != tensor.bytes {
            return Err(EmitError::Size {
                name: tensor.name.clone(),
                planned: tensor.bytes,
                packed: content.len() as u64,
            });
        }
        if self.open.is_some() && tensor.shard as usize != self.shards.len() {
            self.close()?;
        }
        if self.open.is_none() {
            let shard = self.shards.len();
            let path = self.folder.join(self.layout.file_name(shard));
            let file = File::create(&path).map_err(|cause| EmitError::io(&path, cause))?;
            let mut open = Open {
                path,
                file: BufWriter::with_capacity(1 << 20, file),
                hash: Sha256::new(),
            };
            open.put(&self.layout.headers[shard])?;
            self.open = Some(open);
        }
        self.open.as_mut().expect("just opened").put(content)?;
        self.next += 1;
        Ok(())
    }

    /// Ends the last shard.
    pub fn finish(mut self) -> Result<Vec<Shard>, EmitError> {
        self.close()?;
        Ok(self.shards)
    }

    fn close(&mut self) -> Result<(), EmitError> {
        let Some(Open { path, file, hash }) = self.open.take() else {
            return Ok(());
        };
        let file = file
            .into_inner()
            .map_err(|error| EmitError::io(&path, error.into_error()))?;
        file.sync_all().map_err(|cause| EmitError::io(&path, cause))?;
        let shard = self.shards.len();
        self.shards.push(Shard {
            file: self.layout.file_name(shard),
            bytes: self.layout.bytes[shard],
            sha256: kiln_bundle::hex(&hash.finalize()),
        });
        Ok(())
    }
}

impl Open {
    fn put(&mut self, content: &[u8]) -> Result<(), EmitError> {
        self.hash.update(content);
        self.file
            .write_all(content)
            .map_err(|cause| EmitError::io(&self.path, cause))
    }
}
