//! Layouts in which models are published: each compiles to the same bundle, byte for byte, as the plain one.

mod fixture_files;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use fixture_files::{Tensor, Tensors, fixture, tensors, write};
use kiln_compiler::architectures::Registry;
use kiln_compiler::compile::{CompileOptions, compile};
use kiln_compiler::progress::Silent;
use safetensors::Dtype;
use serde_json::{Value, json};

/// A checkpoint: its config and its tensors.
#[derive(Clone)]
struct Model {
    config: Value,
    tensors: Tensors,
}

impl Model {
    fn plain(case: &str) -> Self {
        let config = fs::read_to_string(fixture(case).join("config.json")).unwrap();
        Model {
            config: serde_json::from_str(&config).unwrap(),
            tensors: tensors(case),
        }
    }

    fn renamed(mut self, rename: impl Fn(&str) -> String) -> Self {
        self.tensors = self
            .tensors
            .into_iter()
            .map(|(name, tensor)| (rename(&name), tensor))
            .collect();
        self
    }

    /// With tensors that other parts of such models have.
    fn with(mut self, names: &[&str]) -> Self {
        let zeros = Tensor {
            dtype: Dtype::BF16,
            shape: vec![4, 4],
            bytes: vec![0; 32],
        };
        self.tensors
            .extend(names.iter().map(|name| (name.to_string(), zeros.clone())));
        self
    }

    fn set(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    fn without(mut self, key: &str) -> Self {
        self.config.as_object_mut().unwrap().remove(key);
        self
    }

    /// Its config as that of the text model in a larger one.
    fn nested(mut self, architecture: &str, more: Value) -> Self {
        let mut config = json!({ "architectures": [architecture], "text_config": self.config, "vision_config": {} });
        config["text_config"].as_object_mut().unwrap().remove("architectures");
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        self.config = config;
        self
    }

    /// The files of its bundle, or why there is none.
    fn bundle(&self) -> Result<BTreeMap<String, Vec<u8>>, String> {
        let place = tempfile::tempdir().unwrap();
        // Bundles are named after the folder.
        let folder = place.path().join("model");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        write(&self.tensors, &folder.join("model.safetensors"));
        let options = CompileOptions {
            no_self_test: true,
            ..CompileOptions::new(&folder, place.path().join("bundle"))
        };
        let report = compile(&options, &Registry::default(), &Silent).map_err(|error| error.to_string())?;
        assert_eq!(report.warnings, Vec::<String>::new());
        let mut files = BTreeMap::new();
        collect(&place.path().join("bundle"), "", &mut files);
        Ok(files)
    }
}

fn collect(folder: &Path, within: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{within}/{}", path.file_name().unwrap().to_str().unwrap());
        match path.is_dir() {
            true => collect(&path, &name, files),
            false => drop(files.insert(name, fs::read(&path).unwrap())),
        }
    }
}

/// All variants of a model give its plain bundle.
fn same_bundles(plain: &Model, variants: &[(&str, Model)]) {
    let expected = plain.bundle().unwrap();
    assert!(expected.contains_key("/manifest.json"));
    for (what, variant) in variants {
        let found = variant.bundle().unwrap_or_else(|error| panic!("{what}: {error}"));
        let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&expected), "{what}");
        let differing: Vec<&String> = expected.keys().filter(|name| found[*name] != expected[*name]).collect();
        assert_eq!(differing, Vec::<&String>::new(), "{what}");
    }
}

fn swap(name: &str, from: &str, to: &str) -> String {
    match name.strip_prefix(from) {
        Some(rest) => format!("{to}{rest}"),
        None => name.to_string(),
    }
}

#[test]
fn whatever_stands_before_the_names() {
    // With a head of its own.
    let plain = Model::plain("llama-B-bf16");
    assert!(plain.tensors.contains_key("lm_head.weight"));
    let all = |before: &'static str| plain.clone().renamed(move |name| format!("{before}{name}"));
    let variants = [
        ("base model", plain.clone().renamed(|name| swap(name, "model.", ""))),
        ("data parallel", all("module.")),
        ("compiled", all("_orig_mod.")),
        ("both", all("module._orig_mod.")),
        ("merged adapter", all("base_model.model.")),
        ("within another", all("language_model.")),
        (
            "other base",
            plain.clone().renamed(|name| swap(name, "model.", "transformer.")),
        ),
        (
            "named text model",
            plain
                .clone()
                .renamed(|name| swap(name, "model.", "model.language_model.")),
        ),
        (
            "layers compiled one by one",
            plain
                .clone()
                .renamed(|name| name.replace(".self_attn.", "._orig_mod.self_attn.")),
        ),
        (
            "buffers",
            plain.clone().with(&[
                "model.layers.0.self_attn.rotary_emb.inv_freq",
                "model.rotary_emb.inv_freq",
            ]),
        ),
    ];
    same_bundles(&plain, &variants);
}

