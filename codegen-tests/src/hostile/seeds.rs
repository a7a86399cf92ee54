//! Good inputs for each door: what there is in the repository, or small things made here.

use kiln_compiler::architectures::Registry;
use kiln_compiler::compile::{CompileOptions, compile};
use kiln_compiler::progress::Silent;
use serde_json::{Value, json};

use super::{TEXT_FILES, fixture, folder};

/// Bytes of a file of the repository.
pub(super) fn read(path: &str) -> Vec<u8> {
    std::fs::read(fixture(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Bytes of all files of a folder whose names end so, in the order of their names.
fn read_all(path: &str, ending: &str) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(fixture(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.to_string_lossy().ends_with(ending));
    files.sort();
    let files = files.iter().map(|file| std::fs::read(file).expect("a file"));
    files.collect()
}

/// A Llama of 1 layer.
pub(super) fn tiny_config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "vocab_size": 16,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": true,
        "attention_bias": false,
        "mlp_bias": false
    })
}

pub(super) fn gguf() -> Vec<Vec<u8>> {
    let mut small = read_all("compiler/tests/fixtures/gguf", ".gguf");
    small.retain(|file| file.len() < 64 << 10);
    small
}

/// The weights of [`tiny_config`].
pub(super) fn safetensors() -> Vec<Vec<u8>> {
    let config = tiny_config();
    let registry = Registry::default();
    let architecture = registry.for_config(&config).expect("a known architecture");
    let graph = architecture.build(&config).expect("a sound config");
    let declared = graph.declared_weights();
    let values: Vec<Vec<u8>> = declared
        .iter()
        .map(|weight| vec![0; weight.shape.iter().product::<usize>() * 2])
        .collect();
    let tensors = declared.iter().zip(&values).map(|(weight, values)| {
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::BF16, weight.shape.clone(), values);
        (weight.name.clone(), view.expect("a tensor"))
    });
    vec![safetensors::serialize(tensors, None).expect("a file")]
}

pub(super) fn config() -> Vec<Vec<u8>> {
    let mut configs = vec![tiny_config().to_string().into_bytes()];
    for case in std::fs::read_dir(fixture("codegen-tests/fixtures")).expect("fixtures") {
        configs.extend(std::fs::read(case.expect("an entry").path().join("config.json")).ok());
    }
    configs.sort();
    configs
}

pub(super) fn tokenizer() -> Vec<Vec<u8>> {
    let good: [&[u8]; 6] = [
        &read("runtime/cases/text/byte_fallback.json"),
        b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02\n\x0a\n\x03</s>\x18\x03\n\x08\n\x01a\x15\0\0\x80\xbf\x12\x02\x18\x01",
        br#"{"bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_prefix_space": true, "chat_template": "{{ bos_token }}{{ messages[0].content }}", "added_tokens_decoder": {"300": {"content": "<x>", "special": true}}}"#,
        br#"{"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "additional_special_tokens": ["<x>", "<y>"]}"#,
        br#"{"<x>": 300, "<y>": 301}"#,
        br#"{"eos_token_id": [1, 2], "bos_token_id": 1, "temperature": 0.7, "top_p": 0.9, "top_k": 40, "do_sample": true, "repetition_penalty": 1.1, "suppress_tokens": [1, 2], "bad_words_ids": [[1, 2], [3]]}"#,
    ];
    let with_first = |(which, bytes): (usize, &&[u8])| [&[which as u8][..], bytes].concat();
    assert_eq!(good.len(), TEXT_FILES.len());
    let mut seeds: Vec<Vec<u8>> = good.iter().enumerate().map(with_first).collect();
    let byte_level = read("runtime/cases/text/byte_level.json");
    seeds.push(with_first((0, &byte_level.as_slice())));
    seeds
}

pub(super) fn template() -> Vec<Vec<u8>> {
    let mut templates = read_all("runtime/cases/text/templates", ".jinja");
    // Small ways to ask for much.
    templates.push(b"{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}".to_vec());
    templates.push(b"{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}".to_vec());
    templates.push(b"{{ 'x' * 99999 }}{{ ('x' * 9999) | replace('x', 'y' * 9999) }}".to_vec());
    templates.push(b"{% set x = 'x' * 99999 %}{{ ([x] * 9999) | join }}{{ x.replace('x', x) }}".to_vec());
    templates.push(b"{% set x = 'x' * 99999 %}{{ ('%(a)s' * 9999) % {'a': x} }}{{ [x] * 9999 }}".to_vec());
    templates.push(b"{{ (' ' * 9999999).split(' ') | length }}{{ ('\\n' * 9999) | indent('x' * 99999) }}".to_vec());
    templates.push(
        b"{% set ns = namespace(x='x') %}{% for i in range(64) %}{% set ns.x = ns.x + ns.x %}{% endfor %}".to_vec(),
    );
    templates
}

/// The manifest of [`tiny_config`] without weights.
pub(super) fn manifest() -> Vec<Vec<u8>> {
    let config = tiny_config().to_string();
    let folder = folder(&[("config.json", config.as_bytes())]);
    let mut options = CompileOptions::new(folder.path(), folder.path().join("bundle"));
    options.random_weights = Some(1);
    compile(&options, &Registry::default(), &Silent).expect("a bundle");
    vec![std::fs::read(folder.path().join("bundle/manifest.json")).expect("a manifest")]
}

pub(super) fn session() -> Vec<Vec<u8>> {
    let header = json!({
        "version": 1,
        "model": "tiny",
        "fingerprint": "00",
        "variant": "base",
        "context": 64,
        "tokens": 3,
        "states": [{ "name": "cache", "bytes": 12, "intact_from": 0 }],
        "note": null
    });
    let header = header.to_string().into_bytes();
    let mut bytes = b"kilnsess".to_vec();
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header);
    bytes.extend([7; 3 * 4 + 12]);
    vec![bytes]
}
