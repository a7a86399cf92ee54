//! What must hold for every model, on a GPU (real or software).

mod definitions;
mod hybrids;
mod mixtures;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use kiln_codegen_tests::oracle::{Case, Spelling, worst_relative_error};
use kiln_codegen_tests::pipeline::{Compiled, VARIANTS, feed, greedy, session, tolerance};
use kiln_codegen_tests::random_model::{Grid, Random, RandomModel};
use kiln_compiler::compile::CompileOptions;
use kiln_compiler::reference::Evaluator;
use kiln_compiler::rewrite::OptLevel;
use kiln_compiler::weights::Quant;
use kiln_runtime::{Model, block_on};
use serde_json::{Value, json};

/// Between two ways to the same logits on the same device: only the order of sums differs.
const SAME: f64 = 1e-4;

/// A case in full optimization with steps of at most 8 tokens, so that its prompts need several; and its longest
/// prompt, of 44 ids or more. Gemma's sliding window is 8 tokens, so its ring is written over many times.
fn small_steps(name: &'static str) -> (Arc<Model>, Vec<u32>) {
    let mut case = Case::load(name);
    let checkpoint = case.checkpoint(Spelling::V5);
    let compiled = Compiled::new(checkpoint.path(), |options| options.chunk = Some(8));
    let model = compiled.load("base").expect("every device runs base");
    (model, case.prompts.remove(2).ids)
}

const FAMILIES: [&str; 6] = [
    "llama-A-bf16",
    "qwen3-A-bf16",
    "gemma3-A-bf16",
    "gpt_oss-A-mxfp4",
    "lfm2_moe-A-bf16",
    "qwen3_next-A-bf16",
];

#[test]
fn any_chunking_of_the_prompt_gives_the_same_logits() {
    for name in FAMILIES {
        let (model, ids) = small_steps(name);
        let whole = feed(&mut session(&model), &ids);
        let mut random = Random(1);
        for round in 0..4 {
            let (mut session, mut rest, mut logits) = (session(&model), ids.as_slice(), Vec::new());
            let mut pieces = Vec::new();
            while !rest.is_empty() {
                // One by one in the first round, then any pieces, also longer than a step.
                let piece = if round == 0 {
                    1
                } else {
                    (1 + random.below(13)).min(rest.len())
                };
                logits.extend(feed(&mut session, &rest[..piece]));
                rest = &rest[piece..];
                pieces.push(piece);
            }
            let error = worst_relative_error(&logits, &whole);
            assert!(error < SAME, "{name} in pieces of {pieces:?}: {error:.1e}");
        }
    }
}

#[test]
fn a_reused_session_is_as_good_as_a_fresh_one() {
    for name in FAMILIES {
        let (model, ids) = small_steps(name);
        let (first, second) = ids.split_at(20);
        let mut fresh = session(&model);
        let mut reused = session(&model);

        // A second turn after a first with an answer.
        feed(&mut reused, first);
        let answer = greedy(&mut reused, 5);
        // The last token of the answer was sampled, but not fed.
        let turn = [&answer[4..], second].concat();
        let logits = feed(&mut reused, &turn);
        let all = [first, &answer, second].concat();
        let expected = feed(&mut fresh, &all);
        let error = worst_relative_error(&logits, &expected[first.len() + 4..]);
        assert!(error < SAME, "{name}, second turn: {error:.1e}");

        // The second turn again, told otherwise: only what is new is fed, or all where the ring was overwritten.
        let told = [first, &answer, &ids[30..]].concat();
        block_on(reused.feed_only_new(&told)).expect("a rewound session");
        let logits = block_on(reused.logits()).expect("logits");
        let expected = feed(&mut session(&model), &told).pop().expect("a position");
        let error = worst_relative_error(&[logits], &[expected]);
        assert!(error < SAME, "{name}, rewound: {error:.1e}");

        // From the start.
        reused.reset().expect("a reset session");
        let logits = feed(&mut reused, &ids);
        let expected = feed(&mut session(&model), &ids);
        assert_eq!(logits, expected, "{name}, reset");
    }
}

#[test]
fn the_same_prompt_gives_the_same_bits() {
    let (model, ids) = small_steps("gemma3-A-bf16");
    assert_eq!(feed(&mut session(&model), &ids), feed(&mut session(&model), &ids));
}

#[test]
fn the_bundle_is_reproducible_byte_for_byte() {
    for name in FAMILIES {
        let checkpoint = Case::load(name).checkpoint(Spelling::V5);
        let files = [(); 2].map(|()| files(&Compiled::new(checkpoint.path(), |_| ()).bundle()));
        assert!(files[0].contains_key("manifest.json"), "{name}: {:?}", files[0].keys());
        let names: Vec<_> = files[0].keys().collect();
        assert_eq!(names, files[1].keys().collect::<Vec<_>>(), "{name}");
        for (file, bytes) in &files[0] {
            assert!(*bytes == files[1][file], "{name}: {file} differs");
        }
    }
}

/// Path within `folder` and content of every file.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).expect("a readable folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).expect("a path inside").display().to_string();
            found.insert(name, std::fs::read(&path).expect("a readable file"));
        }
    }
    found
}

