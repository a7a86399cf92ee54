//! What a checkpoint says of generating, from its files to the tokens: compiled, loaded and generated with, in every
//! variant, against the ids of transformers' `generate`.

use std::path::Path;
use std::sync::Arc;

use kiln_bundle::{MANIFEST_FILE, Manifest, Model as Facts};
use kiln_codegen_tests::oracle::{Case, Spelling, fixtures};
use kiln_codegen_tests::pipeline::{Compiled, VARIANTS, load, session};
use kiln_compiler::compile::CompileOptions;
use kiln_runtime::{Error, GenerateOptions, Model, Sampling, Session, TokenRule, block_on};
use serde_json::{Value, json};

/// Less than the fixture's longer prompts.
const CHUNK: u32 = 12;

/// A reference checkpoint with this `generation_config.json`, compiled.
fn compiled(generation: &Value, set: impl FnOnce(&mut CompileOptions)) -> Compiled {
    let checkpoint = Case::load("llama-A-f32").checkpoint(Spelling::V5);
    let file = checkpoint.path().join("generation_config.json");
    std::fs::write(file, generation.to_string()).expect("a file");
    Compiled::new(checkpoint.path(), |options| {
        options.chunk = Some(CHUNK);
        set(options);
    })
}

/// What the bundle of such a checkpoint says of generating. Its kernels are those of every other.
fn facts(generation: &Value) -> Facts {
    let compiled = compiled(generation, |options| options.no_weights = true);
    let text = std::fs::read(compiled.bundle().join(MANIFEST_FILE)).expect("a manifest");
    Manifest::from_json(&text, MANIFEST_FILE).expect("a manifest").model
}

fn as_it_says(facts: &Facts, max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        max_tokens: max_tokens as u32,
        sampling: Sampling::of(facts),
        stop_ids: Some(facts.eos_token_ids.clone()),
        ..GenerateOptions::default()
    }
}

/// Generates and takes at most so many tokens.
fn take(session: &mut Session, options: GenerateOptions, most: usize) -> Result<Vec<u32>, Error> {
    block_on(async {
        let mut ids = Vec::new();
        let mut generation = session.generate(options)?;
        while ids.len() < most
            && let Some(id) = generation.next().await?
        {
            ids.push(id);
        }
        Ok(ids)
    })
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("ids")
}

#[test]
fn generates_what_transformers_does_under_the_checkpoints_settings() {
    let text = std::fs::read_to_string(fixtures().join("sampling.json")).expect("the fixture");
    let fixture: Value = serde_json::from_str(&text).expect("JSON");
    let cases = fixture["generated"].as_array().expect("a list");
    assert!(cases.len() > 5);
    let compiled = compiled(&Value::Null, |_| {});
    let models: Vec<Arc<Model>> = VARIANTS.iter().filter_map(|variant| compiled.load(variant)).collect();
    for case in cases {
        let (prompt, expected) = (ids(&case["prompt"]), ids(&case["ids"]));
        let facts = facts(&case["settings"]);
        for model in &models {
            let what = format!("{} {}", case["settings"], model.variant().name);
            check(model, &facts, &prompt, &expected, &what);
        }
    }
}

