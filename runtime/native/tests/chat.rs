//! Text in and out of `run-model`, with the toy model and a tokenizer of 17 words.
#![cfg(feature = "cli")]

mod common;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use common::{Toy, VOCAB, reference};
use kiln_bundle::{TextFile, TextFiles};
use serde_json::json;

/// A user's words come after w1, the assistant's after w2.
const TEMPLATE: &str = "{% for message in messages %}{{ 'w1' if message.role == 'user' else 'w2' }} \
                        {{ message.content }} {% endfor %}{% if add_generation_prompt %}w2{% endif %}";

fn toy() -> Toy {
    with_template(TEMPLATE)
}

fn with_template(template: &str) -> Toy {
    let words: Vec<String> = (0..VOCAB).map(|id| format!(r#""w{id}": {id}"#)).collect();
    let tokenizer = format!(
        r#"{{"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": {{"type": "WhitespaceSplit"}},
            "post_processor": null, "decoder": null, "truncation": null, "padding": null,
            "model": {{"type": "WordLevel", "unk_token": "w0", "vocab": {{ {} }}}}}}"#,
        words.join(",")
    );
    let mut toy = Toy::new();
    set_text(&mut toy, &tokenizer, template);
    toy
}

/// Gives a toy these text files, and their checksums.
fn set_text(toy: &mut Toy, tokenizer: &str, template: &str) {
    let write = |name: &str, text: &str| {
        std::fs::write(toy.file(name), text).unwrap();
        TextFile::of(name, text.as_bytes())
    };
    toy.manifest.text = Some(TextFiles {
        tokenizer: write("tokenizer.json", tokenizer),
        tokenizer_config: None,
        chat_template: Some(write("chat_template.jinja", template)),
    });
    toy.save();
}

/// A toy that says what it is told to, token by token in each answer, with a tokenizer that has harmony's marks.
struct Scripted {
    toy: Toy,
}

const HARMONY_WORDS: [&str; VOCAB as usize] = [
    "w0",
    "<|start|>",
    "<|channel|>",
    "<|message|>",
    "<|constrain|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "assistant",
    "analysis",
    "final",
    "commentary",
    "user",
    "hello",
    "hm",
    "high",
    "to=f",
];

const HARMONY_TEMPLATE: &str = "{% if reasoning_effort is defined %}{{ reasoning_effort }} {% endif %}\
    {% for message in messages %}<|start|> {{ message.role }} \
    {% if message.role == 'assistant' %}<|channel|> final {% endif %}<|message|> {{ message.content }} <|end|> {% endfor %}\
    {% if add_generation_prompt %}<|start|> assistant{% if extra %} {{ extra }}{% endif %}{% endif %}";

fn harmony_ids(text: &str) -> Vec<u32> {
    let id = |word| HARMONY_WORDS.iter().position(|known| *known == word).unwrap() as u32;
    text.split_whitespace().map(id).collect()
}

impl Scripted {
    fn new(script: &str) -> Self {
        let script = harmony_ids(script);
        let mut toy = toy();
        let kernel = std::fs::read_to_string(toy.file("kernels/pick.wgsl")).unwrap();
        let list: Vec<String> = script.iter().map(|id| format!("{id}u")).collect();
        let count = script.len();
        let say = format!("var script = array<u32, {count}>({});", list.join(", "));
        let next = format!(
            "{say} best = script[min(step[3], {}u)]; output[step[3] % 8u] = best;",
            count - 1
        );
        toy.set_kernel("pick", &kernel.replace("output[step[3] % 8u] = best;", &next));
        // What ends generation stands in generation_config.json: not the end of every message.
        toy.manifest.model.eos_token_ids = vec![6, 7];
        let words = (0..).zip(HARMONY_WORDS);
        let vocab: serde_json::Map<String, serde_json::Value> =
            words.clone().map(|(id, word)| (word.to_string(), json!(id))).collect();
        let marks: Vec<serde_json::Value> = words
            .filter(|(_, word)| word.starts_with('<'))
            .map(|(id, word)| {
                json!({"id": id, "content": word, "special": true, "normalized": false,
                    "lstrip": false, "rstrip": false, "single_word": false})
            })
            .collect();
        let tokenizer = json!({"version": "1.0", "added_tokens": marks, "normalizer": null,
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null, "truncation": null,
            "padding": null, "model": {"type": "WordLevel", "unk_token": "w0", "vocab": vocab}});
        set_text(&mut toy, &tokenizer.to_string(), HARMONY_TEMPLATE);
        Self { toy }
    }

