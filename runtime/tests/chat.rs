//! Text in and out of `run-model`, with the toy model and a tokenizer of 17 words.
#![cfg(feature = "cli")]

mod common;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use common::{Toy, VOCAB, reference};
use kiln_bundle::TextFiles;

/// A user's words come after w1, the assistant's after w2.
const TEMPLATE: &str = "{% for message in messages %}{{ 'w1' if message.role == 'user' else 'w2' }} \
                        {{ message.content }} {% endfor %}{% if add_generation_prompt %}w2{% endif %}";

fn toy() -> Toy {
    let toy = Toy::with(|manifest| {
        manifest.text = Some(TextFiles {
            tokenizer: "tokenizer.json".to_string(),
            tokenizer_config: None,
            chat_template: Some("chat_template.jinja".to_string()),
        });
    });
    let words: Vec<String> = (0..VOCAB).map(|id| format!(r#""w{id}": {id}"#)).collect();
    let tokenizer = format!(
        r#"{{"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": {{"type": "WhitespaceSplit"}},
            "post_processor": null, "decoder": null, "truncation": null, "padding": null,
            "model": {{"type": "WordLevel", "unk_token": "w0", "vocab": {{ {} }}}}}}"#,
        words.join(",")
    );
    std::fs::write(toy.file("tokenizer.json"), tokenizer).unwrap();
    std::fs::write(toy.file("chat_template.jinja"), TEMPLATE).unwrap();
    toy
}

fn words(ids: &[u32]) -> String {
    let words: Vec<String> = ids.iter().map(|id| format!("w{id}")).collect();
    words.join(" ")
}

fn run_model(toy: &Toy, command: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_run-model"))
        .arg(command)
        .arg(toy.path())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn stdout(toy: &Toy, command: &str, arguments: &[&str], input: &str) -> String {
    let output = run_model(toy, command, arguments, input);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn chat_keeps_its_state_and_answers_as_if_it_did_not() {
    let toy = toy();
    let mut conversation = vec![1, 5, 6, 2];
    let first = reference::generate(&conversation, 5);
    conversation.extend(&first);
    conversation.extend([1, 9, 2]);
    let second = reference::generate(&conversation, 5);
    let fresh = reference::generate(&[1, 9, 2], 5);
    let input = "w5 w6\n\nw9\n/reset\nw9\n/exit\nw3\n";
    let output = stdout(&toy, "chat", &["--max-tokens", "5"], input);
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines, [words(&first), words(&second), words(&fresh)]);
}

#[test]
fn a_full_context_is_told_and_the_chat_goes_on() {
    let toy = toy();
    let input = format!("{}\nw9\n", words(&[3; 20]));
    let output = run_model(&toy, "chat", &["--max-tokens", "3", "--context", "12"], &input);
    assert!(output.status.success());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("/reset"), "{errors}");
    let answer = reference::generate(&[1, 9, 2], 3);
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), words(&answer));
}

#[test]
fn a_prompt_goes_through_the_template_unless_raw() {
    let toy = toy();
    let answer = |arguments: &[&str]| {
        let arguments = [arguments, &["--max-tokens", "6"]].concat();
        stdout(&toy, "generate", &arguments, "")
    };
    let expected = reference::generate(&[1, 4, 2], 6);
    assert_eq!(answer(&["--prompt", "w4"]).trim(), words(&expected));
    let raw = reference::generate(&[4], 6);
    assert_eq!(answer(&["--prompt", "w4", "--raw"]).trim(), words(&raw));
    let stop = format!("w{}", raw[3]);
    let end = raw.iter().position(|id| *id == raw[3]).unwrap();
    let output = answer(&["--prompt", "w4", "--raw", "--stop", &stop]);
    assert_eq!(output.trim(), words(&raw[..end]));
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_generation_with_what_it_has() {
    let toy = Toy::with(|manifest| {
        manifest.model.max_context = 200_000;
        manifest.model.default_context = 200_000;
    });
    let mut child = Command::new(env!("CARGO_BIN_EXE_run-model"))
        .args(["generate", toy.path().to_str().unwrap(), "--ids", "1,2"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(child.try_wait().unwrap().is_none(), "it must still be running");
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupt.unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let text = String::from_utf8(output.stdout).unwrap();
    let ids: Vec<u32> = text.trim().split(',').map(|id| id.parse().unwrap()).collect();
    assert_eq!(ids, reference::generate(&[1, 2], ids.len()));
}
