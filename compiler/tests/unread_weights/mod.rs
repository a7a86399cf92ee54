//! Weights that are there and that Kiln does not read: what they are is said in one line, with the way out.

use kiln_compiler::architectures::Registry;
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};
use serde_json::{Value, json};

use super::{CONFIG, directory, open, weights};

#[test]
fn weights_of_other_kinds_are_named() {
    for (files, named, way_out) in [
        (
            &["pytorch_model.bin"][..],
            "pytorch_model.bin: ",
            "save the model as safetensors",
        ),
        (
            &[
                "pytorch_model-00002-of-00002.bin",
                "pytorch_model-00001-of-00002.bin",
                "pytorch_model.bin.index.json",
            ],
            "pytorch_model-00001-of-00002.bin: Kiln does not read pickled",
            "save the model as safetensors",
        ),
        (
            &["training_args.bin", "model.pt"],
            "model.pt: ",
            "save the model as safetensors",
        ),
        (
            &["consolidated.00.pth", "params.json"],
            "consolidated.00.pth: ",
            "save the model as safetensors",
        ),
        (&["consolidated.safetensors"], "Mistral's own layout", "Hugging Face's"),
        (
            &["adapter_model.safetensors", "adapter_config.json"],
            "a LoRA adapter",
            "merge",
        ),
        (&["adapter_model.bin"], "a LoRA adapter", "merge"),
        (
            &["model.fp16.safetensors"],
            "model.fp16.safetensors: ",
            "call it model.safetensors",
        ),
        (&["tf_model.h5"], "TensorFlow", "save the model as safetensors"),
        (
            &["flax_model.msgpack", "model.onnx"],
            "Flax",
            "save the model as safetensors",
        ),
        (&["weights.npz"], "MLX", "save the model as safetensors"),
        (&["model.onnx"], "ONNX", "take the model's safetensors"),
    ] {
        for config in [Some(CONFIG), None] {
            let content = |name: &&'static str| (*name, b"PK".as_slice());
            let files: Vec<(&str, &[u8])> = (config.map(|config| ("config.json", config.as_bytes())).into_iter())
                .chain(files.iter().map(content))
                .collect();
            let message = open(&files).unwrap_err().to_string();
            assert!(message.contains(named) && message.contains(way_out), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }
    // What lies beside weights that are read does not matter.
    let file = weights(&[("a", &[4])]);
    let files = [
        ("config.json", CONFIG.as_bytes()),
        ("model.safetensors", &file),
        ("pytorch_model.bin", b"PK"),
        ("consolidated.safetensors", b"PK"),
    ];
    assert!(open(&files).unwrap().has_tensors());
}

#[test]
fn pointers_of_git_lfs_are_no_files() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n";
    let config = ("config.json", CONFIG.as_bytes());
    for files in [
        vec![config, ("model.safetensors", pointer.as_slice())],
        vec![config, ("tokenizer.json", pointer)],
        vec![("config.json", pointer)],
        vec![("m.gguf", pointer)],
    ] {
        let message = open(&files).unwrap_err().to_string();
        assert!(message.contains("git lfs pull"), "{message}");
    }
}

#[test]
fn shards_without_an_index_are_read() {
    let (first, second) = (weights(&[("a", &[4])]), weights(&[("b", &[2, 3])]));
    let config = ("config.json", CONFIG.as_bytes());
    let first = ("model-00001-of-00002.safetensors", first.as_slice());
    let both = open(&[config, first, ("model-00002-of-00002.safetensors", &second)]).unwrap();
    kiln_compiler::checkpoint::TensorSource::read_f32(&both, "b").unwrap();
    let message = open(&[config, first]).unwrap_err().to_string();
    assert!(
        message.starts_with("model-00002-of-00002.safetensors is missing; the checkpoint has 2 parts"),
        "{message}"
    );
    let twice = open(&[config, first, ("model-00002-of-00002.safetensors", first.1)])
        .unwrap_err()
        .to_string();
    assert!(
        twice.contains("tensor a is in model-00001-of-00002.safetensors as well"),
        "{twice}"
    );
}

fn llama(quantization: Value) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "vocab_size": 8, "hidden_size": 4, "intermediate_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 2, "tie_word_embeddings": true,
        "quantization_config": quantization,
    })
}