    fn run(&self, command: &str, arguments: &[&str], input: &str) -> String {
        stdout(&self.toy, command, arguments, input)
    }
}

const THOUGHT: &str = "<|channel|> analysis <|message|> hm hm <|end|> <|start|> assistant \
                       <|channel|> final <|message|> hello <|return|>";
const CALL: &str = "<|channel|> analysis <|message|> hm <|end|> <|start|> assistant \
                    <|channel|> commentary to=f <|constrain|> w0 <|message|> hello hm <|call|>";

fn words(ids: &[u32]) -> String {
    let words: Vec<String> = ids.iter().map(|id| format!("w{id}")).collect();
    words.join(" ")
}

fn run_model(toy: &Toy, command: &str, arguments: &[&str], input: impl AsRef<[u8]>) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_run-model"))
        // Twelve hours behind UTC: never the same hour of the day, and nobody's own zone.
        .env("TZ", "Etc/GMT+12")
        .arg(command)
        .arg(toy.path())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that refuses its arguments or the bundle ends without reading.
    let _ = child.stdin.take().unwrap().write_all(input.as_ref());
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
    let arguments = ["--max-tokens", "3", "--context", "12"];
    let output = run_model(&toy, "chat", &arguments, &input);
    assert!(output.status.success());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("/reset"), "{errors}");
    let answer = words(&reference::generate(&[1, 9, 2], 3));
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), answer);

    let json = stdout(&toy, "chat", &[&arguments[..], &["--json"]].concat(), &input);
    let lines: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{json}");
    assert!(lines[0]["error"].as_str().unwrap().contains("/reset"), "{json}");
    assert_eq!(lines[1]["text"], answer.as_str());
}

#[test]
fn a_line_that_is_no_message_is_told_and_the_chat_goes_on() {
    let toy = toy();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("session");
    let arguments = ["--max-tokens", "2", "--json", "--session", file.to_str().unwrap()];
    let output = run_model(&toy, "chat", &arguments, b"w5\n\xff\n/hlep w3\n/help\n//w3\nw6\n");
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let error = |line: usize| lines[line]["error"].as_str().unwrap_or_default();
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert!(error(1).contains("UTF-8"), "{lines:?}");
    assert!(error(2).contains("/hlep") && error(2).contains("/reset"), "{lines:?}");
    assert!(
        [0, 3, 4].iter().all(|&line| lines[line]["text"].is_string()),
        "{lines:?}"
    );
    let saved = kiln_runtime::SavedSession::read_file(&file).unwrap();
    let messages = saved.note()["messages"].as_array().unwrap();
    let said: Vec<&str> = messages
        .iter()
        .step_by(2)
        .map(|message| message["content"].as_str().unwrap())
        .collect();
    assert_eq!(said, ["w5", "/w3", "w6"]);
}

#[test]
fn what_ends_a_chat_leaves_what_was_said() {
    let template = format!(
        "{TEMPLATE}{{% if messages[-1].content == 'w7' %}}{{{{ raise_exception('not w7') }}}}{{% endif %}}\
         {{% if messages[-1].content == 'w8' %}}{{{{ nosuch() }}}}{{% endif %}}"
    );
    let toy = with_template(&template);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("session");
    let arguments = ["--max-tokens", "2", "--json", "--session", file.to_str().unwrap()];
    // The template refuses the second message, and breaks at the fourth.
    let output = run_model(&toy, "chat", &arguments, "w5\nw7\nw6\nw8\nw9\n");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[1]["error"].as_str().unwrap().contains("not w7"), "{lines:?}");
    let saved = kiln_runtime::SavedSession::read_file(&file).unwrap();
    assert_eq!(saved.note()["messages"].as_array().unwrap().len(), 4);
}

