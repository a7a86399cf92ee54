//! Reference cases: tiny checkpoints and what Hugging Face transformers computes from them.
//! See `fixtures/README.md`. Everything here panics with a plain message: it only serves tests.

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use tempfile::TempDir;

/// Cases of text decoders that are dense and keep keys and values, as folder names.
pub const CASES: [&str; 12] = [
    "llama-A-bf16",
    "llama-A-f16",
    "llama-A-f32",
    "llama-B-bf16",
    "qwen3-A-bf16",
    "qwen3-B-bf16",
    "gemma3-A-bf16",
    "gemma3-B-bf16",
    "granite-A-bf16",
    "granite-B-bf16",
    "mistral-A-bf16",
    "mistral-B-bf16",
];

/// Mixtures of experts, and models that keep other states than keys and values.
pub const MIXTURES_AND_HYBRIDS: [&str; 21] = [
    "gpt_oss-A-bf16",
    "gpt_oss-A-f32",
    "gpt_oss-A-mxfp4",
    "gpt_oss-B-bf16",
    "gpt_oss-B-mxfp4",
    "qwen3_moe-A-bf16",
    "qwen3_moe-B-bf16",
    "olmoe-A-bf16",
    "olmoe-B-bf16",
    "granitemoe-A-bf16",
    "granitemoe-B-bf16",
    "lfm2-A-bf16",
    "lfm2-B-bf16",
    "lfm2_moe-A-bf16",
    "lfm2_moe-B-bf16",
    "qwen3_next-A-bf16",
    "qwen3_next-B-bf16",
    "qwen3_5-A-bf16",
    "qwen3_5-B-bf16",
    "qwen3_5_moe-A-bf16",
    "qwen3_5_moe-B-bf16",
];

/// The two ways in which checkpoints spell their config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// `config.json` of transformers 5: `rope_parameters`, `dtype`.
    V5,
    /// `config.v4.json`, as before: `rope_theta`, `rope_scaling`, `torch_dtype`.
    V4,
}

/// One checkpoint with its reference.
pub struct Case {
    pub name: &'static str,
    pub prompts: Vec<Prompt>,
    /// Of the first prompt: the embeddings, then what leaves each layer, the last after the final norm;
    /// each `[T * hidden]`.
    pub hidden_states: Vec<Vec<f32>>,
}

/// A prompt and what follows from it.
pub struct Prompt {
    pub ids: Vec<u32>,
    /// Logits `[vocab]` after each id of the prompt.
    pub logits: Vec<Vec<f32>>,
    /// The 16 ids that greedy decoding appends (an end token does not stop it).
    pub greedy_ids: Vec<u32>,
    /// Logits `[vocab]` that each greedy id is the largest of.
    pub greedy_logits: Vec<Vec<f32>>,
}

/// The folder of fixtures in the source tree.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

impl Case {
    /// Reads `fixtures/NAME/reference.safetensors`.
    pub fn load(name: &'static str) -> Case {
        let path = fixtures().join(name).join("reference.safetensors");
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let tensors = SafeTensors::deserialize(&bytes).expect("reference.safetensors is well-formed");
        let prompt = |p: usize| Prompt {
            ids: ids(&tensors, &format!("p{p}.input_ids")),
            logits: rows(&tensors, &format!("p{p}.logits")),
            greedy_ids: ids(&tensors, &format!("p{p}.greedy_ids")),
            greedy_logits: rows(&tensors, &format!("p{p}.greedy_logits")),
        };
        Case {
            name,
            prompts: (0..3).map(prompt).collect(),
            hidden_states: rows(&tensors, "p0.hidden_states"),
        }
    }

    /// The checkpoint as a Hugging Face directory whose `config.json` has this spelling.
    pub fn checkpoint(&self, spelling: Spelling) -> TempDir {
        let source = fixtures().join(self.name);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let config = match spelling {
            Spelling::V5 => "config.json",
            Spelling::V4 => "config.v4.json",
        };
        for (from, to) in [
            (config, "config.json"),
            ("generation_config.json", "generation_config.json"),
            ("model.safetensors", "model.safetensors"),
        ] {
            std::fs::copy(source.join(from), directory.path().join(to)).expect("a copy of the fixture");
        }
        directory
    }
}

/// `‖found − expected‖ / ‖expected‖`, infinite where anything is not finite.
pub fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len(), "vectors of different lengths");
    let square = |x: f64| x * x;
    let difference: f64 = found
        .iter()
        .zip(expected)
        .map(|(&a, &b)| square(f64::from(a) - f64::from(b)))
        .sum();
    let norm: f64 = expected.iter().map(|&b| square(f64::from(b))).sum();
    let error = (difference / norm).sqrt();
    if error.is_finite() { error } else { f64::INFINITY }
}

/// The largest [`relative_error`] of a row.
pub fn worst_relative_error(found: &[Vec<f32>], expected: &[Vec<f32>]) -> f64 {
    assert_eq!(found.len(), expected.len(), "different numbers of positions");
    let errors = found.iter().zip(expected).map(|(a, b)| relative_error(a, b));
    errors.fold(0.0, f64::max)
}

fn ids(tensors: &SafeTensors, name: &str) -> Vec<u32> {
    let view = tensors.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(view.dtype(), Dtype::I64, "{name}");
    let (words, _) = view.data().as_chunks::<8>();
    words
        .iter()
        .map(|word| u32::try_from(i64::from_le_bytes(*word)).expect("a token id"))
        .collect()
}

/// A tensor as rows along its first dimension.
fn rows(tensors: &SafeTensors, name: &str) -> Vec<Vec<f32>> {
    let view = tensors.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(view.dtype(), Dtype::F32, "{name}");
    let (words, _) = view.data().as_chunks::<4>();
    let values: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
    values
        .chunks(values.len() / view.shape()[0])
        .map(<[f32]>::to_vec)
        .collect()
}