#[test]
fn a_config_that_names_no_architecture() {
    let plain = Model::plain("llama-A-bf16");
    let variants = [
        ("absent", plain.clone().without("architectures")),
        ("null", plain.clone().set("architectures", Value::Null)),
        ("base model", plain.clone().set("architectures", json!(["LlamaModel"]))),
    ];
    same_bundles(&plain, &variants);
}

#[test]
fn tied_heads() {
    let plain = Model::plain("llama-A-bf16");
    assert_eq!(plain.config["tie_word_embeddings"], json!(true));
    let embedding = plain.tensors["model.embed_tokens.weight"].clone();
    let head = |tensor: &Tensor| {
        let mut model = plain.clone();
        model.tensors.insert("lm_head.weight".to_string(), tensor.clone());
        model
    };
    let mut only_head = head(&embedding);
    only_head.tensors.remove("model.embed_tokens.weight");
    let unprefixed = only_head.clone().renamed(|name| swap(name, "model.", ""));
    let variants = [
        ("twice", head(&embedding)),
        ("only the head", only_head),
        ("without prefix", unprefixed),
    ];
    same_bundles(&plain, &variants);

    // transformers ties nothing where both are there and differ.
    let mut other = embedding;
    other.bytes.rotate_left(2);
    let untied = head(&other).set("tie_word_embeddings", json!(false));
    same_bundles(&untied, &[("differing", head(&other))]);
}

#[test]
fn qwen3_next_with_multi_token_prediction() {
    let plain = Model::plain("qwen3_next-A-bf16");
    let parts = [
        "mtp.fc.weight",
        "mtp.norm.weight",
        "mtp.layers.0.input_layernorm.weight",
    ];
    same_bundles(&plain, &[("mtp", plain.clone().with(&parts))]);
}

#[test]
fn qwen3_5_as_published() {
    let vision = [
        "mtp.fc.weight",
        "mtp.layers.0.mlp.up_proj.weight",
        "model.visual.blocks.0.mlp.up_proj.weight",
    ];
    for (case, architecture, text_type) in [
        ("qwen3_5-A-bf16", "Qwen3_5ForConditionalGeneration", "qwen3_5_text"),
        (
            "qwen3_5_moe-B-bf16",
            "Qwen3_5MoeForConditionalGeneration",
            "qwen3_5_moe_text",
        ),
    ] {
        let plain = Model::plain(case);
        assert_eq!(plain.config["model_type"], text_type);
        let tied = plain.config["tie_word_embeddings"].clone();
        let published = (plain.clone())
            .renamed(|name| swap(name, "model.", "model.language_model."))
            .with(&vision)
            .nested(
                architecture,
                json!({ "tie_word_embeddings": tied, "image_token_id": 3 }),
            );
        let by_type = published
            .clone()
            .without("architectures")
            .set("model_type", json!(text_type));
        let text_only = plain.clone().with(&vision);
        let variants = [("published", published), ("by type", by_type), ("text only", text_only)];
        same_bundles(&plain, &variants);
    }
}

/// The config has only what differs from the class's defaults, as Google's have.
#[test]
fn gemma_3_with_its_vision_tower() {
    let plain = Model::plain("gemma3-A-bf16");
    let vision = [
        "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight",
        "vision_tower.vision_model.embeddings.patch_embedding.weight",
        "multi_modal_projector.mm_input_projection_weight",
    ];
    let more = json!({ "model_type": "gemma3", "boi_token_index": 5, "mm_tokens_per_image": 256 });
    let nested = |before: &'static str, vision: &[&str]| {
        (plain.clone())
            .renamed(move |name| swap(name, "model.", before))
            .with(vision)
            .nested("Gemma3ForConditionalGeneration", more.clone())
    };
    let inner = vision.map(|name| format!("model.{name}"));
    let inner: Vec<&str> = inner.iter().map(String::as_str).collect();
    let mut silent = nested("language_model.model.", &vision);
    let defaults: Value = serde_json::from_str(include_str!("fixtures/transformers/defaults.json")).unwrap();
    let fields = &defaults["classes"]["gemma3_text"]["fields"];
    let text = silent.config["text_config"].as_object_mut().unwrap();
    text.retain(|key, value| fields[key] != *value);
    assert!(!text.contains_key("rms_norm_eps") && text.contains_key("hidden_size"));
    let variants = [
        ("version 4", nested("language_model.model.", &vision)),
        ("version 5", nested("model.language_model.", &inner)),
        ("silent", silent),
    ];
    same_bundles(&plain, &variants);
}

