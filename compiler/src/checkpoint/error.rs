use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;

use thiserror::Error;

use super::SourceType;

/// Why a checkpoint cannot be used.
#[derive(Debug, Error)]
pub enum CheckpointError {
    #[error("{path}: {cause}")]
    Io { path: String, cause: io::Error },
    #[error("{path}: not a checkpoint; give a Hugging Face directory, a config.json or a .gguf file")]
    NotACheckpoint { path: String },
    #[error("{path} is a part of the checkpoint {folder}; give that folder")]
    PartOfCheckpoint { path: String, folder: String },
    #[error("{path}: a bundle that is compiled already; run it with run-model chat {folder}")]
    Bundle { path: String, folder: String },
    #[error("{file}: not the JSON that is expected there: {cause}")]
    Json { file: String, cause: serde_json::Error },
    /// Another kind of file under this name.
    #[error("{file} is {what}; download it again")]
    NotJson { file: String, what: &'static str },
    /// A tokenizer that no runtime can use.
    #[error(
        "{file} {what}; download it again, or make a new one with transformers: \
         AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
    )]
    Tokenizer { file: String, what: String },
    /// The file contradicts itself or ends too early.
    #[error("{file}: {what}; the file is truncated or damaged, download it again")]
    Damaged { file: String, what: String },
    /// The file is sound but uses something that Kiln cannot read.
    #[error("{file}: {what}")]
    Unsupported { file: String, what: String },
    #[error("{}; the checkpoint has {parts} parts, download them into one folder", missing_parts(.missing))]
    MissingParts { missing: Vec<String>, parts: usize },
    /// The weights of several models lie in one folder.
    #[error("{path}: several GGUF files; give the one that is meant: {}", .files.join(", "))]
    SeveralModels { path: String, files: Vec<String> },
    #[error(
        "the weights are quantized with {method}, which Kiln does not read; take the model as it was before and quantize it \
         here (--quant q4), or a GGUF file of it"
    )]
    Quantized { method: String },
    #[error("tensor {name}: not in the checkpoint")]
    NoTensor { name: String },
    #[error("tensor {name}: rows {}..{} of {rows} do not exist", wanted.start, wanted.end)]
    NoRows {
        name: String,
        wanted: Range<usize>,
        rows: usize,
    },
    #[error("tensor {name}: Kiln does not read {source_type} weights ({file})")]
    TensorType {
        name: String,
        source_type: SourceType,
        file: String,
    },
    /// All that does not fit, one line each.
    #[error("{}", problem_list(.0))]
    Tensors(Vec<TensorProblem>),
}

/// One way in which a checkpoint's tensors differ from those that a model asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TensorProblem {
    Missing {
        name: String,
        expected: Vec<usize>,
    },
    Misshapen {
        name: String,
        expected: Vec<usize>,
        found: Vec<usize>,
        file: String,
    },
    /// In the checkpoint, but no part of the model.
    Surplus {
        name: String,
        found: Vec<usize>,
        file: String,
    },
    UnreadableType {
        name: String,
        source_type: SourceType,
        file: String,
    },
    /// The experts of a bank must be stored alike.
    UnlikeExpert {
        name: String,
        source_type: SourceType,
        others: SourceType,
    },
}

impl CheckpointError {
    pub(super) fn io(path: &Path, cause: io::Error) -> Self {
        CheckpointError::Io {
            path: path.display().to_string(),
            cause,
        }
    }
}

impl fmt::Display for TensorProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TensorProblem::Missing { name, expected } => {
                write!(f, "tensor {name}: expected {expected:?}, found none")
            }
            TensorProblem::Misshapen {
                name,
                expected,
                found,
                file,
            } => write!(f, "tensor {name}: expected {expected:?}, found {found:?} in {file}"),
            TensorProblem::Surplus { name, found, file } => {
                write!(f, "tensor {name}: expected none, found {found:?} in {file}")
            }
            TensorProblem::UnreadableType {
                name,
                source_type,
                file,
            } => write!(
                f,
                "tensor {name}: Kiln does not read {source_type} weights, found in {file}"
            ),
            TensorProblem::UnlikeExpert {
                name,
                source_type,
                others,
            } => write!(f, "tensor {name}: {source_type}, where the first expert's is {others}"),
        }
    }
}

fn missing_parts(names: &[String]) -> String {
    const SHOWN: usize = 4;
    let shown = names
        .iter()
        .take(SHOWN)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 if names.len() == 1 => format!("{shown} is missing"),
        0 => format!("{shown} are missing"),
        more => format!("{shown} and {more} more files are missing"),
    }
}

fn problem_list(problems: &[TensorProblem]) -> String {
    let mut text = format!(
        "the checkpoint does not fit the model ({} tensor{}); is it another model's config.json?",
        problems.len(),
        if problems.len() == 1 { "" } else { "s" }
    );
    for problem in problems {
        text.push_str(&format!("\n  {problem}"));
    }
    text
}
