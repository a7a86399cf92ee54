//! Tensor names and the ways in which llama.cpp's converter changes values.
//!
//! Names: `gguf-py/gguf/tensor_mapping.py` in <https://github.com/ggml-org/llama.cpp>.

use super::Family;
use super::metadata::Metadata;
use super::parse::Tensor;
use crate::checkpoint::stored::Conversion;
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
        "output_norm.weight" | "token_embd_norm.weight" if family.is_lfm2() => Some("model.embedding_norm.weight"),
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
    let name = match family {
        Family::GptOss => gpt_oss(part, kind).or_else(|| common(family, part, kind)),
        Family::Lfm2 | Family::Lfm2Moe => lfm2(part, kind),
        _ => common(family, part, kind),
    };
    Some(format!("model.layers.{layer}.{}", name?))
}

fn common(family: Family, part: &str, kind: &str) -> Option<String> {
    let normed = matches!(
        family,
        Family::Qwen3 | Family::Gemma3 | Family::Qwen3Moe | Family::Olmoe
    );
    let part = match part {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" if normed => "self_attn.q_norm",
        "attn_k_norm" if normed => "self_attn.k_norm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        "ffn_gate_inp" if family.has_experts() => "mlp.gate",
        // All experts in one tensor, where a directory has one for each: `mlp.experts.0.gate_proj`.
        "ffn_gate_exps" if family.has_experts() => "mlp.experts.gate_proj",
        "ffn_up_exps" if family.has_experts() => "mlp.experts.up_proj",
        "ffn_down_exps" if family.has_experts() => "mlp.experts.down_proj",
        "ffn_norm" if family == Family::Gemma3 => "pre_feedforward_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "post_attention_norm" if matches!(family, Family::Gemma3 | Family::GptOss) => "post_attention_layernorm",
        "post_ffw_norm" if family == Family::Gemma3 => "post_feedforward_layernorm",
        _ => return None,
    };
    Some(format!("{part}.{kind}"))
}

/// Where GPT-OSS has other names. Gate and up are the parts of one tensor in a directory.
fn gpt_oss(part: &str, kind: &str) -> Option<String> {
    let of_experts = |name: &str, half: &str| match kind {
        "bias" => format!("mlp.experts.{name}_bias{half}"),
        _ => format!("mlp.experts.{name}{half}"),
    };
    match part {
        "attn_sinks" => Some("self_attn.sinks".to_string()),
        "ffn_gate_inp" => Some(format!("mlp.router.{kind}")),
        "ffn_gate_exps" => Some(of_experts("gate_up_proj", ".gate")),
        "ffn_up_exps" => Some(of_experts("gate_up_proj", ".up")),
        "ffn_down_exps" => Some(of_experts("down_proj", "")),
        _ => None,
    }
}

fn lfm2(part: &str, kind: &str) -> Option<String> {
    let part = match part {
        "attn_norm" => "operator_norm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.out_proj",
        "attn_q_norm" => "self_attn.q_layernorm",
        "attn_k_norm" => "self_attn.k_layernorm",
        "shortconv.conv" => "conv.conv",
        "shortconv.in_proj" => "conv.in_proj",
        "shortconv.out_proj" => "conv.out_proj",
        "ffn_norm" => "ffn_norm",
        "ffn_gate" => "feed_forward.w1",
        "ffn_up" => "feed_forward.w3",
        "ffn_down" => "feed_forward.w2",
        "ffn_gate_inp" => "feed_forward.gate",
        "ffn_gate_exps" => "feed_forward.experts.w1",
        "ffn_up_exps" => "feed_forward.experts.w3",
        "ffn_down_exps" => "feed_forward.experts.w2",
        "exp_probs_b" => return Some("feed_forward.expert_bias".to_string()),
        _ => return None,
    };
    Some(format!("{part}.{kind}"))
}

/// The shape that a Hugging Face checkpoint has: depthwise filters are `[channels, 1, taps]`.
pub(super) fn shape(tensor: &Tensor<'_>) -> Vec<usize> {
    match tensor.shape[..] {
        [channels, taps] if tensor.name.ends_with("shortconv.conv.weight") => vec![channels, 1, taps],
        _ => tensor.shape.clone(),
    }
}

/// What the converter did to the tensor, to be undone when it is read.
pub(super) fn conversion(
    family: Family,
    metadata: &Metadata<'_>,
    tensor: &Tensor<'_>,
) -> Result<Conversion, CheckpointError> {
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
            Ok(Conversion::RotaryPairs { heads: heads as usize })
        }
        // Gemma's norms multiply by 1 + w; the converter stores the sum.
        Family::Gemma3 if part.ends_with("norm") => match tensor.source {
            SourceType::F32 => Ok(Conversion::PlusOne),
            other => {
                let what = format!("tensor {} is {other}, norms must be F32", tensor.name);
                Err(metadata.unsupported(what))
            }
        },
        _ => Ok(Conversion::None),
    }
}
