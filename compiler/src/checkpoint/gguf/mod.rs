//! GGUF files: one file with weights, config and tokenizer in llama.cpp's terms.
//!
//! [`parse`] reads the container without trusting it; [`config`], [`names`] and [`tokenizer`]
//! translate to Hugging Face terms.

mod byte_level;
mod config;
mod cursor;
mod metadata;
mod names;
mod parse;
mod rope;
mod sentencepiece;
mod tokenizer;

use std::collections::BTreeMap;
use std::path::Path;

use super::store::{MappedFile, StoredTensor, TensorStore};
use super::{Checkpoint, CheckpointError, GenerationDefaults, TensorInfo, model_name};
use metadata::Metadata;

/// Model families whose GGUF metadata and tensor names Kiln can translate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Llama,
    Qwen3,
    Gemma3,
}

impl Family {
    fn of(metadata: &Metadata<'_>) -> Result<Self, CheckpointError> {
        match metadata.require_text("general.architecture")? {
            "llama" => Ok(Family::Llama),
            "qwen3" => Ok(Family::Qwen3),
            "gemma3" => Ok(Family::Gemma3),
            other => Err(metadata.unsupported(format!(
                "Kiln cannot translate GGUF architecture {other:?}, only llama, qwen3 and gemma3; \
                 use the Hugging Face directory of the model"
            ))),
        }
    }
}

pub(super) fn open(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let file = MappedFile::open(path)?;
    let header = parse::Header::read(file.bytes()).map_err(|e| e.in_file(&file.name))?;
    let metadata = Metadata::new(&file.name, &header.metadata);
    let family = Family::of(&metadata)?;

    let config = config::translate(family, &metadata, &header, file.bytes())?;
    let text = tokenizer::translate(family, &metadata)?;
    let mut generation = GenerationDefaults::read(None, &config);
    generation.eos_token_ids = tokenizer::end_tokens(&metadata)?;

    let mut tensors = BTreeMap::new();
    for tensor in &header.tensors {
        let Some(name) = names::translate(family, tensor.name) else {
            continue;
        };
        let stored = names::stored(family, &metadata, tensor)?;
        let info = TensorInfo {
            shape: tensor.shape.clone(),
            source: tensor.source,
            bytes: tensor.bytes.len() as u64,
            file: file.name.clone(),
        };
        let bytes = tensor.bytes.clone();
        tensors.insert(
            name,
            StoredTensor {
                info,
                file: 0,
                bytes,
                stored,
            },
        );
    }
    Ok(Checkpoint {
        name: model_name(path),
        config,
        text,
        generation,
        tensors: TensorStore::new(vec![file], tensors),
        gguf: true,
    })
}
