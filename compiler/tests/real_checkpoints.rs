//! The two real GGUF files: config, tensors and tokenizers against Hugging Face's.
//!
//! The files are looked for in `$KILN_MODELS`, by default `models/` in the workspace; where they
//! are absent the tests say so and pass. The texts, ids and decoded answers were made by
//! transformers from the same files.

use std::path::PathBuf;

use kiln_compiler::checkpoint::{Checkpoint, SourceType, TensorSource};
use kiln_require::{Requirement, skip};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

const SMOLLM2: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const GEMMA3: &str = "gemma-3-270m-q4_k_m.gguf";

fn model(name: &str) -> Option<Checkpoint> {
    let folder = std::env::var_os("KILN_MODELS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models"),
        PathBuf::from,
    );
    let path = folder.join(name);
    if path.exists() {
        Some(Checkpoint::open(&path).unwrap())
    } else {
        let why = format!("no {}; set KILN_MODELS to its folder", path.display());
        skip(Requirement::Models, why);
        None
    }
}

fn reference(name: &str) -> Value {
    let path = format!("{}/tests/fixtures/real/{name}.text.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Encoding of plain texts and prompts, and decoding of answers.
fn check_tokenizer(checkpoint: &Checkpoint, reference: &Value) {
    let text = checkpoint.text().unwrap();
    let tokenizer: Tokenizer = text.tokenizer_json.parse().unwrap();
    let encode = |text: &Value, special| tokenizer.encode(text.as_str().unwrap(), special).unwrap();
    for case in reference["without_special_tokens"].as_array().unwrap() {
        assert_eq!(
            encode(&case["text"], false).get_ids(),
            ids(&case["ids"]),
            "{}",
            case["text"]
        );
    }
    for prompt in reference["prompts"].as_array().unwrap() {
        // The chat template writes special tokens itself.
        let special = prompt["messages"].is_null();
        let encoded = encode(&prompt["text"], special);
        assert_eq!(encoded.get_ids(), ids(&prompt["ids"]), "{}", prompt["text"]);
        let decoded = tokenizer.decode(&ids(&prompt["greedy_ids"]), false).unwrap();
        assert_eq!(decoded, prompt["greedy_text"].as_str().unwrap());
    }
}

#[test]
fn smollm2_reads_as_its_hugging_face_checkpoint() {
    let Some(checkpoint) = model(SMOLLM2) else {
        return;
    };
    let expected = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": true,
        "attention_bias": false,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "mlp_bias": false,
        "hidden_act": "silu",
        "rope_parameters": { "rope_type": "default", "rope_theta": 100000.0 },
    });
    assert_eq!(checkpoint.config(), &expected);
    // <|im_end|>, which the file names, <|endoftext|> and <reponame>.
    assert_eq!(checkpoint.generation().eos_token_ids, [2, 0, 4]);
    assert_eq!(checkpoint.generation().bos_token_id, Some(1));
    let names = checkpoint.names();
    assert_eq!(names.len(), 272);
    let info = checkpoint.info("model.layers.29.mlp.down_proj.weight").unwrap();
    assert_eq!(
        (info.shape.as_slice(), info.source),
        (&[576, 1536][..], SourceType::Q4_1)
    );
    let template = checkpoint.text().unwrap().chat_template.as_deref().unwrap();
    assert!(template.contains("You are a helpful AI assistant named SmolLM"));
    check_tokenizer(&checkpoint, &reference("smollm2-135m-instruct"));
}

#[test]
fn gemma3_reads_as_its_hugging_face_checkpoint() {
    let Some(checkpoint) = model(GEMMA3) else {
        return;
    };
    let config = checkpoint.config();
    let expected = json!({
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "vocab_size": 262144,
        "hidden_size": 640,
        "intermediate_size": 2048,
        "num_hidden_layers": 18,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": true,
        "attention_bias": false,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 256,
        "sliding_window": 512,
        "final_logit_softcapping": null,
        "rope_parameters": {
            "full_attention": { "rope_type": "default", "rope_theta": 1000000.0 },
            "sliding_attention": { "rope_type": "default", "rope_theta": 10000.0 },
        },
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&config[key], value, "{key}");
    }
    let kinds = config["layer_types"].as_array().unwrap();
    let full: Vec<usize> = (0..18).filter(|&layer| kinds[layer] == "full_attention").collect();
    assert_eq!((kinds.len(), full), (18, vec![5, 11, 17]));
    assert_eq!(checkpoint.generation().eos_token_ids, [1, 106]);
    assert_eq!(checkpoint.names().len(), 236);
    let embedding = checkpoint.info("model.embed_tokens.weight").unwrap();
    assert_eq!(
        (embedding.shape.as_slice(), embedding.source),
        (&[262144, 640][..], SourceType::Q8_0)
    );
    check_tokenizer(&checkpoint, &reference("gemma-3-270m"));
}
