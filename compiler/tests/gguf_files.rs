//! Small GGUF files made by the `gguf` Python package (`fixtures/gguf/make.py`): what they read
//! as, and that damage to them is an error and never a panic.

mod gguf_parts;

use std::path::{Path, PathBuf};

use kiln_compiler::checkpoint::{Checkpoint, CheckpointError, SourceType, TensorSource};
use kiln_compiler::weights::{Quant, format_for, pack};
use proptest::prelude::*;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tokenizers::Tokenizer;

const ALL: [&str; 7] = [
    "types",
    "llama-bpe",
    "qwen2",
    "gpt2",
    "gpt-4o",
    "sentencepiece",
    "sentencepiece-gemma",
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/gguf")
        .join(name)
}

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(&fixture(&format!("{name}.gguf"))).unwrap()
}

#[test]
fn tensors_equal_the_gguf_package_s() {
    for name in ALL {
        let checkpoint = open(name);
        let file = std::fs::read(fixture(&format!("{name}.safetensors"))).unwrap();
        let expected = SafeTensors::deserialize(&file).unwrap();
        let mut names = expected.names();
        names.sort_unstable();
        assert_eq!(checkpoint.names(), names, "{name}");
        for tensor_name in names {
            let tensor = expected.tensor(tensor_name).unwrap();
            let words = tensor.data().as_chunks::<4>().0;
            let values: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
            let info = checkpoint.info(tensor_name).unwrap();
            assert_eq!(info.shape, tensor.shape(), "{name} {tensor_name}");
            let read = checkpoint.read_f32(tensor_name).unwrap();
            assert!(read == values, "{name} {tensor_name} ({})", info.source);
            // Some rows from the middle, as packing reads them.
            let (rows, _) = info.matrix();
            let part = rows / 3..rows - rows / 4;
            let bytes = checkpoint.read_rows(tensor_name, part.clone()).unwrap();
            let all = checkpoint.read_rows(tensor_name, 0..rows).unwrap();
            let row = all.len() / rows;
            assert_eq!(*bytes, all[part.start * row..part.end * row], "{name} {tensor_name}");
        }
    }
}

#[test]
fn every_type_is_there() {
    let checkpoint = open("types");
    let source = |name: &str| checkpoint.info(name).unwrap().source;
    let layer = |part: &str| source(&format!("model.layers.0.{part}.weight"));
    assert_eq!(source("model.embed_tokens.weight"), SourceType::Q6K);
    assert_eq!(source("lm_head.weight"), SourceType::Bf16);
    assert_eq!(layer("self_attn.q_proj"), SourceType::Q4K);
    assert_eq!(layer("self_attn.k_proj"), SourceType::Q5_0);
    assert_eq!(layer("self_attn.v_proj"), SourceType::Q4_0);
    assert_eq!(layer("self_attn.o_proj"), SourceType::F32);
    assert_eq!(layer("mlp.gate_proj"), SourceType::Q4_1);
    assert_eq!(layer("mlp.up_proj"), SourceType::Q8_0);
    assert_eq!(layer("mlp.down_proj"), SourceType::F16);
}

#[test]
fn llama_3_rope_scaling_is_recognised() {
    let checkpoint = open("types");
    let config = checkpoint.config();
    let expected = json!({
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    assert_eq!(config["rope_parameters"], expected);
    assert_eq!(config["tie_word_embeddings"], false);
    assert_eq!(config["attention_bias"], true);
    assert!(checkpoint.text().is_none());
}

/// Byte-level BPE against Hugging Face's pre-tokenizers, the others against SentencePiece.
#[test]
fn tokenizers_give_the_reference_s_ids() {
    for name in &ALL[1..] {
        let checkpoint = open(name);
        let text = checkpoint.text().unwrap();
        let tokenizer: Tokenizer = text.tokenizer_json.parse().unwrap();
        let cases = std::fs::read_to_string(fixture(&format!("{name}.ids.json"))).unwrap();
        let cases: Vec<Value> = serde_json::from_str(&cases).unwrap();
        for case in cases {
            let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            let encoded = tokenizer.encode(case["text"].as_str().unwrap(), false).unwrap();
            assert_eq!(encoded.get_ids(), ids, "{name}: {}", case["text"]);
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), case["decoded"], "{name}");
        }
    }
}

#[test]
fn special_tokens_are_added_and_ends_of_turns_found() {
    let first_id = |name: &str| {
        let text = open(name).text().unwrap().tokenizer_json.clone();
        let tokenizer: Tokenizer = text.parse().unwrap();
        let encoded = tokenizer.encode("x", true).unwrap();
        encoded.get_tokens()[0].clone()
    };
    assert_eq!(first_id("llama-bpe"), "<|begin|>");
    assert_eq!(first_id("qwen2"), "x");
    assert_eq!(first_id("sentencepiece"), "<s>");
    let llama = open("llama-bpe");
    let ends = &llama.generation().eos_token_ids;
    let config = llama.text().unwrap().tokenizer_config_json.as_ref().unwrap();
    let config: Value = serde_json::from_str(config).unwrap();
    assert_eq!(config["eos_token"], "<|end|>");
    assert_eq!(
        (ends.len(), ends[0]),
        (2, llama.config()["eos_token_id"].as_u64().unwrap() as u32)
    );
}