/// Why the weights of a small Llama cannot be used, if its checkpoint has these tensors.
fn refusal(config: &Value, tensors: &[(&str, Dtype)]) -> String {
    let bytes = [0; 16];
    let views = tensors.iter().map(|(name, dtype)| {
        let elements = 128 / dtype.bitsize();
        (
            name.to_string(),
            TensorView::new(*dtype, vec![elements], &bytes).unwrap(),
        )
    });
    let file = serialize(views, None).unwrap();
    let folder = directory(&[
        ("config.json", config.to_string().as_bytes()),
        ("model.safetensors", &file),
    ]);
    let checkpoint = kiln_compiler::checkpoint::Checkpoint::open(folder.path()).unwrap();
    let graph = Registry::default().for_config(config).unwrap().build(config).unwrap();
    let message = checkpoint.view(&graph).err().unwrap().to_string();
    assert!(
        !message.contains('\n') || !message.contains("quantized with"),
        "{message}"
    );
    message
}

#[test]
fn quantizations_are_named_by_config() {
    let any = [("model.norm.weight", Dtype::F32)];
    for (settings, named) in [
        (json!({ "quant_method": "awq", "bits": 4 }), "quantized with AWQ,"),
        (json!({ "quant_method": "gptq" }), "quantized with GPTQ,"),
        (
            json!({ "quant_method": "bitsandbytes", "load_in_4bit": true }),
            "with bitsandbytes,",
        ),
        (json!({ "quant_method": "fp8" }), "with FP8,"),
        (
            json!({ "quant_method": "compressed-tensors", "format": "pack-quantized" }),
            "compressed-tensors (pack-quantized),",
        ),
        (
            json!({ "quant_method": "modelopt", "quant_algo": "NVFP4" }),
            "with modelopt (NVFP4),",
        ),
        (json!({ "quant_method": "eetq" }), "with EETQ,"),
        (json!({ "quant_method": "hqq" }), "with HQQ,"),
        (json!({ "quant_method": "quanto" }), "with quanto,"),
        (json!({ "quant_method": "torchao" }), "with torchao,"),
        (json!({ "quant_method": "of-tomorrow" }), "with of-tomorrow,"),
        (json!({ "group_size": 64, "bits": 4 }), "with MLX's quantization,"),
        (
            json!({ "load_in_4bit": true }),
            "with a method that config.json does not name,",
        ),
    ] {
        let message = refusal(&llama(settings), &any);
        assert!(message.contains(named) && message.contains("--quant q4"), "{message}");
    }
    let mut nested = json!({ "architectures": ["Gemma3ForConditionalGeneration"], "text_config": {} });
    nested["text_config"]["quantization_config"] = json!({ "quant_method": "gptq" });
    assert!(refusal(&nested, &any).contains("with GPTQ,"));
    // MXFP4 is read; the tensors are told as ever.
    assert!(
        refusal(&llama(json!({ "quant_method": "mxfp4" })), &any).contains("the checkpoint does not fit the model")
    );
}

#[test]
fn quantizations_are_named_by_tensors() {
    const Q: &str = "model.layers.0.mlp.up_proj";
    for (ends, dtype, named) in [
        (
            &[".qweight", ".qzeros", ".scales", ".g_idx"][..],
            Dtype::I32,
            "with GPTQ,",
        ),
        (&[".qweight", ".qzeros", ".scales"], Dtype::I32, "with AWQ or GPTQ,"),
        (
            &[".weight_packed", ".weight_scale"],
            Dtype::I32,
            "with compressed-tensors,",
        ),
        (&[".weight", ".weight_scale_inv"], Dtype::F8_E4M3, "with FP8,"),
        (&[".weight"], Dtype::F8_E4M3, "with FP8,"),
        (
            &[".weight", ".weight_scale", ".weight_scale_2", ".input_scale"],
            Dtype::U8,
            "with NVFP4",
        ),
        (
            &[".weight", ".weight.absmax", ".weight.quant_map"],
            Dtype::U8,
            "with bitsandbytes,",
        ),
        (&[".weight", ".SCB"], Dtype::I8, "with bitsandbytes,"),
        (&[".weight._data", ".weight._scale"], Dtype::I8, "with quanto,"),
        (&[".W_q"], Dtype::U8, "with HQQ,"),
        (
            &[".weight", ".scales", ".biases"],
            Dtype::U32,
            "with MLX's quantization,",
        ),
    ] {
        let names: Vec<String> = ends.iter().map(|end| format!("{Q}{end}")).collect();
        let tensors: Vec<(&str, Dtype)> = names.iter().map(|name| (name.as_str(), dtype)).collect();
        let message = refusal(&llama(Value::Null), &tensors);
        assert!(message.contains(named), "{ends:?}: {message}");
    }
    let plain = refusal(&llama(Value::Null), &[("model.norm.weight", Dtype::F32)]);
    assert!(
        plain.contains("tensor model.embed_tokens.weight: expected [8, 4], found none"),
        "{plain}"
    );
}
