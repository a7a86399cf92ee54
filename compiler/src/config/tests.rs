use serde_json::{Value, json};

use super::*;

fn normal(config: Value) -> Value {
    normalize(&config, &Conventions::default()).unwrap()
}

/// As the architecture of the config's `model_type` has it.
fn of_family(config: Value) -> Value {
    let registry = crate::architectures::Registry::default();
    registry.for_config(&config).unwrap().normal(&config).unwrap()
}

#[test]
fn old_spellings_become_the_new_one() {
    let seen = normal(json!({
        "torch_dtype": "float16",
        "rope_theta": 5e5,
        "partial_rotary_factor": 0.5,
        "rope_scaling": { "type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0 },
        "max_position_embeddings": 4096,
    }));
    let expected = json!({
        "dtype": "float16",
        "max_position_embeddings": 4096,
        "rope_parameters": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 4096, "rope_theta": 5e5, "partial_rotary_factor": 0.5,
        },
    });
    assert_eq!(seen, expected);
    assert_eq!(normal(seen), expected, "normalizing twice changes nothing");
}

#[test]
fn a_config_without_rope_gets_transformers_base() {
    let seen = normal(json!({ "rope_scaling": null }));
    assert_eq!(
        seen["rope_parameters"],
        json!({ "rope_type": "default", "rope_theta": 1e4 })
    );
}

#[test]
fn gemma_gets_its_layers_and_both_bases() {
    let seen = of_family(json!({
        "model_type": "gemma3_text", "num_hidden_layers": 4, "sliding_window_pattern": 2,
        "rope_theta": 5e5, "rope_scaling": { "rope_type": "linear", "factor": 8.0 },
    }));
    assert_eq!(
        seen["layer_types"],
        json!([
            "sliding_attention",
            "full_attention",
            "sliding_attention",
            "full_attention"
        ])
    );
    assert_eq!(
        seen["rope_parameters"],
        json!({
            "full_attention": { "rope_type": "linear", "factor": 8.0, "rope_theta": 5e5 },
            "sliding_attention": { "rope_type": "default", "rope_theta": 1e4 },
        })
    );
}

#[test]
fn damaged_configs_are_errors() {
    for config in [
        json!([]),
        json!({ "layer_types": "full_attention" }),
        json!({ "layer_types": ["full_attention"], "num_hidden_layers": 2 }),
        json!({ "sliding_window_pattern": 0, "num_hidden_layers": 2 }),
        json!({ "num_hidden_layers": u64::MAX }),
        json!({ "rope_scaling": 8.0 }),
    ] {
        assert!(normalize(&config, &Conventions::default()).is_err(), "{config}");
    }
}

#[test]
fn facts_of_a_model() {
    let mut config = json!({
        "vocab_size": 256, "hidden_size": 128, "num_hidden_layers": 2, "max_position_embeddings": 512,
    });
    let facts = ModelFacts::read(&config).unwrap();
    assert_eq!(
        (facts.vocab_size, facts.hidden_size, facts.layers, facts.max_context),
        (256, 128, 2, 512)
    );
    config["max_position_embeddings"] = json!(0);
    let error = ModelFacts::read(&config).unwrap_err();
    assert_eq!(
        error.to_string(),
        "config.json: `max_position_embeddings` should be a positive whole number below 2^31, found 0"
    );
}

/// The larger model says whether the head is tied.
#[test]
fn the_text_part_of_a_larger_model_is_a_config_of_its_own() {
    let text = json!({ "model_type": "llama", "hidden_size": 64, "tie_word_embeddings": false });
    let seen = normal(json!({ "hidden_size": 8, "text_config": text, "vision_config": {} }));
    assert_eq!(
        (&seen["hidden_size"], &seen["tie_word_embeddings"]),
        (&json!(64), &json!(false))
    );
    let seen = normal(json!({ "text_config": text, "tie_word_embeddings": true }));
    assert_eq!(seen["tie_word_embeddings"], json!(true));
    assert_eq!(normal(seen.clone()), seen);
    assert_eq!(normal(json!({ "text_config": {} }))["tie_word_embeddings"], json!(true));
}

#[test]
fn of_two_spellings_the_one_that_transformers_takes_wins() {
    let seen = normal(json!({
        "rope_parameters": { "rope_type": "default", "rope_theta": 1e4 },
        "rope_scaling": { "rope_type": "linear", "factor": 2.0 }, "rope_theta": 5e5,
    }));
    let expected = json!({ "rope_type": "linear", "factor": 2.0, "rope_theta": 5e5 });
    assert_eq!(seen["rope_parameters"], expected);
    let seen = normal(json!({
        "original_max_position_embeddings": 512, "rope_theta": 1e4,
        "rope_parameters": { "rope_type": "llama3", "original_max_position_embeddings": 1024 },
    }));
    assert_eq!(seen["rope_parameters"]["original_max_position_embeddings"], json!(512));
}

