//! Keys of a config.json that no definition has read: which of them matter.

use std::fmt;

use serde_json::Value;

use super::error::shortened;

/// A key that nobody has read, though it may say something about what the model computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadKey {
    pub key: String,
    /// Its value as JSON, shortened.
    pub value: String,
    /// Whether the model is known to compute something else with this value than without.
    pub changes_the_model: bool,
}

impl UnreadKey {
    /// `None` for a key that says nothing about what is computed, or that is switched off.
    pub(super) fn of(key: &str, value: &Value) -> Option<Self> {
        if value.is_null() || is_harmless(key) {
            return None;
        }
        let switch = SWITCHES.iter().find(|(of, _)| *of == key);
        match switch {
            Some((_, off)) if off.holds(value) => None,
            _ => Some(UnreadKey {
                key: key.to_string(),
                value: shortened(value),
                changes_the_model: switch.is_some(),
            }),
        }
    }
}

impl fmt::Display for UnreadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` = {}", self.key, self.value)
    }
}

/// With which values a key changes nothing; null never does.
enum Off {
    /// false, 0, an empty list or object.
    Falsy,
    /// 1.
    One,
    /// true.
    True,
    /// All layers attend to everything.
    FullAttention,
    /// The positions are rotary ones.
    Rotary,
    /// No scaling: what a model without rotary positions has after normalizing.
    PlainRope,
}

impl Off {
    fn holds(&self, value: &Value) -> bool {
        match self {
            Off::Falsy => match value {
                Value::Bool(on) => !on,
                Value::Number(number) => number.as_f64() == Some(0.0),
                Value::Array(items) => items.is_empty(),
                Value::Object(entries) => entries.is_empty(),
                _ => false,
            },
            Off::One => value.as_f64() == Some(1.0),
            Off::True => value == true,
            Off::FullAttention => {
                let kinds = value.as_array().map(Vec::as_slice).unwrap_or_default();
                kinds.iter().all(|kind| kind == "full_attention")
            }
            Off::Rotary => ["rope", "rotary", "absolute"].iter().any(|kind| value == kind),
            Off::PlainRope => value.get("rope_type").is_some_and(|kind| kind == "default"),
        }
    }
}

/// Keys that change what is computed, by the names that config.json files on the Hugging Face hub have for them.
const SWITCHES: &[(&str, Off)] = &[
    // Who attends to whom.
    ("sliding_window", Off::Falsy),
    ("sliding_window_size", Off::Falsy),
    ("use_sliding_window", Off::Falsy),
    ("attention_window_size", Off::Falsy),
    ("attention_chunk_size", Off::Falsy),
    ("layer_types", Off::FullAttention),
    ("use_bidirectional_attention", Off::Falsy),
    ("is_causal", Off::True),
    ("is_encoder_decoder", Off::Falsy),
    ("add_cross_attention", Off::Falsy),
    ("num_kv_shared_layers", Off::Falsy),
    ("attn_temperature_tuning", Off::Falsy),
    ("add_swa_attention_sink_bias", Off::Falsy),
    ("add_full_attention_sink_bias", Off::Falsy),
    // Positions.
    ("rope_parameters", Off::PlainRope),
    ("rope_interleaved", Off::Falsy),
    ("rope_interleave", Off::Falsy),
    ("no_rope_layers", Off::Falsy),
    ("no_rope_layer_interval", Off::Falsy),
    ("alibi", Off::Falsy),
    ("use_alibi", Off::Falsy),
    ("position_embedding_type", Off::Rotary),
    // Norms and biases.
    ("attention_bias", Off::Falsy),
    ("qkv_bias", Off::Falsy),
    ("use_qkv_bias", Off::Falsy),
    ("add_qkv_bias", Off::Falsy),
    ("mlp_bias", Off::Falsy),
    ("use_bias", Off::Falsy),
    ("lm_head_bias", Off::Falsy),
    ("qk_norm", Off::Falsy),
    ("use_qk_norm", Off::Falsy),
    ("qk_layernorm", Off::Falsy),
    ("post_norm", Off::Falsy),
    ("parallel_attn", Off::Falsy),
    ("use_parallel_residual", Off::Falsy),
    ("attn_output_gate", Off::Falsy),
    // Clamps and factors.
    ("clip_qkv", Off::Falsy),
    ("attn_logit_softcapping", Off::Falsy),
    ("attn_logit_softcap", Off::Falsy),
    ("final_logit_softcapping", Off::Falsy),
    ("final_logit_softcap", Off::Falsy),
    ("logits_soft_cap", Off::Falsy),
    ("embedding_multiplier", Off::One),
    ("residual_multiplier", Off::One),
    ("logits_scaling", Off::One),
    ("logit_scale", Off::One),
    ("scale_emb", Off::One),
    ("attention_multiplier", Off::Falsy),
    ("query_pre_attn_scalar", Off::Falsy),
    ("swiglu_limit", Off::Falsy),
    // Experts and latent attention.
    ("num_experts", Off::Falsy),
    ("num_local_experts", Off::Falsy),
    ("moe_num_experts", Off::Falsy),
    ("n_routed_experts", Off::Falsy),
    ("n_shared_experts", Off::Falsy),
    ("shared_intermediate_size", Off::Falsy),
    ("shared_expert_intermediate_size", Off::Falsy),
    ("routed_scaling_factor", Off::One),
    ("q_lora_rank", Off::Falsy),
    ("kv_lora_rank", Off::Falsy),
    ("hidden_size_per_layer_input", Off::Falsy),
    ("altup_num_inputs", Off::Falsy),
    ("laurel_rank", Off::Falsy),
];

/// Names, versions, training, generation, token ids, other modalities.
fn is_harmless(key: &str) -> bool {
    const PREFIXES: &[&str] = &[
        "_",
        "transformers",
        "tokenizer",
        "unsloth",
        "output_",
        "mtp_",
        "use_cache",
        "return_dict",
    ];
    const PARTS: &[&str] = &[
        "dropout",
        "pdrop",
        "token_id",
        "token_index",
        "aux_loss",
        "z_loss",
        "init",
        "jitter",
    ];
    const SUFFIXES: &[&str] = &["vision_config", "audio_config", "_implementation"];
    PREFIXES.iter().any(|prefix| key.starts_with(prefix))
        || PARTS.iter().any(|part| key.contains(part))
        || SUFFIXES.iter().any(|suffix| key.ends_with(suffix))
        || HARMLESS.contains(&key)
}

const HARMLESS: &[&str] = &[
    // What the checkpoint is.
    "architectures",
    "auto_map",
    "dtype",
    "is_llama_config",
    "language_model_only",
    "license",
    "model_name",
    "model_type",
    "name_or_path",
    "quantization",
    "quantization_config",
    // Sizes that say what others say, or that the compiler reads itself.
    "max_position_embeddings",
    "max_sequence_length",
    "max_seq_len",
    "max_window_layers",
    "model_max_length",
    "num_hidden_layers",
    "num_key_value_groups",
    "original_max_position_embeddings",
    "seq_length",
    // How it was trained, and runs elsewhere.
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "deterministic_flash_attn",
    "embd_layer",
    "finetuning_task",
    "gradient_checkpointing",
    "is_decoder",
    "mamba_ssm_dtype",
    "num_nextn_predict_layers",
    "pretraining_tp",
    "pruned_heads",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "torchscript",
    "use_bfloat16",
    "use_flash_attn",
    "use_return_dict",
    // Classifiers.
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "task_specific_params",
    // Generation.
    "bad_words_ids",
    "begin_suppress_tokens",
    "cache_implementation",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "min_p",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "prefix",
    "remove_invalid_values",
    "repetition_penalty",
    "suppress_tokens",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
];
