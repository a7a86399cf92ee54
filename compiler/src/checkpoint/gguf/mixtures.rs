//! The parts of config.json that only mixtures of experts and LFM2 have.
//!
//! What a file does not say is what llama.cpp's graph of the architecture does:
//! <https://github.com/ggml-org/llama.cpp/tree/master/src/models>.

use serde_json::{Value, json};

use super::Family;
use super::cursor;
use super::metadata::Metadata;
use crate::checkpoint::CheckpointError;

/// Names and values of config.json.
type Fields = Vec<(&'static str, Value)>;

/// Of GPT-OSS, Qwen3-MoE and OLMoE.
pub(super) fn experts(
    family: Family,
    metadata: &Metadata<'_>,
    architecture: &str,
    layers: u64,
) -> Result<Fields, CheckpointError> {
    let key = |name: &str| format!("{architecture}.{name}");
    let mut fields = vec![
        ("num_experts", json!(metadata.require_size(&key("expert_count"))?)),
        (
            "num_experts_per_tok",
            json!(metadata.require_size(&key("expert_used_count"))?),
        ),
    ];
    let dense = metadata.require_size(&key("feed_forward_length"))?;
    let width = metadata.size(&key("expert_feed_forward_length"))?.unwrap_or(dense);
    match family {
        Family::GptOss => {
            fields.push(("intermediate_size", json!(width)));
            fields.push((
                "sliding_window",
                json!(metadata.require_size(&key("attention.sliding_window"))?),
            ));
            let kind = |layer| {
                if layer % 2 == 0 {
                    "sliding_attention"
                } else {
                    "full_attention"
                }
            };
            fields.push(("layer_types", json!((0..layers).map(kind).collect::<Vec<_>>())));
        }
        Family::Olmoe => {
            fields.push(("intermediate_size", json!(width)));
            fields.push(("norm_topk_prob", json!(false)));
            fields.push(("clip_qkv", json!(metadata.number(&key("attention.clamp_kqv"))?)));
        }
        _ => {
            fields.push(("moe_intermediate_size", json!(width)));
            fields.push(("norm_topk_prob", json!(true)));
        }
    }
    Ok(fields)
}

/// Of LFM2, with experts or without.
pub(super) fn lfm2(
    family: Family,
    metadata: &Metadata<'_>,
    architecture: &str,
    layers: u64,
) -> Result<Fields, CheckpointError> {
    let key = |name: &str| format!("{architecture}.{name}");
    let kind = |heads: &u64| if *heads == 0 { "conv" } else { "full_attention" };
    let kinds: Vec<&str> = key_heads_by_layer(metadata, architecture, layers)?
        .iter()
        .map(kind)
        .collect();
    let mut fields = vec![
        ("layer_types", json!(kinds)),
        ("conv_L_cache", json!(metadata.require_size(&key("shortconv.l_cache"))?)),
        // The file's width is the one that is used.
        ("block_auto_adjust_ff_dim", json!(false)),
    ];
    if family == Family::Lfm2Moe {
        let scale = metadata.number(&key("expert_weights_scale"))?.unwrap_or(1.0);
        fields.extend([
            ("num_experts", json!(metadata.require_size(&key("expert_count"))?)),
            (
                "num_experts_per_tok",
                json!(metadata.require_size(&key("expert_used_count"))?),
            ),
            (
                "moe_intermediate_size",
                json!(metadata.require_size(&key("expert_feed_forward_length"))?),
            ),
            (
                "num_dense_layers",
                json!(metadata.require_size(&key("leading_dense_block_count"))?),
            ),
            ("use_expert_bias", json!(true)),
            ("norm_topk_prob", json!(true)),
            ("routed_scaling_factor", json!(scale)),
        ]);
    }
    Ok(fields)
}

/// Heads of keys in the layers that attend.
pub(super) fn lfm2_key_heads(metadata: &Metadata<'_>, architecture: &str, layers: u64) -> Result<u64, CheckpointError> {
    let heads = key_heads_by_layer(metadata, architecture, layers)?;
    let mut attending = heads.into_iter().filter(|heads| *heads > 0);
    let first = attending.next().unwrap_or(1);
    match attending.find(|heads| *heads != first) {
        None => Ok(first),
        Some(other) => Err(metadata.unsupported(format!("layers have {first} and {other} heads of keys"))),
    }
}

/// None in layers with a convolution instead.
fn key_heads_by_layer(metadata: &Metadata<'_>, architecture: &str, layers: u64) -> Result<Vec<u64>, CheckpointError> {
    let key = format!("{architecture}.attention.head_count_kv");
    let wrong = || metadata.mistyped(&key, "one small number for each layer");
    let numbers = metadata
        .array(&key)?
        .and_then(cursor::Array::values)
        .ok_or_else(wrong)?;
    let count = |value| match value {
        cursor::Value::Unsigned(heads) => u32::try_from(heads).ok(),
        cursor::Value::Signed(heads) => u32::try_from(heads).ok(),
        _ => None,
    };
    let heads: Option<Vec<u64>> = numbers.map(|value| count(value).map(u64::from)).collect();
    heads.filter(|heads| heads.len() as u64 == layers).ok_or_else(wrong)
}