/// Llama 3.1's scaling keeps short wavelengths, divides long ones by the factor, and does some of both
/// between.
#[test]
fn llama3_scaling_has_three_ranges() {
    let value = json!({
        "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    });
    let plain = json!({ "rope_type": "default", "rope_theta": 5e5 });
    let frequencies = |value: &Value| rope(value, 64).inv_freq;
    let mut seen = [0; 3];
    for (scaled, plain) in frequencies(&value).into_iter().zip(frequencies(&plain)) {
        let wavelength = std::f32::consts::TAU / plain;
        if wavelength < 8192.0 / 4.0 {
            assert_eq!(scaled, plain);
            seen[0] += 1;
        } else if wavelength > 8192.0 {
            assert_eq!(scaled, plain / 8.0);
            seen[1] += 1;
        } else {
            assert!(plain / 8.0 < scaled && scaled < plain);
            seen[2] += 1;
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

#[test]
fn a_share_of_a_head_is_rotated() {
    let value = json!({ "rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.25 });
    let field = Field {
        key: "rope_parameters",
        symbol: "rope",
        value: &value,
    };
    let rope = Rope::from_config(field).unwrap();
    assert_eq!(rope.spec(None, 64).unwrap().rotary(), 16);
    assert!(rope.spec(None, 3).is_err());
}

fn rope(value: &Value, head_dim: usize) -> crate::graph::RopeSpec {
    let field = Field {
        key: "rope_parameters",
        symbol: "rope",
        value,
    };
    Rope::from_config(field).unwrap().spec(None, head_dim).unwrap()
}

/// What transformers' `ROPE_INIT_FUNCTIONS["yarn"]` gives for heads of 32.
#[test]
fn yarn_equals_transformers() {
    let rounded = json!({
        "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 1024,
    });
    let exact = json!({
        "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64,
        "beta_fast": 16.0, "beta_slow": 2.0, "truncate": false, "mscale": 0.707, "mscale_all_dim": 1.2,
    });
    let partial = json!({
        "rope_type": "yarn", "rope_theta": 1e4, "factor": 0.5, "original_max_position_embeddings": 64,
        "attention_factor": 1.25, "partial_rotary_factor": 0.5,
    });
    let expected = [
        (
            rounded,
            "1.0 0.562341332 0.316227764 0.158774942 0.0785714313 0.0381588712 0.0180701576 0.00825629756 \
             0.00357142836 0.00140585331 0.000790569466 0.000444569858 0.000250000012 0.000140585325 7.90569466e-05 \
             4.44569851e-05",
            1.138629436111989,
        ),
        (
            exact,
            "1.0 0.413199246 0.14849025 0.0444569848 0.0250000004 0.0140585322 0.00790569466 0.00444569858 \
             0.00249999994 0.00140585331 0.000790569466 0.000444569858 0.000250000012 0.000140585325 7.90569466e-05 \
             4.44569851e-05",
            0.941403523749669,
        ),
        (
            partial,
            "1.0 0.421637028 0.166666672 0.0632455572 0.0199999996 0.00632455572 0.00200000009 0.000632455572",
            1.25,
        ),
    ];
    let close =
        |found: f32, expected: f64| assert!((f64::from(found) / expected - 1.0).abs() < 1e-6, "{found} {expected}");
    for (config, frequencies, factor) in expected {
        let spec = rope(&config, 32);
        let frequencies: Vec<f64> = frequencies.split(' ').map(|number| number.parse().unwrap()).collect();
        assert_eq!(spec.inv_freq.len(), frequencies.len());
        for (found, expected) in spec.inv_freq.iter().zip(frequencies) {
            close(*found, expected);
        }
        close(spec.attention_factor, factor);
    }
}

#[test]
fn yarn_without_a_factor_spans_the_whole_context() {
    let seen = normal(json!({
        "max_position_embeddings": 4096,
        "rope_scaling": { "rope_type": "yarn", "original_max_position_embeddings": 1024, "factor": null },
    }));
    assert_eq!(seen["rope_parameters"]["factor"], json!(4.0));
}

#[test]
fn qwens_patterns_of_feed_forward_layers() {
    use FeedForward::{Dense, Experts};
    let every = |step: usize, dense: &[usize]| FeedForward::every(step.into(), 4.into(), dense);
    assert_eq!(every(1, &[]), [Experts; 4]);
    assert_eq!(every(2, &[3]), [Dense, Experts, Dense, Dense]);
}
