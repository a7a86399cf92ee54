//! The compiler as a program uses it: what it writes, what it refuses, and that nothing half-written stays.

#[cfg(feature = "cli")]
mod cli;
mod limits;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_bundle::Manifest;
use kiln_compiler::architectures::Registry;
use kiln_compiler::compile::{CompileError, CompileOptions, compile};
use kiln_compiler::emit::EmitError;
use kiln_compiler::progress::{Progress, Silent};
use kiln_compiler::rewrite::OptLevel;
use kiln_compiler::weights::Quant;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24, "vocab_size": 333, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 128, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": true,
    })
}

struct Workspace {
    folder: tempfile::TempDir,
}

impl Workspace {
    fn new(config: &Value) -> Self {
        let workspace = Workspace {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::write(workspace.source(), config.to_string()).unwrap();
        workspace
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("config.json")
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("out.kiln")
    }

    fn options(&self) -> CompileOptions {
        CompileOptions {
            random_weights: Some(1),
            ..CompileOptions::new(self.source(), self.output())
        }
    }

    /// Everything in the folder but the config.
    fn left(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path());
        entries.filter(|path| *path != self.source()).collect()
    }
}

fn run(options: &CompileOptions) -> Result<Manifest, CompileError> {
    compile(options, &Registry::default(), &Silent).map(|report| report.manifest)
}

fn refusal(config: &Value, change: impl FnOnce(&mut CompileOptions)) -> String {
    let workspace = Workspace::new(config);
    let mut options = workspace.options();
    change(&mut options);
    let error = run(&options).unwrap_err();
    assert_eq!(workspace.left(), Vec::<PathBuf>::new(), "{error}");
    error.to_string()
}

#[test]
fn shards_are_safetensors_with_the_planned_tensors() {
    let workspace = Workspace::new(&config());
    let manifest = run(&workspace.options()).unwrap();
    for (number, shard) in (0..).zip(&manifest.shards) {
        let bytes = fs::read(workspace.output().join(&shard.file)).unwrap();
        assert_eq!(bytes.len() as u64, shard.bytes);
        assert_eq!(kiln_bundle::sha256_hex(&bytes), shard.sha256);
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for weight in manifest.weights.iter().filter(|weight| weight.shard == number) {
            let tensor = tensors.tensor(&weight.name).unwrap();
            let start = weight.offset as usize;
            assert_eq!(
                tensor.data(),
                &bytes[start..start + weight.bytes as usize],
                "{}",
                weight.name
            );
        }
    }
    let text = fs::read(workspace.output().join(kiln_bundle::MANIFEST_FILE)).unwrap();
    assert_eq!(Manifest::from_json(&text, "manifest.json").unwrap(), manifest);
    for kernel in manifest.variants.iter().flat_map(|variant| &variant.kernels) {
        let text = fs::read(workspace.output().join(&kernel.file)).unwrap();
        assert_eq!(kiln_bundle::sha256_hex(&text), kernel.sha256, "{}", kernel.file);
    }
}

