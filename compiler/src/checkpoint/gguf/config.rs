//! Metadata to `config.json` (v5 spelling).

use serde_json::{Map, Value, json};

use super::metadata::Metadata;
use super::parse::Header;
use super::{Family, cursor, mixtures, rope};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::store::MappedFile;

/// Base of the rotary embedding where a file names none, as in llama.cpp.
const DEFAULT_THETA: f64 = 10_000.0;
/// Gemma 3's sliding layers always use this base.
const GEMMA3_LOCAL_THETA: f64 = 10_000.0;
/// Every so many layers, Gemma 3 has one with full attention.
const GEMMA3_PATTERN: u64 = 6;
/// Gemma 3 27B, told by its layers, scales attention by its mean head width, not by `head_dim`.
const GEMMA3_27B_LAYERS: u64 = 62;

pub(super) fn translate(
    family: Family,
    metadata: &Metadata<'_>,
    header: &Header<'_>,
    files: &[MappedFile],
) -> Result<Value, CheckpointError> {
    let architecture = metadata.require_text("general.architecture")?;
    let key = |name: &str| format!("{architecture}.{name}");
    let size = |name: &str| metadata.require_size(&key(name));
    let shape = |name: &str| {
        let tensor = header.tensors.iter().find(|tensor| tensor.name == name);
        tensor.map(|tensor| tensor.shape.as_slice())
    };
    if !family.has_experts() && metadata.size(&key("expert_count"))?.unwrap_or(0) > 0 {
        let what = format!("{architecture} with experts cannot be translated from GGUF");
        return Err(metadata.unsupported(what));
    }
    let hidden = size("embedding_length")?;
    let layers = size("block_count")?;
    if layers > header.tensors.len() as u64 {
        return Err(metadata.damaged(format!("it has no tensors for {layers} layers")));
    }
    let heads = size("attention.head_count")?;
    let kv_heads = match family.is_lfm2() {
        true => mixtures::lfm2_key_heads(metadata, architecture, layers)?,
        false => metadata.size(&key("attention.head_count_kv"))?.unwrap_or(heads),
    };
    let even = hidden.checked_div(heads).unwrap_or(0);
    let head_dim = metadata.size(&key("attention.key_length"))?.unwrap_or(even);
    for name in ["attention.value_length", "rope.dimension_count"] {
        if metadata.size(&key(name))?.is_some_and(|found| found != head_dim) {
            let what = format!("{} is not the head size {head_dim}", key(name));
            return Err(metadata.unsupported(what));
        }
    }
    let Some(&[vocabulary, _]) = shape("token_embd.weight") else {
        return Err(metadata.damaged("tensor token_embd.weight is missing".to_string()));
    };
    let tokens = metadata.texts("tokenizer.ggml.tokens")?;
    if tokens.is_some_and(|tokens| tokens.len() > vocabulary) {
        let what = format!("it has more tokens than the {vocabulary} rows of token_embd.weight");
        return Err(metadata.damaged(what));
    }
    let theta = metadata.number(&key("rope.freq_base"))?.unwrap_or(DEFAULT_THETA);
    let scaled = rope::parameters(metadata, header, files, architecture, theta, head_dim)?;

    let mut config = Map::new();
    let mut set = |name: &str, value: Value| drop(config.insert(name.to_string(), value));
    let (class, model_type) = family.hugging_face_names();
    set("architectures", json!([class]));
    set("model_type", json!(model_type));
    set("vocab_size", json!(vocabulary));
    set("hidden_size", json!(hidden));
    set("intermediate_size", json!(size("feed_forward_length")?));
    set("num_hidden_layers", json!(layers));
    set("num_attention_heads", json!(heads));
    set("num_key_value_heads", json!(kv_heads));
    set("head_dim", json!(head_dim));
    set("max_position_embeddings", json!(size("context_length")?));
    let epsilon = metadata.require_number(&key("attention.layer_norm_rms_epsilon"))?;
    let of_norms = if family.is_lfm2() { "norm_eps" } else { "rms_norm_eps" };
    set(of_norms, json!(epsilon));
    set("tie_word_embeddings", json!(shape("output.weight").is_none()));
    set("attention_bias", json!(shape("blk.0.attn_q.bias").is_some()));
    for name in ["bos", "eos", "padding"] {
        if let Some(id) = metadata.size(&format!("tokenizer.ggml.{name}_token_id"))? {
            let name = if name == "padding" { "pad" } else { name };
            set(&format!("{name}_token_id"), json!(id));
        }
    }
    match family {
        Family::Llama => {
            set("mlp_bias", json!(shape("blk.0.ffn_up.bias").is_some()));
            set("hidden_act", json!("silu"));
            set("rope_parameters", scaled);
        }
        Family::Qwen3 => {
            set("hidden_act", json!("silu"));
            set("use_sliding_window", json!(false));
            set("rope_parameters", scaled);
        }
        Family::GptOss | Family::Qwen3Moe | Family::Olmoe => {
            set("hidden_act", json!("silu"));
            set("rope_parameters", scaled);
            let experts = mixtures::experts(family, metadata, architecture, layers)?;
            experts.into_iter().for_each(|(name, value)| set(name, value));
        }
        Family::Lfm2 | Family::Lfm2Moe => {
            set("rope_parameters", scaled);
            let rest = mixtures::lfm2(family, metadata, architecture, layers)?;
            rest.into_iter().for_each(|(name, value)| set(name, value));
        }
        Family::Gemma3 => {
            set("hidden_activation", json!("gelu_pytorch_tanh"));
            let scalar = if layers == GEMMA3_27B_LAYERS { even } else { head_dim };
            set("query_pre_attn_scalar", json!(scalar));
            set("sliding_window", json!(size("attention.sliding_window")?));
            set("layer_types", gemma3_layers(metadata, layers)?);
            let local = metadata.number(&key("rope.freq_base_swa"))?;
            let local = local.unwrap_or(GEMMA3_LOCAL_THETA);
            let sliding = json!({ "rope_type": "default", "rope_theta": local });
            set(
                "rope_parameters",
                json!({ "full_attention": scaled, "sliding_attention": sliding }),
            );
            let cap = metadata.number(&key("final_logit_softcapping"))?;
            set("final_logit_softcapping", json!(cap));
        }
    }
    Ok(Value::Object(config))
}

/// The kind of each layer: stated one by one, by a period, or not at all.
fn gemma3_layers(metadata: &Metadata<'_>, layers: u64) -> Result<Value, CheckpointError> {
    const KEY: &str = "gemma3.attention.sliding_window_pattern";
    let kind = |sliding| {
        if sliding { "sliding_attention" } else { "full_attention" }
    };
    let kinds: Vec<&str> = match metadata.get(KEY) {
        Some(cursor::Value::Array(stated)) => {
            let stated = stated.values().into_iter().flatten();
            let kinds: Vec<&str> = stated
                .filter_map(|value| match value {
                    cursor::Value::Bool(sliding) => Some(kind(sliding)),
                    _ => None,
                })
                .collect();
            if kinds.len() as u64 != layers {
                return Err(metadata.mistyped(KEY, "one truth value for each layer"));
            }
            kinds
        }
        _ => {
            let period = metadata.size(KEY)?.unwrap_or(GEMMA3_PATTERN).max(1);
            (1..=layers).map(|layer| kind(layer % period != 0)).collect()
        }
    };
    Ok(json!(kinds))
}