/// A copy of a fixture with another text of the same length everywhere.
fn renamed(name: &str, from: &str, to: &str) -> Result<Checkpoint, CheckpointError> {
    assert_eq!(from.len(), to.len());
    let mut file = std::fs::read(fixture(&format!("{name}.gguf"))).unwrap();
    let places: Vec<usize> = (0..file.len() - from.len())
        .filter(|&at| file[at..].starts_with(from.as_bytes()))
        .collect();
    assert!(!places.is_empty(), "{from}");
    for at in places {
        file[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    open_bytes(&file)
}

/// As in llama.cpp: a file names one end or two, and its vocabulary has more.
#[test]
fn ends_are_known_by_their_names() {
    let ends = |checkpoint: &Checkpoint| {
        let tokenizer: Tokenizer = checkpoint.text().unwrap().tokenizer_json.parse().unwrap();
        let ids = checkpoint.generation().eos_token_ids.iter();
        ids.map(|id| tokenizer.id_to_token(*id).unwrap()).collect::<Vec<_>>()
    };
    // The file's own end comes first.
    assert_eq!(ends(&open("llama-bpe")), ["<|end|>", "<|eot_id|>"]);
    assert_eq!(ends(&open("qwen2")), ["<|end|>", "<|endoftext|>", "<|im_end|>"]);
    for end in ["<|eom_id|>", "<|call|>__"] {
        let to = &end[..end.len().min("<|eot_id|>".len())];
        let found = ends(&renamed("llama-bpe", "<|eot_id|>", to).unwrap());
        let expected: &[&str] = if end == "<|eom_id|>" {
            &["<|end|>", to]
        } else {
            &["<|end|>"]
        };
        assert_eq!(found, expected);
    }
    // Harmony ends each message with <|end|>, which is an end here only because the file names it so.
    assert_eq!(ends(&open("gpt-4o")), ["<|return|>", "<|call|>"]);
    // SentencePiece's </s> is an end as a control token.
    assert_eq!(ends(&open("sentencepiece")), ["</s>"]);
}

/// Runs of spaces are taken before anything merges, the longest first, as in SentencePiece and llama.cpp.
#[test]
fn runs_of_spaces_are_cut_from_the_left() {
    let checkpoint = open("sentencepiece-gemma");
    let tokenizer: Tokenizer = checkpoint.text().unwrap().tokenizer_json.parse().unwrap();
    for spaces in 1..100 {
        let text = format!("x{}x", " ".repeat(spaces));
        let encoded = tokenizer.encode(text.as_str(), false).unwrap();
        let tokens = &encoded.get_tokens()[1..encoded.len() - 1];
        let mut expected = vec![31; spaces / 31];
        expected.extend((spaces % 31 > 0).then_some(spaces % 31));
        let lengths: Vec<usize> = tokens.iter().map(|token| token.chars().count()).collect();
        // A last single space may be one with the word behind it.
        if spaces % 31 != 1 {
            assert_eq!(lengths, expected, "{spaces}");
        }
        assert_eq!(tokenizer.decode(encoded.get_ids(), false).unwrap(), text);
    }
}

#[test]
fn a_file_may_say_that_it_has_no_tokenizer() {
    let without = renamed("gpt2", "gpt2", "none").unwrap();
    assert!(open("gpt2").text().is_some() && without.text().is_none());
}

#[test]
fn a_file_names_its_pre_tokenizer() {
    assert!(open("qwen2").warnings().is_empty());
    let error = renamed("qwen2", "qwen2", "qwenX").unwrap_err().to_string();
    assert!(
        error.contains("does not know the pre-tokenizer \"qwenX\"") && error.contains("Hugging Face directory"),
        "{error}"
    );
    // A file of before there were names.
    let old = renamed("qwen2", "tokenizer.ggml.pre", "tokenizer.ggml.pr_").unwrap();
    assert!(old.warnings()[0].contains("tokenizer.ggml.pre"), "{:?}", old.warnings());
    let tokenizer: Value = serde_json::from_str(&old.text().unwrap().tokenizer_json).unwrap();
    assert_eq!(tokenizer["pre_tokenizer"]["pretokenizers"].as_array().unwrap().len(), 5);
}

/// A copy of a fixture with `bytes` written `skip` bytes behind the first `needle`.
fn patched(name: &str, needle: &[u8], skip: usize, bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    let mut file = std::fs::read(fixture(&format!("{name}.gguf"))).unwrap();
    let at = file.windows(needle.len()).position(|window| window == needle).unwrap();
    let at = at + needle.len() + skip;
    file[at..at + bytes.len()].copy_from_slice(bytes);
    open_bytes(&file)
}

fn open_bytes(file: &[u8]) -> Result<Checkpoint, CheckpointError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    std::fs::write(&path, file).unwrap();
    Checkpoint::open(&path)
}

#[test]
fn lies_are_named() {
    let huge = u64::MAX.to_le_bytes();
    let large = (1u64 << 62).to_le_bytes();
    // What is patched, where, with what, and what the error says.
    let cases: [(&[u8], usize, &[u8], &str); 16] = [
        (b"GGU", 0, b"X", "does not begin with GGUF"),
        (b"GGUF", 0, &[9], "GGUF version 9 is not supported"),
        (b"GGUF", 0, &[0, 0, 0, 3], "big-endian"),
        (b"GGUF", 4, &huge, "tensor  has 0 dimensions"),
        (b"GGUF", 12, &huge, "it ends within"),
        (
            b"GGUF",
            20,
            &huge,
            "it ends within a metadata key of 18446744073709551615 bytes",
        ),
        (
            b"general.architecture",
            4,
            &large,
            "it ends within general.architecture",
        ),
        (
            b"general.architecture",
            0,
            &[77],
            "metadata general.architecture has the unknown type 77",
        ),
        (
            b"general.architecture",
            12,
            b"grape",
            "cannot translate GGUF architecture \"grape\"",
        ),
        (b"llama.block_count", 4, &[255; 4], "no tensors for 4294967295 layers"),
        (
            b"llama.block_count",
            0,
            &[6],
            "metadata llama.block_count is not one small",
        ),
        (
            b"token_embd.weight",
            0,
            &[9],
            "tensor token_embd.weight has 9 dimensions",
        ),
        (
            b"token_embd.weight",
            4,
            &large,
            "tensor token_embd.weight cannot be q6_k of shape",
        ),
        (
            b"token_embd.weight",
            20,
            &[10],
            "tensor token_embd.weight has type Q2_K",
        ),
        (b"token_embd.weight", 24, &large, "lies beyond the file's end"),
        (b"token_embd.weight", 24, &[1], "not aligned to 32 bytes"),
    ];
    for (needle, skip, bytes, says) in cases {
        let error = patched("types", needle, skip, bytes).unwrap_err().to_string();
        assert!(
            error.starts_with("m.gguf: ") && error.contains(says),
            "{error}\nexpected: {says}"
        );
    }
    let error = patched("llama-bpe", b"tokenizer.ggml.eos_token_id", 4, &[255; 4]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("eos_token_id 4294967295 is beyond the vocabulary"),
        "{error}"
    );
    // Behind the types and the length of the array, and the first string's length.
    let error = patched("llama-bpe", b"tokenizer.ggml.merges", 24, b"zz").unwrap_err();
    assert!(
        error.to_string().contains("does not join two tokens to a third"),
        "{error}"
    );
    let error = patched("llama-bpe", b"token_embd.weight", 12, &[9]).unwrap_err();
    assert!(error.to_string().contains("more tokens than the 265 rows"), "{error}");
    assert!(
        open_bytes(&[])
            .unwrap_err()
            .to_string()
            .contains("it ends within the magic number")
    );
    let error = patched("llama-bpe", b"tokenizer.ggml.tokens", 8, &huge).unwrap_err();
    assert!(error.to_string().contains("it ends within"), "{error}");
}

#[test]
fn version_2_is_read_too() {
    let checkpoint = patched("types", b"GGUF", 0, &[2]).unwrap();
    assert_eq!(checkpoint.names(), open("types").names());
}

/// Reads everything that a file offers; panics are what this is about.
fn read_all(file: &[u8]) {
    let Ok(checkpoint) = open_bytes(file) else {
        return;
    };
    for name in checkpoint.names() {
        let info = checkpoint.info(&name).unwrap();
        let format = format_for(info.source, Quant::Keep);
        let _ = checkpoint.read_f32(&name);
        let _ = pack(&checkpoint, &name, format);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn truncated_files_are_errors(which in 0..ALL.len(), keep in 0.0..1.0f64) {
        let file = std::fs::read(fixture(&format!("{}.gguf", ALL[which]))).unwrap();
        // Behind the last tensor there may be up to 31 bytes of padding.
        let cut = ((file.len() - 31) as f64 * keep) as usize;
        let error = open_bytes(&file[..cut]).unwrap_err();
        prop_assert!(matches!(error, CheckpointError::Damaged { .. }), "{}", error);
    }

    #[test]
    fn corrupted_files_never_panic(
        which in 0..ALL.len(),
        changes in prop::collection::vec((0.0..1.0f64, any::<u8>()), 1..6),
        header_only: bool,
    ) {
        let mut file = std::fs::read(fixture(&format!("{}.gguf", ALL[which]))).unwrap();
        let range = if header_only { file.len().min(3000) } else { file.len() };
        for (at, value) in changes {
            file[(range as f64 * at) as usize] = value;
        }
        read_all(&file);
    }
}
