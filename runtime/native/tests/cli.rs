//! The `run-model` program from outside.
#![cfg(feature = "cli")]

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{Toy, VOCAB, reference};
use kiln_bundle::TrustStore;
use safetensors::SafeTensors;
use serde_json::Value;

fn run_model(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_run-model"))
        .args(arguments)
        .output()
        .unwrap()
}

/// Standard output of a run that must succeed.
fn stdout(arguments: &[&str]) -> String {
    let output = run_model(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Standard error of a run that must fail with this code.
fn stderr(code: i32, arguments: &[&str]) -> String {
    let output = run_model(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    errors
}

fn bundle(toy: &Toy) -> &str {
    toy.path().to_str().unwrap()
}

fn ids_text(ids: &[u32]) -> String {
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    ids.join(",")
}

const PROMPT: [u32; 6] = [3, 1, 4, 1, 5, 9];

#[test]
fn generate_prints_ids_or_json() {
    let toy = Toy::new();
    let prompt = ids_text(&PROMPT);
    let expected = reference::generate(&PROMPT, 10);
    let arguments = ["generate", bundle(&toy), "--ids", &prompt, "--max-tokens", "10"];
    assert_eq!(stdout(&arguments).trim(), ids_text(&expected));

    let arguments = [&arguments[..], &["--json", "--checked"]].concat();
    let json: Value = serde_json::from_str(&stdout(&arguments)).unwrap();
    assert_eq!(json["ids"], serde_json::json!(expected));
    assert_eq!(json["prompt_ids"], serde_json::json!(PROMPT));
    assert_eq!(json["stop"], "max_tokens");
    assert!(json["timings"]["time_to_first_token_s"].as_f64().unwrap() > 0.0);
}

#[test]
fn generate_stops_at_an_end_token_unless_told_to_go_on() {
    let expected = reference::generate(&PROMPT, 8);
    let toy = Toy::with(|manifest| manifest.model.eos_token_ids = vec![expected[1]]);
    let prompt = ids_text(&PROMPT);
    let arguments = ["generate", bundle(&toy), "--ids", &prompt, "--max-tokens", "8"];
    let end = expected.iter().position(|id| *id == expected[1]).unwrap();
    assert_eq!(stdout(&arguments).trim(), ids_text(&expected[..=end]));
    let arguments = [&arguments[..], &["--ignore-eos"]].concat();
    assert_eq!(stdout(&arguments).trim(), ids_text(&expected));
}

#[test]
fn logits_writes_every_position() {
    let toy = Toy::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("logits.safetensors");
    let path = file.to_str().unwrap();
    for chunk in ["1", "3", "4"] {
        let prompt = ids_text(&PROMPT);
        stdout(&["logits", bundle(&toy), "--ids", &prompt, "--chunk", chunk, "-o", path]);
        let bytes = std::fs::read(&file).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let logits = tensors.tensor("logits").unwrap();
        assert_eq!(logits.shape(), [PROMPT.len(), VOCAB as usize]);
        let found: Vec<f32> = logits
            .data()
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        let expected: Vec<f32> = (1..=PROMPT.len())
            .flat_map(|length| reference::logits(&PROMPT[..length]))
            .collect();
        assert_eq!(found, expected, "in chunks of {chunk}");
    }
    assert_eq!(names(folder.path()), ["logits.safetensors"]);
}

#[test]
fn nothing_half_written_stays() {
    let toy = Toy::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("logits.safetensors");
    let path = file.to_str().unwrap();
    let error = stderr(1, &["logits", bundle(&toy), "--ids", "1,2,99", "-o", path]);
    assert!(error.contains("token id 99 is outside the vocabulary of 17"), "{error}");
    assert!(names(folder.path()).is_empty());
    let error = stderr(1, &["logits", bundle(&toy), "--ids", "1", "-o", "/nonexistent/x"]);
    assert!(error.contains("/nonexistent"), "{error}");
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn verify_passes_and_fails() {
    let toy = Toy::new();
    let output = stdout(&["verify", bundle(&toy)]);
    assert!(
        output.contains("base") && output.contains("ok: largest error 0"),
        "{output}"
    );

    let mut wrong = Toy::new();
    let text = std::fs::read_to_string(wrong.file("kernels/head.wgsl")).unwrap();
    wrong.set_kernel("head", &text.replace("* 0.25", "* 0.26"));
    wrong.save();
    let error = stderr(1, &["verify", bundle(&wrong)]);
    assert!(error.contains("1 of 1 variants are out of tolerance"), "{error}");

    let without = Toy::with(|manifest| manifest.self_test = None);
    assert!(stderr(1, &["verify", bundle(&without)]).contains("no self-test"));
}

#[test]
fn inspect_and_devices_tell() {
    let toy = Toy::new();
    let text = stdout(&["inspect", bundle(&toy), "--dispatches"]);
    for part in [
        "toy (ToyForCausalLM)",
        "variant base",
        "decode: 3 dispatches, 3.0 a layer",
        "remember",
        "1 × 4 bytes a position (cache)",
        "kernels run ",
        "1 × ring of 8 positions of 4 bytes, the last 3 needed (ring)",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let recurrent = Toy::recurrent(40);
    let text = stdout(&["inspect", bundle(&recurrent)]);
    assert!(text.contains("1 × recurrent, sums up all tokens (sum)"), "{text}");
    assert!(stdout(&["devices"]).contains("maxStorageBufferBindingSize"));
}

#[test]
fn bench_measures() {
    let toy = Toy::new();
    let arguments = [
        "--prefill",
        "7,9",
        "--decode",
        "5",
        "--context",
        "2,6,30",
        "--repetitions",
        "2",
    ];
    let bench = [&["bench", bundle(&toy)], &arguments[..]].concat();
    let json: Value = serde_json::from_str(&stdout(&[&bench[..], &["--json"]].concat())).unwrap();
    let numbers = |list: &str, name: &str| -> Vec<u64> {
        let entries = json[list].as_array().unwrap().iter();
        entries.map(|entry| entry[name].as_u64().unwrap()).collect()
    };
    assert_eq!(numbers("prefill", "tokens"), [7, 9]);
    assert_eq!(numbers("decode", "context"), [2, 6, 30]);
    assert_eq!(numbers("decode", "tokens"), [5, 5, 5]);
    for (list, measure) in [
        ("prefill", "tokens_per_s"),
        ("prefill", "time_to_first_token_s"),
        ("decode", "tokens_per_s"),
    ] {
        for entry in json[list].as_array().unwrap() {
            assert!(entry[measure]["median"].as_f64().unwrap() > 0.0, "{measure}: {json}");
        }
    }
    assert_eq!(json["decode_dispatches"], 5);
    // 36 positions of 4 bytes, a ring of 8, one weight of 17 words; of the others 36 positions of 8 bytes and 256 bytes of
    // rules; see `common` for the rest.
    let memory = &json["memory"];
    assert_eq!(memory["context"], 36);
    let planned = serde_json::json!({
        "weights": 68, "caches": 144, "windows": 32, "recurrent": 0, "copies": 0, "arenas": 288, "others": 36 + 16 + 32 + 32 + 68 + 36 * 8 + 256,
    });
    assert_eq!(memory["planned"], planned);
    assert_eq!(memory["planned_total"], 68 + 144 + 32 + 288 + 728);
    assert!(memory["allocated"].as_u64() >= memory["planned_total"].as_u64());

    let text = stdout(&bench);
    for part in [
        "prefill 9",
        "decode 5 after 30",
        "planned: 0.0 MB",
        "peak of all buffers",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let arguments = ["bench", bundle(&toy), "--prefill", "100"];
    assert!(stderr(1, &arguments).contains("between 1 and the model's 40"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_foreign_bundle_runs_checked_unless_its_digest_is_trusted() {
    let toy = Toy::new();
    let digest = toy.manifest.digest().to_string();
    let state = tempfile::tempdir().unwrap();
    let run = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_run-model"))
            .args(["generate", bundle(&toy), "--ids", "3,1", "--max-tokens", "1", "--json"])
            .args(more)
            .env("XDG_STATE_HOME", state.path())
            .output()
            .unwrap();
        assert!(output.status.success());
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        let kernels = json["kernels"].as_str().unwrap().to_string();
        // Drivers may say something of their own.
        let errors = String::from_utf8(output.stderr).unwrap();
        let notes: Vec<&str> = errors.lines().filter(|line| line.contains("kernels")).collect();
        (kernels, notes.join("\n"))
    };
    let (kernels, note) = run(&[]);
    assert!(kernels.starts_with("checked: the bundle was not compiled"), "{kernels}");
    assert_eq!(note.lines().count(), 1, "{note}");
    assert!(note.contains(&format!("--trust {digest}")), "{note}");

    let (kernels, note) = run(&["--trust", &digest]);
    assert!(kernels.starts_with("unchecked: the bundle's digest"), "{kernels}");
    assert_eq!(note, "");
    let other = "0".repeat(64);
    assert!(run(&["--trust", &other]).0.starts_with("checked"));

    TrustStore::at(state.path().join("kiln").join("trusted"))
        .add(toy.manifest.digest())
        .unwrap();
    let (kernels, note) = run(&[]);
    assert!(kernels.starts_with("unchecked: the bundle was compiled"), "{kernels}");
    assert_eq!(note, "");
    let (kernels, note) = run(&["--checked"]);
    assert!(kernels.starts_with("checked"), "{kernels}");
    assert_eq!(note, "");
    stderr(2, &["generate", bundle(&toy), "--ids", "1", "--trust", "abc"]);
}

#[test]
fn wrong_input_is_told_with_its_exit_code() {
    let toy = Toy::new();
    let error = stderr(1, &["inspect", "/nonexistent"]);
    assert_eq!(error, "error: /nonexistent does not exist\n");
    let error = stderr(1, &["generate", bundle(&toy), "--prompt", "hello"]);
    assert!(error.contains("no tokenizer"), "{error}");
    let error = stderr(1, &["generate", bundle(&toy), "--ids", "1", "--variant", "f16"]);
    assert!(error.contains("it has base"), "{error}");
    let error = stderr(1, &["chat", bundle(&toy)]);
    assert!(error.contains("no tokenizer"), "{error}");
    for usage in [
        &["generate", bundle(&toy)][..],
        &["generate", bundle(&toy), "--ids", "1", "--prompt", "x"],
        &["generate", bundle(&toy), "--ids", "1,x"],
        &["generate", bundle(&toy), "--ids", "1", "--temperature", "-1"],
        &["generate", bundle(&toy), "--ids", "1", "--top-p", "nan"],
        &["logits", bundle(&toy), "--ids", "1"],
        &["unknown"],
    ] {
        stderr(2, usage);
    }
}

/// Safetensors of logits for two tokens.
fn is_logits(bytes: &[u8]) -> bool {
    let logits =
        SafeTensors::deserialize(bytes).and_then(|tensors| tensors.tensor("logits").map(|of| of.shape().to_vec()));
    logits.is_ok_and(|shape| shape == [2, VOCAB as usize])
}

#[cfg(unix)]
#[test]
fn outputs_go_through_links_pipes_and_standard_output() {
    let toy = Toy::new();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).into_os_string().into_string().unwrap();
    let logits = |output: &str| stdout(&["logits", bundle(&toy), "--ids", "1,2", "-o", output]);
    std::fs::write(at("target"), "old").unwrap();
    std::os::unix::fs::symlink("target", at("link")).unwrap();
    logits(&at("link"));
    assert!(std::fs::symlink_metadata(at("link")).unwrap().is_symlink());
    assert!(is_logits(&std::fs::read(at("target")).unwrap()));

    assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    let pipe = at("pipe");
    let reader = std::thread::spawn(move || std::fs::read(pipe).unwrap());
    logits(&at("pipe"));
    assert!(is_logits(&reader.join().unwrap()));

    let output = run_model(&["logits", bundle(&toy), "--ids", "1,2", "-o", "/dev/stdout"]);
    assert!(output.status.success() && is_logits(&output.stdout));
    // What is in the file already stays, as a shell's >> promises.
    std::fs::write(at("log"), "before").unwrap();
    let log = std::fs::File::options().append(true).open(at("log")).unwrap();
    let mut run = Command::new(env!("CARGO_BIN_EXE_run-model"));
    run.args(["logits", bundle(&toy), "--ids", "1,2", "-o", "/dev/stdout"]);
    assert!(run.stdout(log).status().unwrap().success());
    let log = std::fs::read(at("log")).unwrap();
    assert!(log.starts_with(b"before") && is_logits(&log[6..]));

    // A session that is kept nowhere, and one whose file is there but empty.
    std::fs::write(at("empty"), "").unwrap();
    for session in ["/dev/null", &at("empty")] {
        let generate = [
            "generate",
            bundle(&toy),
            "--ids",
            "1,2",
            "--max-tokens",
            "2",
            "--session",
            session,
        ];
        stdout(&generate);
    }
    assert!(std::fs::read(at("empty")).unwrap().starts_with(b"kilnsess"));
    let mut left = names(folder.path());
    left.sort();
    assert_eq!(left, ["empty", "link", "log", "pipe", "target"]);
}

#[test]
fn values_may_begin_with_a_hyphen() {
    let toy = Toy::new();
    for prompt in ["- one\n- two", "-5 + 3?", "--help", "-"] {
        let error = stderr(1, &["generate", bundle(&toy), "--prompt", prompt]);
        assert!(error.contains("no tokenizer"), "{prompt}: {error}");
    }
    for (option, value) in [
        ("--ids", "-1"),
        ("--seed", "-1"),
        ("--max-tokens", "-1"),
        ("--context", "-7"),
        ("--top-k", "-x"),
        ("--temperature", "-1"),
    ] {
        let error = stderr(2, &["generate", bundle(&toy), "--ids", "1", option, value]);
        assert!(error.contains(&format!("'{value}' for '{option}")), "{option}: {error}");
    }
    let error = stderr(1, &["generate", bundle(&toy), "--ids", "1", "--device", "-none"]);
    assert!(error.contains("-none"), "{error}");
    stdout(&[
        "generate",
        bundle(&toy),
        "--ids",
        "1",
        "--max-tokens",
        "1",
        "--stop",
        "-",
        "--stop",
        "--json",
    ]);
}

#[cfg(unix)]
#[test]
fn output_that_nobody_reads_ends_the_program_quietly() {
    let toy = Toy::new();
    for arguments in [
        &["inspect", bundle(&toy), "--dispatches"][..],
        &["devices"],
        &["verify", bundle(&toy)],
        &["generate", bundle(&toy), "--ids", "1,2", "--max-tokens", "5"],
        &["logits", bundle(&toy), "--ids", "1,2", "-o", "/dev/stdout"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut run = Command::new(env!("CARGO_BIN_EXE_run-model"));
        let output = run.args(arguments).stdout(writer).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
        // A driver may have said something.
        let quiet = !errors.contains("pipe") && !errors.contains("panicked");
        assert!(quiet, "{arguments:?}: {errors}");
        if cfg!(target_os = "linux") {
            let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
            let mut run = Command::new(env!("CARGO_BIN_EXE_run-model"));
            let output = run.args(arguments).stdout(full.try_clone().unwrap()).output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{arguments:?}");
            assert!(errors.contains("No space left on device"), "{arguments:?}: {errors}");
            // Nor does it matter whether errors are read.
            let status = run.stdout(full.try_clone().unwrap()).stderr(full).status().unwrap();
            assert_eq!(status.code(), Some(1), "{arguments:?}");
        }
    }
}

#[test]
fn what_is_no_bundle_is_called_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("SmolLM2-135M");
    std::fs::create_dir(&checkpoint).unwrap();
    std::fs::write(checkpoint.join("config.json"), "{}").unwrap();
    let path = checkpoint.to_str().unwrap();
    for command in ["inspect", "verify", "bench", "chat", "devices"] {
        let error = stderr(1, &[command, path]);
        let way_out = format!("make a bundle of it first: compile-model {path} -o SmolLM2-135M.kiln");
        let told = format!("error: {path} is a checkpoint; {way_out}\n");
        // A driver may have said something before.
        assert!(error.ends_with(&told), "{command}: {error}");
    }
    // A bundle that lost a file: the cause is told once.
    let toy = Toy::new();
    std::fs::remove_file(toy.file("kernels/head.wgsl")).unwrap();
    let error = stderr(1, &["generate", bundle(&toy), "--ids", "1"]);
    assert_eq!(error.matches("No such file").count(), 1, "{error}");
}
