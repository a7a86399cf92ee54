//! Keys of a config.json that a definition does not read.

use kiln_compiler::architectures::Registry;
use serde_json::{Value, json};

use super::{build, fixture, fixtures, names, small_config};

#[test]
fn keys_that_change_the_model_are_refused() {
    let message = |case: &str, key: &str, value: Value| {
        let mut config = fixture(case, "config.json");
        config[key] = value;
        build(&config)
            .map(|_| "compiles".to_string())
            .unwrap_or_else(|error| error.to_string())
    };
    assert_eq!(
        message("llama-A-bf16", "sliding_window", json!(4096)),
        "LlamaForCausalLM: config.json: `sliding_window` = 4096 changes what the model computes, and this architecture does \
         not read it: the answers would be wrong (delete what does not apply to the model)"
    );
    for (case, key, value, off) in [
        (
            "llama-A-bf16",
            "layer_types",
            json!(["full_attention", "sliding_attention"]),
            json!(["full_attention", "full_attention"]),
        ),
        ("llama-A-bf16", "final_logit_softcapping", json!(30.0), Value::Null),
        ("llama-A-bf16", "logits_scaling", json!(8), json!(1)),
        ("llama-A-bf16", "num_local_experts", json!(8), json!(0)),
        ("llama-A-bf16", "use_sliding_window", json!(true), json!(false)),
        ("llama-A-bf16", "position_embedding_type", json!("nope"), json!("rope")),
        ("llama-A-bf16", "is_causal", json!(false), json!(true)),
        ("mistral-A-bf16", "attention_bias", json!(true), json!(false)),
        ("qwen3-A-bf16", "clip_qkv", json!(8.0), Value::Null),
        ("qwen3_next-A-bf16", "use_sliding_window", json!(true), json!(false)),
        ("qwen3_5-A-bf16", "attn_output_gate", json!(false), json!(true)),
        ("gpt_oss-A-bf16", "hidden_act", json!("gelu"), json!("silu")),
        ("gemma3-A-bf16", "attn_logit_softcapping", json!(50.0), Value::Null),
    ] {
        let refused = message(case, key, value);
        assert!(refused.contains(&format!("`{key}` = ")), "{case} {key}: {refused}");
        assert_eq!(message(case, key, off), "compiles", "{case} {key}");
    }
    let mut scaled = fixture("llama-A-bf16", "config.json");
    scaled["rope_parameters"]["llama_4_scaling_beta"] = json!(0.1);
    let refused = build(&scaled).unwrap_err().to_string();
    assert!(
        refused.contains("`rope_parameters.llama_4_scaling_beta` = 0.1"),
        "{refused}"
    );
}

/// The same for definitions of other crates; what is not known at all is listed.
#[test]
fn other_definitions_are_guarded_too() {
    let mut config = small_config();
    config["frobnicate"] = json!({ "deeply": true });
    config["attention_dropout"] = json!(0.1);
    let unread = names().define(&config).unwrap().unread;
    let texts: Vec<String> = unread.iter().map(ToString::to_string).collect();
    assert_eq!(texts, [r#"`frobnicate` = {"deeply":true}"#]);

    for (key, value) in [
        ("sliding_window", json!(4096)),
        ("rope_scaling", json!({ "rope_type": "yarn", "factor": 4.0 })),
        ("sliding_window_pattern", json!(2)),
    ] {
        let mut config = small_config();
        config[key] = value;
        assert!(names().define(&config).is_err(), "{key}");
    }
}

#[test]
fn published_configs_raise_no_alarm() {
    let unread = |config: &Value| {
        Registry::default()
            .for_config(config)
            .unwrap()
            .define(config)
            .unwrap()
            .unread
    };
    let mut cases = 0;
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let case = entry.unwrap().file_name().into_string().unwrap();
        if !case.contains('-') {
            continue;
        }
        for file in ["config.json", "config.v4.json"] {
            assert_eq!(unread(&fixture(&case, file)), [], "{case}/{file}");
            cases += 1;
        }
    }
    assert!(cases >= 60, "{cases}");
    // What files on the hub have beside what transformers writes today.
    for (case, extra) in [
        (
            "llama-A-bf16",
            json!({
                "_name_or_path": "x", "is_llama_config": true, "rope_interleaved": false, "pretraining_tp": 1,
                "transformers.js_config": { "dtype": "q4" }, "unsloth_fixed": true, "torch_dtype": "bfloat16",
                "attention_dropout": 0.0, "use_cache": true, "pad_token_id": 0, "quantization_config": null,
            }),
        ),
        (
            "qwen3_moe-A-bf16",
            json!({ "max_window_layers": 48, "output_router_logits": false }),
        ),
        (
            "gemma3-A-bf16",
            json!({ "cache_implementation": "hybrid", "attn_logit_softcapping": null, "_sliding_window_pattern": 6 }),
        ),
        (
            "gpt_oss-A-mxfp4",
            json!({
                "experts_per_token": 4, "initial_context_length": 4096, "hidden_act": "silu", "swiglu_limit": 7.0,
                "router_aux_loss_coef": 0.9,
            }),
        ),
        (
            "lfm2-A-bf16",
            json!({
                "block_dim": 64, "block_mlp_init_scale": 1.0, "block_norm_eps": 1e-5, "block_out_init_scale": 1.0,
                "block_use_swiglu": true, "block_use_xavier_init": true, "conv_dim": 64, "conv_dim_out": 64,
                "conv_use_xavier_init": true, "num_heads": 4, "theta": 1000000.0, "use_pos_enc": true,
            }),
        ),
        (
            "qwen3_next-A-bf16",
            json!({ "use_sliding_window": false, "rope_scaling": null }),
        ),
        (
            "qwen3_5-A-bf16",
            json!({
                "attn_output_gate": true, "mamba_ssm_dtype": "float32", "mtp_num_hidden_layers": 1,
                "mtp_use_dedicated_embeddings": false,
                "rope_parameters": {
                    "mrope_interleaved": true, "mrope_section": [11, 11, 10], "partial_rotary_factor": 0.25,
                    "rope_theta": 1e7, "rope_type": "default",
                },
            }),
        ),
    ] {
        let mut config = fixture(case, "config.json");
        for (key, value) in extra.as_object().unwrap() {
            config[key] = value.clone();
        }
        assert_eq!(unread(&config), [], "{case}");
    }
}