#[test]
fn text_files_are_written_with_their_checksums() {
    let workspace = Workspace::new(&config());
    let folder = workspace.folder.path();
    let write = |name: &str, content: &str| fs::write(folder.join(name), content).unwrap();
    let tokenizer = concat!(env!("CARGO_MANIFEST_DIR"), "/../runtime/cases/text/byte_level.json");
    write("tokenizer.json", &fs::read_to_string(tokenizer).unwrap());
    write(
        "tokenizer_config.json",
        r#"{ "bos_token": { "content": "<|begin|>" } }"#,
    );
    write("chat_template.jinja", "{{ bos_token }}");
    let options = CompileOptions {
        no_weights: true,
        ..CompileOptions::new(folder, workspace.output())
    };
    let files = run(&options).unwrap().text.unwrap();
    assert_eq!(files.iter().count(), 3);
    for file in files.iter() {
        let digest = Sha256::digest(fs::read(workspace.output().join(&file.file)).unwrap());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(file.sha256, hex, "{}", file.file);
    }
    let names = fs::read_to_string(workspace.output().join("tokenizer_config.json")).unwrap();
    assert_eq!(names, r#"{"bos_token":"<|begin|>"}"#);

    fs::remove_file(folder.join("tokenizer.json")).unwrap();
    write("tokenizer.model", "no model");
    let report = compile(&options, &Registry::default(), &Silent).unwrap();
    assert!(report.manifest.text.is_none());
    assert!(
        report.warnings[0].starts_with("tokenizer.model is no SentencePiece model"),
        "{:?}",
        report.warnings
    );
}

#[test]
fn every_quantization_and_level_compiles() {
    for quant in [Quant::Keep, Quant::F32, Quant::F16, Quant::Q8, Quant::Q4] {
        for level in [OptLevel::None, OptLevel::Full] {
            let workspace = Workspace::new(&config());
            let manifest = run(&CompileOptions {
                quant,
                level,
                ..workspace.options()
            })
            .unwrap();
            for variant in &manifest.variants {
                assert!(
                    variant.kernels.len() <= 25,
                    "{quant} {level:?}: {} kernels",
                    variant.kernels.len()
                );
                assert!(variant.limits.max_storage_buffers_per_shader_stage <= 8);
                assert!(variant.limits.max_compute_workgroup_storage_size <= 16_352);
            }
        }
    }
}

#[test]
fn kernels_of_one_variant_lie_in_its_folder() {
    let workspace = Workspace::new(&config());
    let manifest = run(&workspace.options()).unwrap();
    let mut users: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for variant in &manifest.variants {
        for kernel in &variant.kernels {
            users.entry(&kernel.file).or_default().push(&variant.name);
        }
    }
    let mut own = 0;
    for (file, users) in users {
        let name = file.rsplit('/').next().unwrap();
        match users[..] {
            [variant] => {
                assert_eq!(file, format!("kernels/{variant}/{name}"));
                own += 1;
            }
            _ => assert_eq!(file, format!("kernels/{name}"), "shared by {users:?}"),
        }
    }
    assert!(own > 0, "caches in f16 are the f16 variant's alone");
}

#[test]
fn large_matrices_are_split_at_the_binding_limit() {
    let mut config = config();
    // f32: 333_000 * 128 * 4 bytes = 170 MB.
    config["vocab_size"] = json!(333_000);
    config["hidden_size"] = json!(128);
    let workspace = Workspace::new(&config);
    let options = CompileOptions {
        quant: Quant::F32,
        no_weights: true,
        ..workspace.options()
    };
    let manifest = run(&options).unwrap();
    let parts: Vec<u64> = manifest
        .weights
        .iter()
        .filter(|weight| weight.name.contains("embed"))
        .map(|weight| weight.bytes)
        .collect();
    assert_eq!(parts.len(), 2);
    assert_eq!(parts.iter().sum::<u64>(), 333_000 * 128 * 4);
    assert!(parts.iter().all(|bytes| *bytes <= 128 << 20));
    for variant in &manifest.variants {
        assert!(variant.limits.max_storage_buffer_binding_size <= 128 << 20);
        // Both parts of the table are bindings of one dispatch.
        let decode = &variant.programs.decode;
        let gathers = decode.iter().filter(|dispatch| dispatch.label == "embedding");
        assert_eq!(gathers.count(), 1);
    }
}

#[test]
fn refusals_name_the_thing_and_leave_nothing() {
    let mut unknown = config();
    unknown["architectures"] = json!(["LamaForCausalLM"]);
    let message = refusal(&unknown, |_| {});
    assert!(
        message.contains("LamaForCausalLM") && message.contains("did you mean `LlamaForCausalLM`"),
        "{message}"
    );

    let message = refusal(&config(), |options| options.random_weights = None);
    assert!(
        message.contains("holds no weights") && message.contains("--random-weights"),
        "{message}"
    );

    let message = refusal(&config(), |options| options.context = Some(129));
    assert!(message.contains("129") && message.contains("128"), "{message}");

    let message = refusal(&config(), |options| options.chunk = Some(0));
    assert!(message.contains("1 to 4096"), "{message}");

    let message = refusal(&config(), |options| options.profile = "toaster".to_string());
    assert!(message.contains("toaster") && message.contains("h100"), "{message}");

    let mut no_number = config();
    no_number["num_attention_heads"] = json!("many");
    let message = refusal(&no_number, |_| {});
    assert!(message.contains("num_attention_heads"), "{message}");
}

#[test]
fn a_folder_that_is_no_bundle_is_never_overwritten() {
    let workspace = Workspace::new(&config());
    fs::create_dir(workspace.output()).unwrap();
    fs::write(workspace.output().join("thesis.txt"), "years of work").unwrap();
    let error = run(&workspace.options()).unwrap_err();
    assert!(
        matches!(error, CompileError::Emit(EmitError::Occupied { .. })),
        "{error}"
    );
    assert_eq!(
        fs::read_to_string(workspace.output().join("thesis.txt")).unwrap(),
        "years of work"
    );
    assert_eq!(workspace.left(), [workspace.output()]);
}

#[test]
fn a_report_lists_the_files_that_were_read() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../codegen-tests/fixtures/llama-A-bf16");
    let workspace = Workspace::new(&config());
    let options = CompileOptions {
        no_self_test: true,
        ..CompileOptions::new(&fixtures, workspace.output())
    };
    let report = compile(&options, &Registry::default(), &Silent).unwrap();
    let read = ["config.json", "generation_config.json", "model.safetensors"];
    assert_eq!(report.files, read.map(|file| fixtures.join(file)));

    let report = compile(&workspace.options(), &Registry::default(), &Silent).unwrap();
    assert_eq!(report.files, [workspace.source()]);
}

