//! Scaled rotary embeddings.

use serde_json::{Value, json};

use super::metadata::Metadata;
use super::names::ROPE_FACTORS;
use super::parse::Header;
use crate::checkpoint::store::MappedFile;
use crate::checkpoint::{CheckpointError, SourceType, decode};

/// `rope_parameters` of a config for the given base.
pub(super) fn parameters(
    metadata: &Metadata<'_>,
    header: &Header<'_>,
    files: &[MappedFile],
    architecture: &str,
    theta: f64,
    head_dim: u64,
) -> Result<Value, CheckpointError> {
    if let Some(tensor) = header.tensors.iter().find(|tensor| tensor.name == ROPE_FACTORS) {
        let mut factors = Vec::new();
        if tensor.source == SourceType::F32 {
            let file = files.get(tensor.file).map(MappedFile::bytes).unwrap_or_default();
            decode(tensor.source, &file[tensor.bytes.clone()], &mut factors);
        }
        return llama3(&factors, theta, head_dim).ok_or_else(|| {
            metadata.unsupported(format!(
                "tensor {ROPE_FACTORS} is not the scaling of Llama 3; use the model's Hugging Face \
                 directory"
            ))
        });
    }
    let key = |name: &str| format!("{architecture}.rope.scaling.{name}");
    match metadata.text(&key("type"))?.unwrap_or("none") {
        "none" => Ok(json!({ "rope_type": "default", "rope_theta": theta })),
        "linear" => {
            let factor = metadata.require_number(&key("factor"))?;
            Ok(json!({ "rope_type": "linear", "rope_theta": theta, "factor": factor }))
        }
        "yarn" => {
            let factor = metadata.require_number(&key("factor"))?;
            let original = metadata.require_size(&key("original_context_length"))?;
            Ok(json!({
                "rope_type": "yarn",
                "rope_theta": theta,
                "factor": factor,
                "original_max_position_embeddings": original,
                // Not in the file; GPT-OSS's own, which differ from llama.cpp's by fractions of a frequency.
                "truncate": architecture != "gpt-oss",
            }))
        }
        other => Err(metadata.unsupported(format!(
            "{} {other:?} cannot be translated; use the model's Hugging Face directory",
            key("type")
        ))),
    }
}

/// llama.cpp stores Llama 3's scaling as one divisor for each frequency. Its parameters are found
/// again by trying those that Meta's models use, and taken only if they give the same divisors.
fn llama3(factors: &[f32], theta: f64, head_dim: u64) -> Option<Value> {
    const LOW_FREQUENCY_FACTOR: f64 = 1.0;
    const HIGH_FREQUENCY_FACTOR: f64 = 4.0;
    const ORIGINAL_CONTEXT: f64 = 8192.0;
    // The lowest frequencies are divided by the whole factor.
    let factor = f64::from(*factors.last()?);
    let expected = |i: usize| {
        let wavelength = std::f64::consts::TAU * theta.powf(2.0 * i as f64 / head_dim as f64);
        if wavelength < ORIGINAL_CONTEXT / HIGH_FREQUENCY_FACTOR {
            1.0
        } else if wavelength > ORIGINAL_CONTEXT / LOW_FREQUENCY_FACTOR {
            factor
        } else {
            let smooth =
                (ORIGINAL_CONTEXT / wavelength - LOW_FREQUENCY_FACTOR) / (HIGH_FREQUENCY_FACTOR - LOW_FREQUENCY_FACTOR);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    let equal = factors.len() as u64 == head_dim / 2
        && factors
            .iter()
            .enumerate()
            .all(|(i, &found)| (f64::from(found) / expected(i) - 1.0).abs() < 1e-4);
    equal.then(|| {
        json!({
            "rope_type": "llama3",
            "rope_theta": theta,
            "factor": factor,
            "low_freq_factor": LOW_FREQUENCY_FACTOR,
            "high_freq_factor": HIGH_FREQUENCY_FACTOR,
            "original_max_position_embeddings": ORIGINAL_CONTEXT as u64,
        })
    })
}