/// Compiles random weights for a config, and compares every position's logits, at both levels and in every
/// variant, with the CPU evaluator's, and the levels with each other.
fn check_random(config: Value, grid: Grid, tokens: usize, seed: u64) {
    let model = RandomModel::new(&config, grid, seed);
    let ids = Random(seed).ids(tokens, config["vocab_size"].as_u64().expect("a vocabulary") as usize);
    let levels = [OptLevel::None, OptLevel::Full].map(|level| check_compiled(&model, grid, &ids, &|o| o.level = level));
    let error = worst_relative_error(&levels[0], &levels[1]);
    assert!(error < SAME, "level 0 against full: {error:.1e}, config {config}");
}

/// Compiles a random model with the options that `set` sets, and compares every position's logits, in every variant,
/// with the CPU evaluator's. Gives those of `base`.
fn check_compiled(model: &RandomModel, grid: Grid, ids: &[u32], set: &dyn Fn(&mut CompileOptions)) -> Vec<Vec<f32>> {
    let expected = Evaluator::new(&model.graph, &model.weights).feed(ids).expect("logits");
    let mut what = String::new();
    let compiled = Compiled::new(model.folder.path(), |options| {
        options.quant = match grid {
            Grid::F32 => Quant::Keep,
            Grid::Q8 => Quant::Q8,
            Grid::Q4 => Quant::Q4,
        };
        options.chunk = Some(16);
        set(options);
        what = format!("{:?} {:?}", options.level, options.moe_plan);
    });
    let mut of_base = Vec::new();
    for variant in VARIANTS {
        let Some(model) = compiled.load(variant) else { continue };
        let mut session = session(&model);
        // Prefill, the last three tokens by decode.
        let (prompt, rest) = ids.split_at(ids.len().saturating_sub(3));
        let mut logits = feed(&mut session, prompt);
        for id in rest {
            logits.extend(feed(&mut session, &[*id]));
        }
        let error = worst_relative_error(&logits, &expected);
        println!("{what} {variant}: {error:.1e}");
        assert!(error < tolerance(variant), "{what} {variant}: {error:.1e}");
        if variant == "base" {
            of_base = logits;
        }
    }
    of_base
}

/// A config.json with these fields, over a llama of odd sizes.
fn llama(fields: Value) -> Value {
    config(
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": 72,
            "intermediate_size": 100,
            "num_hidden_layers": 1,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "hidden_act": "silu",
            "rope_theta": 10000.0,
            "tie_word_embeddings": false,
        }),
        fields,
    )
}

fn qwen3(fields: Value) -> Value {
    let qwen3 = json!({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"});
    llama(config(qwen3, fields))
}

fn gemma3(fields: Value) -> Value {
    config(
        json!({
            "architectures": ["Gemma3ForCausalLM"],
            "model_type": "gemma3_text",
            "hidden_size": 56,
            "intermediate_size": 88,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": 24,
            "sliding_window": 7,
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_theta": 100000.0,
            "rope_local_base_freq": 1000.0,
            "tie_word_embeddings": true,
        }),
        fields,
    )
}

/// `base` with `fields` over it, and what all configs have.
fn config(mut base: Value, fields: Value) -> Value {
    for (name, value) in fields.as_object().expect("fields") {
        base[name] = value.clone();
    }
    for (name, value) in [
        ("vocab_size", json!(333)),
        ("max_position_embeddings", json!(256)),
        ("rms_norm_eps", json!(1e-5)),
    ] {
        if base[name].is_null() {
            base[name] = value;
        }
    }
    base
}

#[test]
fn groups_of_seven_and_biases_in_q4() {
    let fields = json!({
        "num_hidden_layers": 2, "num_attention_heads": 7, "num_key_value_heads": 1, "head_dim": 64,
        "hidden_size": 100, "attention_bias": true, "mlp_bias": true,
    });
    check_random(llama(fields), Grid::Q4, 40, 3);
}

#[test]
fn qwen3_with_wide_heads_in_q4() {
    let fields = json!({
        "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 128,
        "tie_word_embeddings": true,
    });
    check_random(qwen3(fields), Grid::Q4, 18, 4);
}

#[test]
fn matrices_over_the_binding_limit() {
    let config = llama(json!({"vocab_size": 333, "num_hidden_layers": 2}));
    for (grid, limit) in [(Grid::F32, 30_000), (Grid::Q4, 5_000)] {
        let model = RandomModel::new(&config, grid, 8);
        let ids = Random(8).ids(20, 333);
        for level in [OptLevel::None, OptLevel::Full] {
            check_compiled(&model, grid, &ids, &|options| {
                options.level = level;
                options.binding_limit = limit;
            });
        }
    }
}

#[test]
fn gemma3_untied_with_a_softcap_and_wide_heads() {
    let fields = json!({
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 256, "sliding_window": 3,
        "tie_word_embeddings": false, "final_logit_softcapping": 5.0, "num_hidden_layers": 3,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"], "rms_norm_eps": 0.01,
    });
    check_random(gemma3(fields), Grid::F32, 26, 7);
}
