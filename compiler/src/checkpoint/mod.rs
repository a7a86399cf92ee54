//! Checkpoints: Hugging Face directories, GGUF files, or random weights for a bare config.
//!
//! [`Checkpoint::open`] reads everything but the tensors: they stay in memory-mapped files and are
//! read a few rows at a time through [`TensorSource`], which [`RandomWeights`] implements as well.
//! Both kinds of checkpoint come out in Hugging Face terms: tensor names, shapes, config keys,
//! `tokenizer.json`. Nothing downstream knows of GGUF.

mod blocks;
mod error;
mod files;
mod generation;
mod gguf;
mod hugging_face;
mod mistaken;
mod mxfp4;
mod naming;
mod parts;
mod quantized;
mod random;
mod safetensors;
mod sampling;
mod source;
mod store;
mod stored;
mod tokenizer;
mod unreadable;
mod validate;
mod view;

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use blocks::{Run, decode, for_each_run};
pub use error::{CheckpointError, TensorProblem};
pub use generation::GenerationDefaults;
pub use random::RandomWeights;
pub use sampling::Sampling;
pub use source::{SourceType, TensorInfo, TensorSource};
pub use tokenizer::TextAssets;
pub use validate::{ExpectedTensor, validate};
pub use view::View;

use crate::graph::{DeclaredWeight, ModelGraph};
use naming::Named;
use store::TensorStore;

/// An opened checkpoint. Tensors are its [`TensorSource`].
#[derive(Debug)]
pub struct Checkpoint {
    name: String,
    config: serde_json::Value,
    text: Option<TextAssets>,
    generation: GenerationDefaults,
    tensors: TensorStore,
    files: Vec<PathBuf>,
    gguf: bool,
    warnings: Vec<String>,
}

impl Checkpoint {
    /// Opens a Hugging Face directory, a bare config (`*.json`), or a `.gguf` file: a whole one, any part of one that was
    /// split, or the folder that holds it.
    ///
    /// # Errors
    /// An unreadable, truncated or contradictory file, or one that needs what Kiln lacks.
    /// Whether the tensors suit a model is [`validate`]'s business.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let metadata = std::fs::metadata(path).map_err(|e| CheckpointError::io(path, e))?;
        let extension = path.extension().map(|e| e.to_ascii_lowercase());
        match extension.as_deref().and_then(|e| e.to_str()) {
            _ if metadata.is_dir() => match gguf::in_folder(path)? {
                Some(file) => gguf::open(&file),
                None => hugging_face::open_directory(path),
            },
            Some("json") => hugging_face::open_config(path),
            Some("gguf") => gguf::open(path),
            _ => Err(
                mistaken::what_is(path).unwrap_or_else(|| CheckpointError::NotACheckpoint {
                    path: path.display().to_string(),
                }),
            ),
        }
    }

    /// Name of the folder or GGUF file (of the config file, if it is not just `config.json`).
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model config in Hugging Face spelling, as the checkpoint has it (v4 or v5).
    pub fn config(&self) -> &serde_json::Value {
        &self.config
    }

    /// Tokenizer and chat template; `None` for a checkpoint without a tokenizer that Kiln reads.
    pub fn text(&self) -> Option<&TextAssets> {
        self.text.as_ref()
    }

    /// What a user should know of this checkpoint and can do something about, a sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Where to stop, and how to sample unless told otherwise.
    pub fn generation(&self) -> &GenerationDefaults {
        &self.generation
    }

    /// The files that were read, in alphabetical order.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// How this checkpoint holds a model's weights: GGUF files, unlike Hugging Face's, never hold a matrix transposed.
    pub fn stored(&self, declared: &[DeclaredWeight]) -> Vec<DeclaredWeight> {
        let mut declared = declared.to_vec();
        for weight in &mut declared {
            weight
                .stored
                .for_each_way(&mut |_, transposed| *transposed &= !self.gguf);
        }
        declared
    }

    /// The tensors as the weights of a model.
    ///
    /// # Errors
    /// Weights that are quantized in a way that Kiln does not read; else as for [`View::new`].
    pub fn view(&self, graph: &ModelGraph) -> Result<View<'_>, CheckpointError> {
        if let Some(method) = quantized::by_config(&self.config) {
            return Err(CheckpointError::Quantized { method });
        }
        let declared = self.stored(&graph.declared_weights());
        let view = View::of(Named::new(self, graph, &declared), &declared);
        view.map_err(|error| match quantized::by_tensors(self) {
            Some(method) => CheckpointError::Quantized { method },
            None => error,
        })
    }

    /// Whether there is a head of its own where the model's is tied to the embedding: transformers uses it then, whatever
    /// config.json says.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn unties_head(&self, graph: &ModelGraph) -> Result<bool, CheckpointError> {
        Named::new(self, graph, &self.stored(&graph.declared_weights())).unties()
    }

    /// Whether there are any weights; not so for a bare config.
    pub fn has_tensors(&self) -> bool {
        !self.tensors.is_empty()
    }
}

impl TensorSource for Checkpoint {
    fn names(&self) -> Vec<String> {
        self.tensors.names()
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.info(name)
    }

    fn read_rows(&self, name: &str, rows: Range<usize>) -> Result<Cow<'_, [u8]>, CheckpointError> {
        self.tensors.read_rows(name, rows)
    }
}

/// What to call the model in `path`: the folder, or the file without its extension.
fn model_name(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    if let Some(stem) = parts::stem(&file) {
        return stem.to_string();
    }
    let named = if path.is_dir() {
        path.file_name()
    } else if path.file_stem().is_some_and(|stem| stem == "config") {
        path.parent().and_then(Path::file_name)
    } else {
        path.file_stem()
    };
    named.map_or_else(|| "model".to_string(), |name| name.to_string_lossy().into_owned())
}