#[test]
fn an_older_bundle_is_replaced_whole() {
    let workspace = Workspace::new(&config());
    run(&CompileOptions {
        quant: Quant::F16,
        ..workspace.options()
    })
    .unwrap();
    fs::write(workspace.output().join("left-over"), "").unwrap();
    let manifest = run(&CompileOptions {
        quant: Quant::Q8,
        ..workspace.options()
    })
    .unwrap();
    assert!(manifest.model.quantization.starts_with("q8"));
    assert!(!workspace.output().join("left-over").exists());
    assert_eq!(workspace.left(), [workspace.output()]);
}

/// Asks to stop after so many bytes.
struct Impatient {
    bytes_left: AtomicU64,
}

impl Progress for Impatient {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, bytes: u64) {
        let left = self.bytes_left.load(Ordering::Relaxed);
        self.bytes_left.store(left.saturating_sub(bytes), Ordering::Relaxed);
    }
    fn end(&self) {}
    fn interrupted(&self) -> bool {
        self.bytes_left.load(Ordering::Relaxed) == 0
    }
}

#[test]
fn an_interruption_leaves_nothing_and_keeps_the_old_bundle() {
    for bytes in [0, 1, 50_000, 100_000] {
        let workspace = Workspace::new(&config());
        let before = run(&workspace.options()).unwrap();
        let impatient = Impatient {
            bytes_left: AtomicU64::new(bytes),
        };
        let options = CompileOptions {
            random_weights: Some(2),
            ..workspace.options()
        };
        let error = compile(&options, &Registry::default(), &impatient).unwrap_err();
        assert!(matches!(error, CompileError::Emit(EmitError::Interrupted)), "{error}");
        assert_eq!(workspace.left(), [workspace.output()]);
        assert_eq!(read_manifest(&workspace.output()), before);
    }
}

fn read_manifest(bundle: &Path) -> Manifest {
    Manifest::from_json(
        &fs::read(bundle.join(kiln_bundle::MANIFEST_FILE)).unwrap(),
        "manifest.json",
    )
    .unwrap()
}
