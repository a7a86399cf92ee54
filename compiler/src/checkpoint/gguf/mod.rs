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
mod sentencepiece;
mod tokenizer;
mod vocabulary;

use std::collections::BTreeMap;
use std::path::Path;

use super::files::Files;
use super::store::TensorStore;
use super::stored::StoredTensor;
use super::{Checkpoint, CheckpointError, GenerationDefaults, TensorInfo, model_name};
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

pub(super) fn open(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let files = Files::default();
    let file = files.map(path)?;
    let header = parse::Header::read(file.bytes()).map_err(|e| e.in_file(&file.name))?;
    let metadata = Metadata::new(&file.name, &header.metadata);
    let family = Family::of(&metadata)?;

    let config = config::translate(family, &metadata, &header, file.bytes())?;
    let text = tokenizer::translate(family, &metadata)?;
    let warnings = tokenizer::warnings(&metadata)?;
    let mut generation = GenerationDefaults::read(None, &config);
    generation.eos_token_ids = tokenizer::end_tokens(&metadata)?;

    let mut tensors = BTreeMap::new();
    for tensor in &header.tensors {
        let Some(name) = names::translate(family, tensor.name) else {
            continue;
        };
        let conversion = names::conversion(family, &metadata, tensor)?;
        let info = TensorInfo {
            shape: names::shape(tensor),
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
                conversion,
            },
        );
    }
    Ok(Checkpoint {
        name: model_name(path),
        config,
        text,
        generation,
        tensors: TensorStore::new(vec![file], tensors),
        files: files.into_paths(),
        gguf: true,
        warnings,
    })
}