fn check(model: &Arc<Model>, facts: &Facts, prompt: &[u32], expected: &[u32], what: &str) {
    let mut session = session(model);
    let all = expected.len();
    let options = || as_it_says(facts, all);
    let feed = |session: &mut Session, ids: &[u32]| block_on(session.feed(ids)).expect("room");
    feed(&mut session, prompt);
    assert_eq!(take(&mut session, options(), all).expect("tokens"), expected, "{what}");
    for steps_in_flight in [1, 16] {
        assert_eq!(block_on(session.feed_only_new(prompt)).expect("room"), 1, "{what}");
        let options = GenerateOptions {
            steps_in_flight,
            ..options()
        };
        let found = take(&mut session, options, all).expect("tokens");
        assert_eq!(found, expected, "{what}, {steps_in_flight} steps in flight");
    }
    // Something else in between, gone back from; then saved and restored elsewhere.
    session.rewind(prompt.len() as u32 - 1).expect("an earlier position");
    feed(&mut session, &[9, 9, 9]);
    take(&mut session, options(), 3).expect("tokens");
    session.rewind(prompt.len() as u32 - 1).expect("an earlier position");
    let saved = block_on(session.save()).expect("a live device");
    let mut other = block_on(Session::new(model.clone(), None)).expect("a session");
    block_on(other.restore(&saved)).expect("the same model");
    feed(&mut other, &prompt[prompt.len() - 1..]);
    assert_eq!(
        take(&mut other, options(), all).expect("tokens"),
        expected,
        "{what}, restored"
    );
}

/// Sampled tokens stay among those that the settings leave, and follow the seed.
#[test]
fn sampling_with_the_checkpoints_settings() {
    let generation = json!({ "eos_token_id": 2, "do_sample": true, "temperature": 3.0, "top_k": 0, "min_p": 0.1, "suppress_tokens": [114] });
    let model = compiled(&generation, |_| {}).load("base").expect("the base variant");
    let mut session = session(&model);
    block_on(session.feed(&[5, 6])).expect("room");
    let mut answers = Vec::new();
    for seed in 0..40 {
        block_on(session.feed_only_new(&[5, 6, 7])).expect("room");
        let logits = block_on(session.logits()).expect("logits");
        let most = |logits: &mut dyn Iterator<Item = f32>| logits.fold(f32::MIN, f32::max);
        let largest = most(&mut (0..).zip(&logits).filter(|(id, _)| *id != 114).map(|(_, logit)| *logit));
        let mut options = as_it_says(&model.manifest().model, 4);
        options.sampling.seed = seed;
        let ids = take(&mut session, options, 4).expect("tokens");
        let first = ids[0];
        assert_ne!(first, 114);
        // A rounding more than min-p allows.
        let least = largest + 3.0 * 0.1f32.ln() - 1e-4;
        assert!(
            logits[first as usize] >= least,
            "{first} has {}",
            logits[first as usize]
        );
        assert!(logits[114] > largest, "the most likely token is the one ruled out");
        answers.push(ids);
    }
    answers.sort();
    answers.dedup();
    assert!(answers.len() > 5, "{answers:?}");
}

#[test]
fn all_tokens_ruled_out_is_an_error() {
    let all: Vec<u32> = (0..256).collect();
    let compiled = compiled(&json!({ "eos_token_id": 2, "suppress_tokens": all }), |_| {});
    let model = compiled.load("base").expect("the base variant");
    for temperature in [0.0, 1.0] {
        let mut session = session(&model);
        block_on(session.feed(&[5, 6, 7])).expect("room");
        let mut options = as_it_says(&model.manifest().model, 4);
        options.sampling.temperature = temperature;
        let error = take(&mut session, options, 4).expect_err("no token");
        assert!(matches!(error, Error::AllTokensRuledOut), "{error}");
    }
}

/// Presence and frequency penalties, which transformers has not: they count what was sampled, not the prompt.
#[test]
fn penalties_for_what_was_sampled() {
    let model = compiled(&json!({ "eos_token_id": 2 }), |_| {})
        .load("base")
        .expect("the base variant");
    let mut session = session(&model);
    let mut held = vec![5, 6, 7, 139];
    let (presence, frequency) = (1.5, 0.75);
    let mut expected = Vec::new();
    for _ in 0..12 {
        block_on(session.feed_only_new(&held)).expect("room");
        let mut logits = block_on(session.logits()).expect("logits");
        for (id, logit) in (0..).zip(&mut logits) {
            let times = expected.iter().filter(|sampled| **sampled == id).count() as f32;
            *logit -= times * frequency + times.min(1.0) * presence;
        }
        let best = logits.iter().copied().fold(f32::MIN, f32::max);
        let next = logits.iter().position(|logit| *logit == best).expect("the largest") as u32;
        expected.push(next);
        held.push(next);
    }
    block_on(session.feed_only_new(&held[..4])).expect("room");
    let mut options = as_it_says(&model.manifest().model, 12);
    options.sampling.presence_penalty = presence;
    options.sampling.frequency_penalty = frequency;
    assert_eq!(take(&mut session, options, 12).expect("tokens"), expected);
    block_on(session.feed_only_new(&held[..4])).expect("room");
    let plain = take(&mut session, as_it_says(&model.manifest().model, 12), 12).expect("tokens");
    assert_ne!(plain, expected, "the penalties change nothing here");
}

