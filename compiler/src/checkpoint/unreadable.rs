//! Weights in files that Kiln does not read: what they are, and the way out.

use std::path::Path;

use super::CheckpointError;

const PICKLED: &str = "Kiln does not read pickled weights; save the model as safetensors";
const ADAPTER: &str = "a LoRA adapter, which is no model by itself; merge it into its base model (merge_and_unload of peft) \
                       and save that as safetensors";
const MISTRAL: &str = "weights in Mistral's own layout; take the model in Hugging Face's (model.safetensors)";

/// The error for a folder without weights that Kiln reads; `None` if there are none of another kind either.
pub(super) fn in_folder(folder: &Path) -> Option<CheckpointError> {
    let entries = std::fs::read_dir(folder).ok()?;
    let names = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut kinds: Vec<(usize, String, &str)> = names
        .filter_map(|name| kind(&name).map(|(rank, what)| (rank, name, what)))
        .collect();
    kinds.sort();
    let (_, file, what) = kinds.into_iter().next()?;
    Some(CheckpointError::Unsupported {
        file,
        what: what.to_string(),
    })
}

/// What a file of this name holds, if it holds weights, and how much that says: the lowest number the most.
fn kind(name: &str) -> Option<(usize, &'static str)> {
    let name = name.to_lowercase();
    let (stem, extension) = name.rsplit_once('.')?;
    let begins = |parts: &[&str]| parts.iter().any(|part| stem.starts_with(part));
    Some(match extension {
        // What training leaves beside the weights.
        _ if begins(&["training_args", "optimizer", "scheduler", "rng_state", "scaler"]) => return None,
        "safetensors" | "bin" if begins(&["adapter_model"]) => (0, ADAPTER),
        "safetensors" if begins(&["consolidated"]) => (1, MISTRAL),
        "safetensors" => (2, "not under the name that is looked for; call it model.safetensors"),
        "pth" | "pt" | "bin" | "ckpt" | "pkl" | "pickle" => (3, PICKLED),
        "gguf" => (4, "give this file instead of the folder"),
        "h5" | "keras" => (
            5,
            "Kiln does not read TensorFlow's weights; save the model as safetensors",
        ),
        "msgpack" => (5, "Kiln does not read Flax's weights; save the model as safetensors"),
        "ot" => (
            5,
            "Kiln does not read rust-bert's weights; save the model as safetensors",
        ),
        "npz" => (
            5,
            "Kiln does not read MLX's .npz weights; save the model as safetensors",
        ),
        "onnx" | "onnx_data" => (6, "Kiln does not read ONNX; take the model's safetensors"),
        "tflite" | "litertlm" | "task" => (6, "Kiln does not read LiteRT's files; take the model's safetensors"),
        "pte" => (6, "Kiln does not read ExecuTorch's files; take the model's safetensors"),
        "nemo" => (
            6,
            "Kiln does not read NeMo's archives; convert the model to Hugging Face's layout",
        ),
        "ggml" | "llamafile" => (6, "Kiln does not read this file; take the model as GGUF or safetensors"),
        _ => return None,
    })
}

/// Whether a file is what git-lfs leaves in place of one that it has not fetched.
pub(super) fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs.github.com/spec/")
}

/// # Errors
/// The file only stands for the one that is meant.
pub(super) fn check_is_content(file: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
    match is_lfs_pointer(bytes) {
        false => Ok(()),
        true => Err(CheckpointError::Unsupported {
            file: file.to_string(),
            what: "only a pointer of Git LFS; fetch the file itself with `git lfs pull`".to_string(),
        }),
    }
}
