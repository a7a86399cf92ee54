//! Layers with states that sum up what came before: configs for the mixtures, and heads wider than random definitions
//! have.

use kiln_codegen_tests::random_model::Grid;
use serde_json::{Value, json};

use super::{check_random, config};

pub fn lfm2(fields: Value) -> Value {
    config(
        json!({
            "architectures": ["Lfm2ForCausalLM"],
            "model_type": "lfm2",
            "hidden_size": 72,
            "intermediate_size": 100,
            "block_auto_adjust_ff_dim": false,
            "num_hidden_layers": 3,
            "layer_types": ["conv", "full_attention", "conv"],
            "conv_L_cache": 3,
            "conv_bias": false,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "tie_word_embeddings": true,
        }),
        fields,
    )
}

/// Of Qwen3-Next and Qwen3.5, but for the feed-forward network.
pub fn delta(fields: Value) -> Value {
    config(
        json!({
            "hidden_size": 72,
            "num_hidden_layers": 2,
            "layer_types": ["linear_attention", "full_attention"],
            "linear_conv_kernel_dim": 4,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 6,
            "linear_key_head_dim": 24,
            "linear_value_head_dim": 20,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "partial_rotary_factor": 0.25,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "tie_word_embeddings": false,
        }),
        fields,
    )
}

fn qwen3_5(fields: Value) -> Value {
    let dense = json!({
        "architectures": ["Qwen3_5ForCausalLM"], "model_type": "qwen3_5_text", "intermediate_size": 100,
    });
    delta(config(dense, fields))
}

#[test]
fn delta_rule_with_three_value_heads_a_key_head() {
    check_random(qwen3_5(json!({})), Grid::F32, 40, 15);
}

#[test]
fn delta_rule_with_wide_heads_in_q8() {
    let fields = json!({
        "linear_num_key_heads": 1, "linear_num_value_heads": 1, "linear_key_head_dim": 128,
        "linear_value_head_dim": 128, "hidden_size": 64, "tie_word_embeddings": true,
    });
    check_random(qwen3_5(fields), Grid::Q8, 35, 16);
}
