//! SmolLM2-135M-Instruct and Gemma 3 270M, real weights from GGUF files, against transformers.
//!
//! The files are looked for in the folder that the environment's `KILN_MODELS` names, or in `models/` at the
//! root of the workspace, and in their subfolders. Without them these tests say so and pass.
//!
//! The reference rounded the dequantized weights to bf16, while Kiln keeps the file's own: logits differ by that
//! rounding, so a greedy token is compared where the two largest logits are further apart.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_bundle::TextFile;
use kiln_codegen_tests::oracle::fixtures;
use kiln_codegen_tests::pipeline::{Compiled, feed, greedy, session};
use kiln_require::{Requirement, skip};
use kiln_runtime::Model;
use kiln_runtime::text::{Message, TextModel};
use serde::Deserialize;

/// The most that rounding the weights to bf16 moves a logit (their standard deviation is 3 to 5): 0.07 here.
const LOGIT_NOISE: f32 = 0.1;
/// The most that it moves the gap between the two largest logits, which mostly move together: 0.035 here.
const GAP_NOISE: f32 = 0.05;
/// Tokens that are compared of each answer. After the first prompt of a model they are generated too; the other
/// answers are only fed, to save time.
const COMPARED: usize = 12;

#[derive(Deserialize)]
struct Reference {
    prompts: Vec<Prompt>,
    tokenizer: Vec<Encoding>,
}

#[derive(Deserialize)]
struct Prompt {
    /// `None` for a raw prompt.
    messages: Option<Vec<Message>>,
    text: String,
    ids: Vec<u32>,
    last_logits_top20_ids: Vec<u32>,
    last_logits_top20: Vec<f32>,
    greedy_ids: Vec<u32>,
    greedy_text: String,
}

#[derive(Deserialize)]
struct Encoding {
    text: String,
    ids: Vec<u32>,
}

/// The first GGUF file whose name contains `part`, in either case.
fn find(part: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("KILN_MODELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../models"),
        PathBuf::from,
    );
    let list = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
    };
    let mut files = list(&folder);
    files.extend(files.clone().iter().flat_map(|folder| list(folder)));
    files.sort();
    let found = files.into_iter().find(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        name.contains(part) && name.ends_with(".gguf")
    });
    if found.is_none() {
        let why = format!("no {part}*.gguf in {}; see KILN_MODELS", folder.display());
        skip(Requirement::Models, why);
    }
    found
}

fn reference(name: &str) -> Reference {
    let path = fixtures().join("real").join(format!("{name}.reference.json"));
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).expect("a reference")
}

fn check(gguf: &Path, reference: &Reference) {
    let compiled = Compiled::new(gguf, |options| options.no_self_test = true);
    let model = compiled
        .load("subgroups")
        .or_else(|| compiled.load("base"))
        .expect("every device runs base");
    let text = text_model(&compiled.bundle(), &model);
    for encoding in &reference.tokenizer {
        let ids = text.encode(&encoding.text, false).expect("ids");
        assert_eq!(ids, encoding.ids, "{:?}", encoding.text);
    }
    for (number, prompt) in reference.prompts.iter().enumerate() {
        let sure = check_logits(prompt, &text, &model);
        if number == 0 {
            check_answer(prompt, sure, &text, &model);
        }
    }
}

fn text_model(bundle: &Path, model: &Model) -> TextModel {
    let files = model.manifest().text.as_ref().expect("tokenizer files");
    let read = |text: &TextFile| std::fs::read_to_string(bundle.join(&text.file)).expect("a file of the bundle");
    let config = files.tokenizer_config.as_ref().map(read);
    let template = files.chat_template.as_ref().map(read);
    TextModel::load(
        read(&files.tokenizer).as_bytes(),
        config.as_deref(),
        template.as_deref(),
    )
    .expect("a tokenizer")
}

/// Compares prompt ids and logits; gives how many tokens of the answer are beyond doubt.
fn check_logits(prompt: &Prompt, text: &TextModel, model: &Arc<Model>) -> usize {
    let ids = match &prompt.messages {
        Some(messages) => text.encode_chat(messages, true),
        None => text.encode(&prompt.text, true),
    };
    assert_eq!(ids.expect("ids"), prompt.ids, "{:?}", prompt.text);

    // The reference's own answer is fed, so that one close call does not end the comparison.
    let compared = prompt.greedy_ids.len().min(COMPARED);
    let fed = [&prompt.ids, &prompt.greedy_ids[..compared - 1]].concat();
    let logits = feed(&mut session(model), &fed).split_off(prompt.ids.len() - 1);
    for (id, expected) in prompt.last_logits_top20_ids.iter().zip(&prompt.last_logits_top20) {
        let found = logits[0][*id as usize];
        assert!(
            (found - expected).abs() < LOGIT_NOISE,
            "{:?}: logit of {id}: {found}, expected {expected}",
            prompt.text
        );
    }
    let mut sure = compared;
    for (step, (logits, &expected)) in logits.iter().zip(&prompt.greedy_ids).enumerate() {
        let others = (0..)
            .zip(logits)
            .filter(|(id, _)| *id != expected)
            .map(|(_, logit)| *logit);
        let gap = logits[expected as usize] - others.fold(f32::NEG_INFINITY, f32::max);
        assert!(
            gap > -GAP_NOISE,
            "{:?}, step {step}: {expected} is {gap} below the largest",
            prompt.text
        );
        if gap < GAP_NOISE {
            sure = sure.min(step);
        }
    }
    println!("{:?}: {sure} of {compared} tokens beyond doubt", prompt.text);
    sure
}

fn check_answer(prompt: &Prompt, sure: usize, text: &TextModel, model: &Arc<Model>) {
    let count = prompt.greedy_ids.len().min(COMPARED);
    let mut session = session(model);
    feed(&mut session, &prompt.ids);
    let answer = greedy(&mut session, count);
    let sure = sure.min(count);
    assert_eq!(answer[..sure], prompt.greedy_ids[..sure], "{:?}", prompt.text);
    let answer = text.decode(&answer[..sure], false).expect("text");
    println!("{:?}: {answer:?}", prompt.text);
    assert!(prompt.greedy_text.starts_with(&answer), "{answer:?}");
}

#[test]
fn smollm2_answers_as_the_reference() {
    if let Some(gguf) = find("smollm2-135m-instruct") {
        check(&gguf, &reference("smollm2-135m-instruct"));
    }
}

#[test]
fn gemma3_continues_as_the_reference() {
    if let Some(gguf) = find("gemma-3-270m") {
        check(&gguf, &reference("gemma-3-270m"));
    }
}