/// Whose config does not say that the head is not tied.
#[test]
fn mistral_3_with_its_vision_tower() {
    let plain = Model::plain("mistral-A-bf16");
    assert!(plain.tensors.contains_key("lm_head.weight"));
    let published = (plain.clone())
        .without("tie_word_embeddings")
        .renamed(|name| format!("language_model.{name}"))
        .with(&[
            "vision_tower.patch_conv.weight",
            "multi_modal_projector.patch_merger.merging_layer.weight",
        ])
        .nested("Mistral3ForConditionalGeneration", json!({ "model_type": "mistral3" }));
    same_bundles(&plain, &[("published", published)]);
}

/// transformers publishes a tensor for each expert, and holds one for all.
#[test]
fn experts_in_one_tensor() {
    for (case, gate, up, down) in [
        ("qwen3_moe-A-bf16", "gate_proj", "up_proj", "down_proj"),
        ("olmoe-B-bf16", "gate_proj", "up_proj", "down_proj"),
        ("lfm2_moe-A-bf16", "w1", "w3", "w2"),
        ("qwen3_next-B-bf16", "gate_proj", "up_proj", "down_proj"),
    ] {
        let plain = Model::plain(case);
        let mut fused = plain.clone();
        fused.tensors.clear();
        // Experts' names sort by their digits: there are fewer than ten.
        let mut banks: BTreeMap<String, BTreeMap<(usize, usize), Tensor>> = BTreeMap::new();
        for (name, tensor) in &plain.tensors {
            let Some((path, rest)) = name.split_once(".experts.") else {
                fused.tensors.insert(name.clone(), tensor.clone());
                continue;
            };
            let mut parts = rest.split('.');
            let expert: usize = parts.next().unwrap().parse().unwrap();
            let matrix = parts.next().unwrap();
            let (bank, half) = match matrix {
                _ if matrix == gate => ("gate_up_proj", 0),
                _ if matrix == up => ("gate_up_proj", 1),
                _ if matrix == down => ("down_proj", 0),
                other => panic!("{other}"),
            };
            let bank = banks.entry(format!("{path}.experts.{bank}")).or_default();
            bank.insert((expert, half), tensor.clone());
        }
        for (name, matrices) in banks {
            let experts = matrices.keys().map(|(expert, _)| expert + 1).max().unwrap();
            let first = &matrices[&(0, 0)];
            let rows = first.shape[0] * (matrices.len() / experts);
            let tensor = Tensor {
                dtype: first.dtype,
                shape: vec![experts, rows, first.shape[1]],
                bytes: matrices.values().flat_map(|tensor| tensor.bytes.clone()).collect(),
            };
            fused.tensors.insert(name, tensor);
        }
        same_bundles(&plain, &[(case, fused)]);
    }
    let plain = Model::plain("granitemoe-A-bf16");
    let held = plain.clone().renamed(|name| {
        name.replace("input_linear.weight", "experts.gate_up_proj")
            .replace("output_linear.weight", "experts.down_proj")
            .replace("router.layer.weight", "router.weight")
    });
    same_bundles(&plain, &[("granitemoe", held)]);
}

#[test]
fn tensors_that_would_matter_are_reported() {
    let plain = Model::plain("llama-A-bf16");
    for (what, name) in [
        ("a part that the family does not have", "mtp.fc.weight"),
        ("a part of a layer", "model.layers.0.mlp.extra.weight"),
        ("a layer too many", "model.layers.9.mlp.up_proj.weight"),
        (
            "an adapter that is not merged",
            "model.layers.0.self_attn.q_proj.lora_A.weight",
        ),
        ("the same tensor again", "module.model.norm.weight"),
    ] {
        let error = plain.clone().with(&[name]).bundle().unwrap_err();
        assert!(
            error.contains(&format!("tensor {name}: expected none, found [4, 4]")),
            "{what}: {error}"
        );
    }
    let vision = Model::plain("qwen3_5-A-bf16").with(&["model.layers.0.visual.weight"]);
    let error = vision.bundle().unwrap_err();
    assert!(
        error.contains("tensor model.layers.0.visual.weight: expected none"),
        "{error}"
    );

    // By the names of the checkpoint, where they are others than the model's.
    let mut unprefixed = plain.renamed(|name| swap(name, "model.", "")).with(&["layers.0.extra"]);
    unprefixed.tensors.remove("norm.weight");
    let error = unprefixed.bundle().unwrap_err();
    assert!(
        error.contains("(2 tensors)")
            && error.contains("tensor model.norm.weight: expected")
            && error.contains("tensor layers.0.extra: expected none"),
        "{error}"
    );
}
