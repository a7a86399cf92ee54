//! GGUF files: one file with weights, config and tokenizer in llama.cpp's terms.
//!
//! [`parse`] reads the container without trusting it; [`config`], [`names`] and [`tokenizer`]
//! translate to Hugging Face terms.

mod byte_level;
mod config;
mod cursor;
mod metadata;
mod mixtures;
mod names;
mod parse;
mod pre_tokenizers;
mod rope;
mod sampling;
mod sentencepiece;
mod tokenizer;
mod vocabulary;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::files::Files;
use super::store::{MappedFile, TensorStore};
use super::stored::StoredTensor;
use super::{Checkpoint, CheckpointError, GenerationDefaults, TensorInfo, model_name, parts};
use metadata::Metadata;

/// Model families whose GGUF metadata and tensor names Kiln can translate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Llama,
    Qwen3,
    Gemma3,
    GptOss,
    Qwen3Moe,
    Olmoe,
    Lfm2,
    Lfm2Moe,
}

impl Family {
    fn of(metadata: &Metadata<'_>) -> Result<Self, CheckpointError> {
        match metadata.require_text("general.architecture")? {
            "llama" => Ok(Family::Llama),
            "qwen3" => Ok(Family::Qwen3),
            "gemma3" => Ok(Family::Gemma3),
            "gpt-oss" => Ok(Family::GptOss),
            "qwen3moe" => Ok(Family::Qwen3Moe),
            "olmoe" => Ok(Family::Olmoe),
            "lfm2" => Ok(Family::Lfm2),
            "lfm2moe" => Ok(Family::Lfm2Moe),
            other => Err(metadata.unsupported(format!(
                "Kiln cannot translate GGUF architecture {other:?}, only llama, qwen3, gemma3, gpt-oss, qwen3moe, \
                 olmoe, lfm2 and lfm2moe; use the Hugging Face directory of the model"
            ))),
        }
    }

    /// Name of the class and `model_type` in a config.json.
    fn hugging_face_names(self) -> (&'static str, &'static str) {
        match self {
            Family::Llama => ("LlamaForCausalLM", "llama"),
            Family::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
            Family::Gemma3 => ("Gemma3ForCausalLM", "gemma3_text"),
            Family::GptOss => ("GptOssForCausalLM", "gpt_oss"),
            Family::Qwen3Moe => ("Qwen3MoeForCausalLM", "qwen3_moe"),
            Family::Olmoe => ("OlmoeForCausalLM", "olmoe"),
            Family::Lfm2 => ("Lfm2ForCausalLM", "lfm2"),
            Family::Lfm2Moe => ("Lfm2MoeForCausalLM", "lfm2_moe"),
        }
    }

    fn is_lfm2(self) -> bool {
        matches!(self, Family::Lfm2 | Family::Lfm2Moe)
    }

    fn has_experts(self) -> bool {
        matches!(
            self,
            Family::GptOss | Family::Qwen3Moe | Family::Olmoe | Family::Lfm2Moe
        )
    }
}

/// The GGUF file in a folder, or the first part of it; `None` for a folder whose weights are others.
///
/// # Errors
/// The folder cannot be read, or holds several.
pub(super) fn in_folder(folder: &Path) -> Result<Option<PathBuf>, CheckpointError> {
    if folder.join("config.json").exists() && !parts::firsts(folder, "safetensors")?.is_empty() {
        return Ok(None);
    }
    let mut files = parts::firsts(folder, "gguf")?;
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // The projector of a model that sees lies beside its text model.
    files.retain(|path| !name(path).starts_with("mmproj"));
    match files.len() {
        0 | 1 => Ok(files.pop()),
        _ => Err(CheckpointError::SeveralModels {
            path: folder.display().to_string(),
            files: files.iter().map(name).collect(),
        }),
    }
}

/// Opens a file, whole or split: then by any of its parts. The first one has the metadata.
pub(super) fn open(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let paths = parts::all(path)?;
    let files = Files::default();
    let mapped: Vec<MappedFile> = paths.iter().map(|path| files.map(path)).collect::<Result<_, _>>()?;
    let mut headers = Vec::with_capacity(mapped.len());
    for (number, file) in mapped.iter().enumerate() {
        let header = parse::Header::read(file.bytes()).map_err(|e| e.in_file(&file.name))?;
        check_part(&Metadata::new(&file.name, &header.metadata), number, mapped.len())?;
        headers.push(header);
    }
    let mut headers = headers.into_iter();
    let Some(mut header) = headers.next() else {
        return Err(CheckpointError::NotACheckpoint {
            path: path.display().to_string(),
        });
    };
    for (number, other) in (1..).zip(headers) {
        let tensors = other.tensors.into_iter();
        header
            .tensors
            .extend(tensors.map(|tensor| parse::Tensor { file: number, ..tensor }));
    }
    let metadata = Metadata::new(&mapped[0].name, &header.metadata);
    let stated = metadata.size("split.tensors.count")?;
    if mapped.len() > 1 && stated.is_some_and(|stated| stated != header.tensors.len() as u64) {
        let (parts, found) = (mapped.len(), header.tensors.len());
        let what = format!("{parts} parts hold {found} tensors, not {}", stated.unwrap_or_default());
        return Err(metadata.damaged(what));
    }
    let family = Family::of(&metadata)?;

    let config = config::translate(family, &metadata, &header, &mapped)?;
    let text = tokenizer::translate(family, &metadata)?;
    let mut warnings = tokenizer::warnings(&metadata)?;
    let mut generation = GenerationDefaults::read(None, &config);
    generation.eos_token_ids = tokenizer::end_tokens(&metadata)?;
    generation.sampling = sampling::translate(&metadata)?;
    warnings.extend(generation.sampling.warning());

    let mut tensors = BTreeMap::new();
    for tensor in &header.tensors {
        let Some(name) = names::translate(family, tensor.name) else {
            continue;
        };
        let file = &mapped[tensor.file];
        let stored = StoredTensor {
            info: TensorInfo {
                shape: names::shape(tensor),
                source: tensor.source,
                bytes: tensor.bytes.len() as u64,
                file: file.name.clone(),
            },
            file: tensor.file,
            bytes: tensor.bytes.clone(),
            conversion: names::conversion(family, &metadata, tensor)?,
        };
        if let Some(other) = tensors.insert(name, stored) {
            return Err(file.damaged(format!("tensor {} is in {} as well", tensor.name, other.info.file)));
        }
    }
    Ok(Checkpoint {
        name: model_name(path),
        config,
        text,
        generation,
        tensors: TensorStore::new(mapped, tensors),
        files: files.into_paths(),
        gguf: true,
        warnings,
    })
}

/// Checks what a file says of itself as a part against its name, which says that it is the one of `number` of `count`.
fn check_part(metadata: &Metadata<'_>, number: usize, count: usize) -> Result<(), CheckpointError> {
    let stated = metadata.size("split.count")?.unwrap_or(count as u64);
    let place = metadata.size("split.no")?.unwrap_or(number as u64);
    // Files that were never split may say that they are the only part, or part 0 of none.
    if stated.max(1) == count as u64 && place == number as u64 {
        return Ok(());
    }
    Err(metadata.unsupported(format!(
        "it is part {} of {stated}, but by its name part {} of {count}; parts are called NAME-00001-of-{stated:05}.gguf",
        place + 1,
        number + 1,
    )))
}
