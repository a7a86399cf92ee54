//! Safetensors files, single or sharded.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::files::Files;
use super::store::{MappedFile, TensorStore};
use super::stored::{Conversion, StoredTensor};
use super::{CheckpointError, SourceType, TensorInfo, mxfp4, parts};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The tensors in `directory`; empty if it holds no safetensors at all.
pub(super) fn open(directory: &Path, files: &Files) -> Result<TensorStore, CheckpointError> {
    if directory.join(SINGLE).exists() {
        let file = files.map(&directory.join(SINGLE))?;
        let mut tensors = index(&file, 0)?;
        mxfp4::join(&mut tensors)?;
        return Ok(TensorStore::new(vec![file], tensors));
    }
    if directory.join(INDEX).exists() {
        return open_sharded(directory, files);
    }
    let first = parts::firsts(directory, "safetensors")?.into_iter().find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        parts::stem(&name) == Some("model")
    });
    match first {
        Some(first) => open_parts(&first, files),
        None => Ok(TensorStore::default()),
    }
}

/// Shards without their index, which says nothing that they do not say themselves.
fn open_parts(first: &Path, files: &Files) -> Result<TensorStore, CheckpointError> {
    let mut mapped = Vec::new();
    let mut tensors = BTreeMap::new();
    for path in parts::all(first)? {
        let file = files.map(&path)?;
        for (name, tensor) in index(&file, mapped.len())? {
            if let Some(other) = tensors.insert(name.clone(), tensor) {
                return Err(file.damaged(format!("tensor {name} is in {} as well", other.info.file)));
            }
        }
        mapped.push(file);
    }
    mxfp4::join(&mut tensors)?;
    Ok(TensorStore::new(mapped, tensors))
}

/// `model.safetensors.index.json` says which shard holds which tensor.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

fn open_sharded(directory: &Path, files: &Files) -> Result<TensorStore, CheckpointError> {
    let path = directory.join(INDEX);
    let text = (files.text(&path)?).ok_or_else(|| CheckpointError::io(&path, std::io::ErrorKind::NotFound.into()))?;
    let ShardIndex { weight_map } = serde_json::from_str(&text).map_err(|cause| CheckpointError::Json {
        file: INDEX.to_string(),
        cause,
    })?;
    let damaged = |what| CheckpointError::Damaged {
        file: INDEX.to_string(),
        what,
    };
    let mut shards: Vec<&String> = weight_map.values().collect();
    shards.sort_unstable();
    shards.dedup();
    // A shard lies beside its index: a path that leads elsewhere is not followed.
    let plain = |shard: &str| Path::new(shard).components().count() == 1 && !shard.starts_with("..");
    if let Some(shard) = shards.iter().find(|shard| !plain(shard)) {
        return Err(damaged(format!("shard name {shard:?} is no plain file name")));
    }
    let paths = parts::present(directory, shards.iter().map(|shard| shard.to_string()))?;
    let mut mapped = Vec::with_capacity(shards.len());
    let mut tensors = BTreeMap::new();
    let mut absent = Vec::new();
    for (shard, path) in shards.into_iter().zip(paths) {
        let file = files.map(&path)?;
        let mut found = index(&file, mapped.len())?;
        for (name, _) in weight_map.iter().filter(|(_, s)| *s == shard) {
            match found.remove(name) {
                Some(tensor) => drop(tensors.insert(name.clone(), tensor)),
                None => absent.push(format!("{name} is not in {shard}")),
            }
        }
        mapped.push(file);
    }
    if !absent.is_empty() {
        return Err(damaged(absent.join(", ")));
    }
    mxfp4::join(&mut tensors)?;
    Ok(TensorStore::new(mapped, tensors))
}

fn index(file: &MappedFile, number: usize) -> Result<BTreeMap<String, StoredTensor>, CheckpointError> {
    let bytes = file.bytes();
    let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| file.damaged(e.to_string()))?;
    let data = header + size_of::<u64>();
    let mut tensors = BTreeMap::new();
    for (name, tensor) in metadata.tensors() {
        // read_metadata has checked the offsets against the file's length, and sizes against shapes.
        let (start, end) = tensor.data_offsets;
        let info = TensorInfo {
            shape: tensor.shape.clone(),
            source: source_type(tensor.dtype),
            bytes: (end - start) as u64,
            file: file.name.clone(),
        };
        let stored = StoredTensor {
            info,
            file: number,
            bytes: data + start..data + end,
            conversion: Conversion::None,
        };
        tensors.insert(name, stored);
    }
    Ok(tensors)
}

fn source_type(dtype: Dtype) -> SourceType {
    match dtype {
        Dtype::F32 => SourceType::F32,
        Dtype::F16 => SourceType::F16,
        Dtype::BF16 => SourceType::Bf16,
        Dtype::F64 => SourceType::Other("f64"),
        Dtype::BOOL => SourceType::Other("bool"),
        Dtype::U8 => SourceType::Other("u8"),
        Dtype::I8 => SourceType::Other("i8"),
        Dtype::U16 => SourceType::Other("u16"),
        Dtype::I16 => SourceType::Other("i16"),
        Dtype::U32 => SourceType::Other("u32"),
        Dtype::I32 => SourceType::Other("i32"),
        Dtype::U64 => SourceType::Other("u64"),
        Dtype::I64 => SourceType::Other("i64"),
        Dtype::F8_E4M3 => SourceType::Other("f8_e4m3"),
        Dtype::F8_E5M2 => SourceType::Other("f8_e5m2"),
        Dtype::F8_E8M0 => SourceType::Other("f8_e8m0"),
        _ => SourceType::Other("unknown"),
    }
}
