//! Hugging Face directories: single and sharded weights, text files, and what is wrong with them.

mod tokenizer_files;
mod unread_weights;

use std::path::Path;

use kiln_compiler::checkpoint::{Checkpoint, CheckpointError, ExpectedTensor, SourceType, TensorSource, validate};
use proptest::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};
use serde_json::{Value, json};

const CONFIG: &str = r#"{ "architectures": ["LlamaForCausalLM"], "eos_token_id": 2 }"#;

/// A safetensors file of f32 tensors whose elements count up.
fn weights(tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, shape)| {
            let elements = shape.iter().product::<usize>();
            (0..elements).flat_map(|i| (i as f32).to_le_bytes()).collect()
        })
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape), bytes)| {
        (
            name.to_string(),
            TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap(),
        )
    });
    serialize(views, None).unwrap()
}

fn directory(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn open(files: &[(&str, &[u8])]) -> Result<Checkpoint, CheckpointError> {
    let folder = directory(files);
    Checkpoint::open(folder.path())
}

fn expected(tensors: &[(&str, &[usize])]) -> Vec<ExpectedTensor> {
    let tensor = |(name, shape): &(&str, &[usize])| ExpectedTensor {
        name: name.to_string(),
        shape: shape.to_vec(),
    };
    tensors.iter().map(tensor).collect()
}

#[test]
fn a_single_file_is_read() {
    let file = weights(&[("b", &[2, 3]), ("a", &[4])]);
    let checkpoint = open(&[("config.json", CONFIG.as_bytes()), ("model.safetensors", &file)]).unwrap();
    assert_eq!(checkpoint.names(), ["a", "b"]);
    let info = checkpoint.info("b").unwrap();
    assert_eq!(
        (info.shape.as_slice(), info.source, info.bytes),
        (&[2, 3][..], SourceType::F32, 24)
    );
    assert_eq!(checkpoint.read_f32("b").unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(
        *checkpoint.read_rows("b", 1..2).unwrap(),
        [3f32, 4.0, 5.0].map(f32::to_le_bytes).concat()
    );
    assert!(matches!(
        checkpoint.read_rows("b", 1..3),
        Err(CheckpointError::NoRows { rows: 2, .. })
    ));
    assert!(matches!(
        checkpoint.read_f32("c"),
        Err(CheckpointError::NoTensor { .. })
    ));
    assert_eq!(checkpoint.generation().eos_token_ids, [2]);
    assert!(checkpoint.text().is_none());
}

#[test]
fn shards_are_found_through_their_index() {
    let (first, second) = (weights(&[("a", &[4])]), weights(&[("b", &[2, 3])]));
    let index = json!({ "metadata": {}, "weight_map": { "a": "m-1.safetensors", "b": "m-2.safetensors" } });
    let files = |index: &Value| {
        let index = index.to_string();
        open(&[
            ("config.json", CONFIG.as_bytes()),
            ("m-1.safetensors", &first),
            ("m-2.safetensors", &second),
            ("model.safetensors.index.json", index.as_bytes()),
        ])
    };
    let checkpoint = files(&index).unwrap();
    assert_eq!(checkpoint.names(), ["a", "b"]);
    assert_eq!(checkpoint.info("b").unwrap().file, "m-2.safetensors");
    assert_eq!(checkpoint.read_f32("b").unwrap()[5], 5.0);

    let wrong = |tensor: &str, shard: &str| {
        let mut index = index.clone();
        index["weight_map"][tensor] = json!(shard);
        files(&index).unwrap_err().to_string()
    };
    assert!(wrong("b", "m-1.safetensors").contains("b is not in m-1.safetensors"));
    assert!(wrong("b", "m-3.safetensors").contains("m-3.safetensors is missing; the checkpoint has 2 parts"));
    for shard in ["../m-1.safetensors", "/etc/passwd", "..", ""] {
        assert!(wrong("b", shard).contains("is no plain file name"), "{shard}");
    }
    let checkpoint = files(&json!({ "weight_map": 3 }));
    assert!(matches!(checkpoint, Err(CheckpointError::Json { .. })));
}

#[test]
fn everything_that_does_not_fit_is_reported_at_once() {
    let file = weights(&[
        ("a", &[4]),
        ("b", &[2, 3]),
        ("extra", &[1]),
        ("lm_head.weight", &[5, 4]),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", &[8]),
    ]);
    let checkpoint = open(&[("config.json", CONFIG.as_bytes()), ("model.safetensors", &file)]).unwrap();
    let error = validate(&checkpoint, &expected(&[("a", &[4]), ("b", &[2, 4]), ("c", &[7, 1])]));
    assert_eq!(
        error.unwrap_err().to_string(),
        "the checkpoint does not fit the model (3 tensors); is it another model's config.json?\n  \
         tensor b: expected [2, 4], found [2, 3] in model.safetensors\n  \
         tensor c: expected [7, 1], found none\n  \
         tensor extra: expected none, found [1] in model.safetensors"
    );
    let fits = expected(&[("a", &[4]), ("b", &[2, 3]), ("extra", &[1])]);
    validate(&checkpoint, &fits).unwrap();
}

#[test]
fn types_without_a_meaning_as_weights_are_reported() {
    let view = TensorView::new(Dtype::I64, vec![2], &[0; 16]).unwrap();
    let file = serialize([("a", view)], None).unwrap();
    let checkpoint = open(&[("config.json", CONFIG.as_bytes()), ("model.safetensors", &file)]).unwrap();
    let error = validate(&checkpoint, &expected(&[("a", &[2])]))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("tensor a: Kiln does not read i64 weights, found in model.safetensors"),
        "{error}"
    );
    assert!(matches!(
        checkpoint.read_f32("a"),
        Err(CheckpointError::TensorType { .. })
    ));
}

#[test]
fn a_bare_config_has_no_tensors() {
    let folder = directory(&[("llama-3.2-1b.json", CONFIG.as_bytes()), ("config.json", b"{ eos")]);
    let checkpoint = Checkpoint::open(&folder.path().join("llama-3.2-1b.json")).unwrap();
    assert!(!checkpoint.has_tensors());
    assert_eq!(checkpoint.name(), "llama-3.2-1b");
    assert_eq!(checkpoint.config()["architectures"][0], "LlamaForCausalLM");
    let error = Checkpoint::open(&folder.path().join("config.json"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("config.json: not the JSON that is expected there"),
        "{error}"
    );
}

#[test]
fn what_is_no_checkpoint_is_named() {
    let folder = directory(&[("notes.txt", b"hello")]);
    let message = |path: &Path| Checkpoint::open(path).unwrap_err().to_string();
    assert!(message(&folder.path().join("notes.txt")).contains("give a Hugging Face directory"));
    assert!(message(&folder.path().join("absent.gguf")).contains("absent.gguf: No such file"));
    assert!(message(folder.path()).contains("config.json: "));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn truncated_files_are_errors(keep in 0.0..1.0f64) {
        let file = weights(&[("a", &[4]), ("b", &[20, 30])]);
        let cut = &file[..(file.len() as f64 * keep) as usize];
        let error = open(&[("config.json", CONFIG.as_bytes()), ("model.safetensors", cut)]).unwrap_err();
        let message = error.to_string();
        prop_assert!(message.starts_with("model.safetensors: ") && message.contains("truncated or damaged"), "{}", message);
    }

    #[test]
    fn corrupted_files_never_panic(changes in prop::collection::vec((0..200usize, any::<u8>()), 1..6)) {
        let mut file = weights(&[("a", &[4]), ("b", &[5, 3])]);
        let length = file.len();
        for (at, value) in changes {
            file[at % length] = value;
        }
        if let Ok(checkpoint) = open(&[("config.json", CONFIG.as_bytes()), ("model.safetensors", &file)]) {
            for name in checkpoint.names() {
                let _ = checkpoint.read_f32(&name);
            }
        }
    }
}