/// A caller's rules come on top; a bias of a token that would not have won makes it win.
#[test]
fn a_callers_rules() {
    let model = compiled(&json!({ "eos_token_id": 2 }), |_| {})
        .load("base")
        .expect("the base variant");
    let mut session = session(&model);
    block_on(session.feed(&[5, 6, 7])).expect("room");
    let mut options = as_it_says(&model.manifest().model, 3);
    let rule = |ids: &[u32], first| TokenRule {
        ids: ids.to_vec(),
        bias: Some(100.0),
        first,
    };
    options.sampling.rules = vec![
        rule(&[40], Some(1)),
        rule(&[40, 41], None),
        rule(&[7, 40, 41, 42], None),
    ];
    assert_eq!(take(&mut session, options, 3).expect("tokens"), [40, 41, 42]);
}

/// Values beyond the largest number of 16 bits are infinite in the caches of the variant f16. It says so and names a way
/// out; the other variants compute what they should.
#[test]
fn values_beyond_16_bits() {
    let checkpoint = Case::load("llama-A-f32").checkpoint(Spelling::V5);
    scale(checkpoint.path(), "model.layers.0.self_attn.v_proj.weight", 1_048_576.0);
    scale(
        checkpoint.path(),
        "model.layers.0.self_attn.o_proj.weight",
        1.0 / 1_048_576.0,
    );
    let large = Compiled::new(checkpoint.path(), |_| {});
    let plain = Compiled::new(Case::load("llama-A-f32").checkpoint(Spelling::V5).path(), |_| {});
    let generate = |model: &Arc<Model>| {
        let mut session = session(model);
        block_on(session.feed(&[5, 6, 7])).expect("room");
        take(&mut session, as_it_says(&model.manifest().model, 6), 6)
    };
    let expected = generate(&plain.load("base").expect("the base variant")).expect("tokens");
    for variant in VARIANTS {
        let Some(model) = load(&large.bundle(), variant) else {
            continue;
        };
        match (variant, generate(&model)) {
            ("f16", Err(error @ Error::LogitsNotFinite { .. })) => {
                let message = error.to_string();
                assert!(message.contains("use variant subgroups, which has 32"), "{message}");
            }
            ("f16", other) => panic!("f16: {other:?}"),
            (_, found) => assert_eq!(found.expect("tokens"), expected, "{variant}"),
        }
    }
}

/// Multiplies a tensor of the file, which is f32.
fn scale(checkpoint: &Path, name: &str, factor: f32) {
    let file = checkpoint.join("model.safetensors");
    let mut bytes = std::fs::read(&file).expect("the weights");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let parsed: Value = serde_json::from_slice(&bytes[8..8 + header]).expect("a header");
    let offsets = &parsed[name]["data_offsets"];
    let offset = |index: usize| 8 + header + offsets[index].as_u64().expect("an offset") as usize;
    for number in bytes[offset(0)..offset(1)].chunks_exact_mut(4) {
        let value = f32::from_le_bytes(number.try_into().expect("4 bytes"));
        number.copy_from_slice(&(value * factor).to_le_bytes());
    }
    std::fs::write(&file, bytes).expect("room");
}