#[test]
fn a_template_that_cannot_be_used_is_an_error() {
    let toy = with_template("{% for message in messages %}w1{% endfo %}");
    for (command, arguments) in [("generate", &["--prompt", "w4"][..]), ("chat", &[])] {
        // It ends before it reads anything.
        let output = run_model(&toy, command, arguments, "");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{errors}");
        assert!(
            errors.contains("chat_template:1") && errors.contains("endfo"),
            "{errors}"
        );
    }
    let raw = stdout(&toy, "generate", &["--prompt", "w4", "--raw", "--max-tokens", "3"], "");
    assert_eq!(raw.trim(), words(&reference::generate(&[4], 3)));
}

#[test]
fn templates_see_the_date_in_local_time() {
    let toy = with_template("w{{ strftime_now('%H') | int % 16 }}");
    let hour = || {
        let since_1970 = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        (since_1970.as_secs() / 3600 + 12) % 24
    };
    let before = hour();
    let json = stdout(&toy, "generate", &["--prompt", "w4", "--max-tokens", "1", "--json"], "");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let possible = [before, hour()].map(|hour| json!([hour % 16]));
    assert!(possible.contains(&json["prompt_ids"]), "{json}, not {possible:?}");
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

#[test]
fn chat_tells_channels_apart() {
    let model = Scripted::new(THOUGHT);
    assert_eq!(
        model.run("chat", &[], "hello\nhm\n"),
        "[analysis] hm hm\nhello\n".repeat(2)
    );
    assert_eq!(model.run("chat", &["--hide-reasoning"], "hello\n"), "hello\n");
    assert_eq!(
        model.run("generate", &["--prompt", "hello"], ""),
        "[analysis] hm hm\nhello\n"
    );
    let raw = model.run("generate", &["--prompt", "hello", "--raw"], "");
    assert_eq!(raw, "analysis hm hm assistant final hello\n");
    assert_eq!(model.run("chat", &["--stop", "hello"], "hello\n"), "[analysis] hm hm\n");

    let json = model.run("chat", &["--json"], "hello\nhm\n");
    let turns: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let channels = json!([
        {"kind": "reasoning", "channel": "analysis", "recipient": null, "text": "hm hm"},
        {"kind": "answer", "channel": "final", "recipient": null, "text": "hello"},
    ]);
    for turn in &turns {
        assert_eq!((&turn["text"], &turn["channels"]), (&"hello".into(), &channels));
        // `<|end|>` ends a message, `<|return|>` the answer.
        assert_eq!(
            (&turn["stop"], &turn["ids"]),
            (&"end_of_text".into(), &json!(harmony_ids(THOUGHT)))
        );
    }
    // What was thought is left out of the second prompt, and what comes before it not computed again, though the ring
    // has gone around since.
    assert_eq!(turns[1]["prompt_tokens"], 5 + 7 + 5 + 2);
    assert_eq!(turns[1]["reused_tokens"], 5);

    let calls = Scripted::new(CALL);
    assert_eq!(calls.run("chat", &[], "hello\n"), "[analysis] hm\n[call f] hello hm\n");
}

#[test]
fn the_history_is_as_the_template_has_it() {
    let model = Scripted::new(THOUGHT);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("session");
    let arguments = ["--session", file.to_str().unwrap(), "--reasoning", "high"];
    model.run("chat", &arguments, "hello\nhm\n");
    let saved = kiln_runtime::SavedSession::read_file(&file).unwrap();
    let prompt = "high <|start|> user <|message|> hello <|end|> <|start|> assistant <|channel|> final <|message|> hello <|end|> \
                  <|start|> user <|message|> hm <|end|> <|start|> assistant";
    let mut expected = [harmony_ids(prompt), harmony_ids(THOUGHT)].concat();
    // The end token is not in the state.
    expected.pop();
    assert_eq!(saved.tokens(), expected);
    assert_eq!(saved.note()["messages"][1]["reasoning"], "hm hm");
}

#[test]
fn template_arguments_reach_the_template() {
    let model = Scripted::new("hello <|return|>");
    let ids = |arguments: &[&str]| {
        let arguments = [&["--prompt", "hm", "--json"], arguments].concat();
        let json: serde_json::Value = serde_json::from_str(&model.run("generate", &arguments, "")).unwrap();
        json["prompt_ids"].clone()
    };
    let plain = "<|start|> user <|message|> hm <|end|> <|start|> assistant";
    assert_eq!(ids(&[]), json!(harmony_ids(plain)));
    assert_eq!(
        ids(&["--reasoning", "high"]),
        json!(harmony_ids(&format!("high {plain}")))
    );
    assert_eq!(
        ids(&["--template-arg", "extra=hello"]),
        json!(harmony_ids(&format!("{plain} hello")))
    );
    // JSON where it is JSON.
    assert_eq!(ids(&["--template-arg", "extra=false"]), json!(harmony_ids(plain)));
    for wrong in [
        ["--reasoning", "much"],
        ["--template-arg", "extra"],
        ["--template-arg", "=1"],
    ] {
        let arguments = [&["--prompt", "hm"], &wrong[..]].concat();
        assert_eq!(
            run_model(&model.toy, "generate", &arguments, "").status.code(),
            Some(2),
            "{wrong:?}"
        );
    }
}

#[test]
fn a_conversation_goes_on_from_its_file() {
    let toy = toy();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chat.session");
    let arguments = ["--max-tokens", "5", "--session", file.to_str().unwrap()];
    let whole = stdout(&toy, "chat", &["--max-tokens", "5"], "w5 w6\nw9\nw3\n");
    let parts = [
        stdout(&toy, "chat", &arguments, "w5 w6\n"),
        stdout(&toy, "chat", &arguments, "w9\nw3\n"),
    ];
    assert_eq!(parts.concat(), whole);
    let reset = stdout(&toy, "chat", &arguments, "/reset\nw9\n");
    assert_eq!(reset.trim(), words(&reference::generate(&[1, 9, 2], 5)));
    let other = run_model(&toy, "chat", &[&arguments[..], &["--system", "w8"]].concat(), "w9\n");
    assert!(String::from_utf8_lossy(&other.stderr).contains("--system"));
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn a_prompt_computes_only_what_its_file_has_not() {
    let toy = toy();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("session");
    let run = |ids: &[u32]| {
        let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
        let ids = ids.join(",");
        let file = file.to_str().unwrap();
        let arguments = ["--ids", &ids, "--max-tokens", "4", "--json", "--session", file];
        let json = stdout(&toy, "generate", &arguments, "");
        serde_json::from_str::<serde_json::Value>(&json).unwrap()
    };
    let first = [3, 1, 4, 1, 5, 9];
    let answer = reference::generate(&first, 4);
    assert_eq!(run(&first)["reused_tokens"], 0);
    let second = [&first[..], &answer, &[7, 7]].concat();
    let json = run(&second);
    // The last token of the answer is not in the state.
    assert_eq!(json["reused_tokens"], 9);
    assert_eq!(json["ids"], json!(reference::generate(&second, 4)));
    // A shorter prompt than the file's still fits.
    let json = run(&first);
    assert_eq!(json["ids"], json!(answer));

    let other = Toy::with(|manifest| manifest.model.name = "other".to_string());
    let arguments = ["--ids", "1", "--session", file.to_str().unwrap()];
    let error = run_model(&other, "generate", &arguments, "");
    let text = String::from_utf8_lossy(&error.stderr).into_owned();
    assert!(
        error.status.code() == Some(1) && text.contains("with another model"),
        "{text}"
    );
    std::fs::write(&file, "no session").unwrap();
    let error = run_model(&toy, "generate", &arguments, "");
    let text = String::from_utf8_lossy(&error.stderr).into_owned();
    assert!(
        error.status.code() == Some(1) && text.contains("is not a saved session"),
        "{text}"
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "no session");
}
