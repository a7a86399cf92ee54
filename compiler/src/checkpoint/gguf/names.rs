//! Tensor names and the ways in which llama.cpp's converter changes values.
//!
//! Names: `gguf-py/gguf/tensor_mapping.py` in <https://github.com/ggml-org/llama.cpp>.

use super::Family;
use super::metadata::Metadata;
use super::parse::Tensor;
use crate::checkpoint::store::Stored;
use crate::checkpoint::{CheckpointError, SourceType};

/// Frequencies of scaled rotary embeddings: part of the config, not a weight.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// The Hugging Face name; `None` for what is no weight. A name without translation stays as it is,
/// to be reported as surplus.
pub(super) fn translate(family: Family, name: &str) -> Option<String> {
    if name == ROPE_FACTORS {
        return None;
    }
    let global = match name {
        "token_embd.weight" => Some("model.embed_tokens.weight"),
        "output_norm.weight" => Some("model.norm.weight"),
        "output.weight" => Some("lm_head.weight"),
        _ => None,
    };
    if let Some(global) = global {
        return Some(global.to_string());
    }
    Some(layer_name(family, name).unwrap_or_else(|| name.to_string()))
}

/// `blk.N.PART.weight` (or `.bias`).
fn layer_name(family: Family, name: &str) -> Option<String> {
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    let (part, kind) = part.rsplit_once('.')?;
    let part = match (part, family) {
        ("attn_norm", _) => "input_layernorm",
        ("attn_q", _) => "self_attn.q_proj",
        ("attn_k", _) => "self_attn.k_proj",
        ("attn_v", _) => "self_attn.v_proj",
        ("attn_output", _) => "self_attn.o_proj",
        ("attn_q_norm", Family::Qwen3 | Family::Gemma3) => "self_attn.q_norm",
        ("attn_k_norm", Family::Qwen3 | Family::Gemma3) => "self_attn.k_norm",
        ("ffn_gate", _) => "mlp.gate_proj",
        ("ffn_up", _) => "mlp.up_proj",
        ("ffn_down", _) => "mlp.down_proj",
        ("ffn_norm", Family::Llama | Family::Qwen3) => "post_attention_layernorm",
        ("ffn_norm", Family::Gemma3) => "pre_feedforward_layernorm",
        ("post_attention_norm", Family::Gemma3) => "post_attention_layernorm",
        ("post_ffw_norm", Family::Gemma3) => "post_feedforward_layernorm",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{part}.{kind}"))
}

/// What the converter did to the tensor, to be undone when it is read.
pub(super) fn stored(family: Family, metadata: &Metadata<'_>, tensor: &Tensor<'_>) -> Result<Stored, CheckpointError> {
    let part = tensor.name.rsplit('.').nth(1).unwrap_or_default();
    match family {
        // Rotary pairs are interleaved for `LLAMA_ROPE_TYPE_NORM`, which only llama uses here.
        Family::Llama if matches!(part, "attn_q" | "attn_k") => {
            let heads = metadata.require_size("llama.attention.head_count")?;
            let heads = match part {
                "attn_k" => metadata.size("llama.attention.head_count_kv")?.unwrap_or(heads),
                _ => heads,
            };
            let rows = tensor.shape.first().copied().unwrap_or(0);
            if heads == 0 || !(rows as u64).is_multiple_of(2 * heads) {
                let what = format!(
                    "tensor {} of shape {:?} cannot hold {heads} heads",
                    tensor.name, tensor.shape
                );
                return Err(metadata.damaged(what));
            }
            Ok(Stored::RotaryPairs { heads: heads as usize })
        }
        // Gemma's norms multiply by 1 + w; the converter stores the sum.
        Family::Gemma3 if part.ends_with("norm") => match tensor.source {
            SourceType::F32 => Ok(Stored::PlusOne),
            other => {
                let what = format!("tensor {} is {other}, norms must be F32", tensor.name);
                Err(metadata.unsupported(what))
            }
        },
        _ => Ok(Stored::Plain),
    }
}
