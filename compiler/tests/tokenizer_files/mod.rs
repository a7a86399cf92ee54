//! Tokenizers of directories, against what transformers' `AutoTokenizer` makes of the same files
//! (`fixtures/tokenizers/make.py`), and files that are no tokenizers.

use base64::prelude::{BASE64_STANDARD, Engine};
use kiln_compiler::checkpoint::{Checkpoint, CheckpointError, TextAssets};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

fn fixture() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokenizers/cases.json");
    let mut fixture: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let contents = fixture["contents"].take();
    let mut cases: Vec<Value> = serde_json::from_value(fixture["cases"].take()).unwrap();
    for content in cases
        .iter_mut()
        .flat_map(|case| case["files"].as_object_mut().unwrap().values_mut())
    {
        *content = contents[content.as_u64().unwrap() as usize].clone();
    }
    cases
}

/// A directory with these files: text, JSON, or bytes as `{"base64": ..}`.
fn open(files: &Value) -> Result<Checkpoint, CheckpointError> {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files.as_object().unwrap() {
        let bytes = match content {
            Value::String(text) => text.clone().into_bytes(),
            Value::Object(object) if object.contains_key("base64") => {
                BASE64_STANDARD.decode(object["base64"].as_str().unwrap()).unwrap()
            }
            json => json.to_string().into_bytes(),
        };
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    Checkpoint::open(folder.path())
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn ids_and_names_are_those_of_auto_tokenizer() {
    let cases = fixture();
    assert!(cases.len() > 40);
    let mut wrong = Vec::new();
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let checkpoint = open(&case["files"]).unwrap();
        assert_eq!(checkpoint.warnings(), [""; 0], "{name}");
        let text = checkpoint.text().unwrap();
        let tokenizer: Tokenizer = text.tokenizer_json.parse().unwrap();
        for triple in case["ids"].as_array().unwrap() {
            for (special, expected) in [(true, &triple[1]), (false, &triple[2])] {
                let found = tokenizer.encode(triple[0].as_str().unwrap(), special).unwrap();
                if found.get_ids() != ids(expected) {
                    wrong.push(format!(
                        "{name}: {}: {expected}, found {:?}",
                        triple[0],
                        found.get_ids()
                    ));
                }
            }
        }
        let names: Value = serde_json::from_str(text.tokenizer_config_json.as_ref().unwrap()).unwrap();
        if names != case["special"] {
            wrong.push(format!("{name}: {}, found {names}", case["special"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The plainest tokenizer of the cases, as files.
fn plain() -> Value {
    fixture()[0]["files"].clone()
}

fn with(change: impl FnOnce(&mut Value)) -> Result<TextAssets, String> {
    let mut files = plain();
    change(&mut files);
    let checkpoint = open(&files).map_err(|error| error.to_string())?;
    Ok(checkpoint.text().unwrap().clone())
}

#[test]
fn files_of_another_kind_are_named() {
    for (content, says) in [
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9085657\n",
            "is a Git LFS pointer",
        ),
        ("<!DOCTYPE html><title>Log in</title>", "is a web page"),
        (" \n", "is empty"),
        ("{\"version\": \"1.0\", \"added_tokens\": [", "is cut off"),
        ("tokenizer", "not the JSON that is expected there"),
        ("[]", "is no JSON object"),
        ("{}", "has no model"),
        ("{\"bos_token\": \"<s>\"}", "has the entry \"bos_token\""),
        ("{\"version\": \"2.0\"}", "has version \"2.0\""),
    ] {
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            // Any JSON may stand in the config.
            if file == "tokenizer_config.json" && serde_json::from_str::<Value>(content).is_ok() {
                continue;
            }
            let error = with(|files| files[file] = content.into()).unwrap_err();
            assert!(
                error.contains(file) && error.contains(says),
                "{error}\nexpected: {says}"
            );
        }
    }
}

/// Everything that the `tokenizers` crate refuses, or panics over, is refused.
#[test]
fn what_no_runtime_can_use_is_refused() {
    let damages: [(&str, Value); 24] = [
        ("/model", Value::Null),
        ("/model/type", json!("Markov")),
        ("/model/vocab", Value::Null),
        ("/model/vocab", json!([])),
        ("/model/vocab/th", json!("th")),
        ("/model/vocab/th", json!(-1)),
        ("/model/merges", Value::Null),
        ("/model/merges", json!(["t"])),
        ("/model/merges", json!([["t", "q"]])),
        ("/model/merges", json!([["t", "h", "e"]])),
        ("/model/merges", json!(["no such"])),
        ("/added_tokens", Value::Null),
        ("/added_tokens", json!([{ "id": 1 }])),
        ("/added_tokens/0/id", json!("first")),
        ("/added_tokens/0/special", Value::Null),
        ("/pre_tokenizer", json!({ "type": "Scissors" })),
        ("/pre_tokenizer", json!({ "type": "Sequence" })),
        ("/pre_tokenizer", json!({ "type": "Sequence", "pretokenizers": [{}] })),
        ("/normalizer", json!("NFC")),
        ("/decoder", json!({ "type": "NFC" })),
        ("/post_processor", json!({ "type": "TemplateProcessing" })),
        (
            "/post_processor",
            json!({ "type": "TemplateProcessing", "special_tokens": {}, "pair": [],
                "single": [{ "SpecialToken": { "id": "<s>", "type_id": 0 } }] }),
        ),
        ("/model", json!({ "type": "Unigram", "vocab": [["a"]] })),
        (
            "/model",
            json!({ "type": "Unigram", "vocab": [["a", 0.5]], "unk_id": 1 }),
        ),
    ];
    for (place, damage) in damages {
        let mut tokenizer = plain()["tokenizer.json"].clone();
        *tokenizer.pointer_mut(place).unwrap() = damage.clone();
        let text = tokenizer.to_string();
        let opened = std::panic::catch_unwind(|| text.parse::<Tokenizer>()?.encode("the", true));
        assert!(!matches!(opened, Ok(Ok(_))), "{place} {damage} is no damage");
        let error = with(|files| files["tokenizer.json"] = tokenizer).unwrap_err();
        assert!(
            error.contains("tokenizer.json ") && error.contains("save_pretrained"),
            "{error}"
        );
    }
}

#[test]
fn a_tokenizer_that_is_not_read_is_told() {
    let warnings = |file: &str, content: &str| {
        let mut files = plain();
        files.as_object_mut().unwrap().remove("tokenizer.json");
        files[file] = content.into();
        let checkpoint = open(&files).unwrap();
        assert!(checkpoint.text().is_none());
        checkpoint.warnings().join("\n")
    };
    for (file, content) in [
        ("tokenizer.model", "\n\x05dummy"),
        ("tokenizer.model", "IQ== 0\nIg== 1\n"),
        ("tokenizer.model", ""),
        ("tekken.json", "{}"),
        ("vocab.txt", "[UNK]\n"),
        ("vocab.json", "{}"),
    ] {
        let warning = warnings(file, content);
        assert!(
            warning.contains(file) && warning.contains("save_pretrained"),
            "{warning}"
        );
    }
    assert_eq!(warnings("README.md", ""), "");
}

#[test]
fn chat_templates_are_found_where_they_lie() {
    let found = |changes: &[(&str, Value)]| {
        let mut files = plain();
        for (file, content) in changes {
            files[*file] = content.clone();
        }
        let checkpoint = open(&files).unwrap();
        (
            checkpoint.text().unwrap().chat_template.clone(),
            checkpoint.warnings().join("\n"),
        )
    };
    let one = |template: &str| (Some(template.to_string()), String::new());
    let config = |template: Value| {
        (
            "tokenizer_config.json",
            json!({ "bos_token": "<s>", "chat_template": template }),
        )
    };
    let named = json!([{ "name": "tool_use", "template": "two" }, { "name": "default", "template": "three" }]);
    let jinja = ("chat_template.jinja", json!("four"));
    let processor = ("chat_template.json", json!({ "chat_template": "five" }));
    let folder = |name: &'static str| (name, json!("six"));
    assert_eq!(found(&[config(json!("one"))]), one("one"));
    assert_eq!(found(&[config(named.clone())]), one("three"));
    assert_eq!(
        found(&[config(json!({ "default": "seven", "rag": "eight" }))]),
        one("seven")
    );
    assert_eq!(found(&[config(json!("one")), jinja.clone()]), one("four"));
    assert_eq!(found(std::slice::from_ref(&processor)), one("five"));
    assert_eq!(found(&[config(json!("one")), processor]), one("one"));
    assert_eq!(
        found(&[config(json!("one")), folder("additional_chat_templates/default.jinja")]),
        one("six")
    );
    assert_eq!(
        found(&[jinja, folder("additional_chat_templates/rag.jinja")]),
        one("four")
    );
    assert_eq!(found(&[]), (None, String::new()));
    for none in [
        config(json!([{ "name": "rag", "template": "eight" }])),
        folder("additional_chat_templates/rag.jinja"),
    ] {
        let (template, warning) = found(&[none]);
        assert!(
            template.is_none() && warning.contains("chat templates rag and none called default"),
            "{warning}"
        );
    }
}
