use std::collections::BTreeMap;

use super::{CheckpointError, SourceType, TensorProblem, TensorSource};

/// A tensor that a model asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedTensor {
    pub name: String,
    pub shape: Vec<usize>,
}

/// Buffers that checkpoints carry along: recomputed or unused when running the model.
const NOT_WEIGHTS: &[&str] = &[
    "rotary_emb.inv_freq",
    "rotary_emb.cos_cached",
    "rotary_emb.sin_cached",
    "attn.masked_bias",
    "attention.masked_bias",
    "embeddings.position_ids",
];

/// Checks that a source holds exactly the tensors that a model asks for.
///
/// A head that the model does not ask for, because it ties it to the embedding, may be there too.
///
/// # Errors
/// [`CheckpointError::Tensors`] with everything that is missing, misshapen, surplus or of a type
/// that cannot be read.
pub fn validate(source: &dyn TensorSource, expected: &[ExpectedTensor]) -> Result<(), CheckpointError> {
    match tensor_problems(source, expected) {
        problems if problems.is_empty() => Ok(()),
        problems => Err(CheckpointError::Tensors(problems)),
    }
}

/// What [`validate`] finds.
pub(super) fn tensor_problems(source: &dyn TensorSource, expected: &[ExpectedTensor]) -> Vec<TensorProblem> {
    let mut problems = Vec::new();
    let wanted: BTreeMap<&str, &[usize]> = expected
        .iter()
        .map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice()))
        .collect();
    for (&name, &shape) in &wanted {
        let (name, expected) = (name.to_string(), shape.to_vec());
        let Some(info) = source.info(&name) else {
            problems.push(TensorProblem::Missing { name, expected });
            continue;
        };
        if info.shape != shape {
            problems.push(TensorProblem::Misshapen {
                name: source.name_in_file(&name).to_string(),
                expected,
                found: info.shape.clone(),
                file: info.file.clone(),
            });
        } else if let SourceType::Other(_) = info.source {
            problems.push(TensorProblem::UnreadableType {
                name: source.name_in_file(&name).to_string(),
                source_type: info.source,
                file: info.file.clone(),
            });
        }
    }
    for name in source.names() {
        let ignored = name == "lm_head.weight" || NOT_WEIGHTS.iter().any(|end| name.ends_with(end));
        if ignored || wanted.contains_key(name.as_str()) {
            continue;
        }
        if let Some(info) = source.info(&name) {
            problems.push(TensorProblem::Surplus {
                found: info.shape.clone(),
                file: info.file.clone(),
                name: source.name_in_file(&name).to_string(),
            });
        }
    }
    problems
}
