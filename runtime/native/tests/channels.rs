//! Generated text told apart by what it is.
#![cfg(feature = "text")]

use std::collections::HashMap;
use std::sync::LazyLock;

use kiln_runtime::text::{ChannelEvent, ChannelStream, TextModel, Transcript};
use proptest::prelude::*;
use serde::Deserialize;

/// Read by the tests of the JavaScript package as well.
static CASES: LazyLock<Cases> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../cases/text/channels.json")).unwrap());

#[derive(Deserialize)]
struct Cases {
    /// Added tokens of the tokenizers.
    marks: HashMap<String, Vec<String>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    what: String,
    marks: String,
    opening: String,
    text: String,
    #[serde(default)]
    raw: bool,
    /// If any, one of them ends the text.
    #[serde(default)]
    stop: Vec<String>,
    /// Kind, channel, recipient and text of each message.
    said: Vec<(String, Option<String>, Option<String>, String)>,
}

/// The byte-level tokenizer of the fixtures with these added tokens and none of the others.
fn with_marks(name: &str) -> TextModel {
    let mut json: serde_json::Value = serde_json::from_str(include_str!("../../cases/text/byte_level.json")).unwrap();
    let added = json["added_tokens"].as_array_mut().unwrap();
    let is_mark = |content: &str| CASES.marks.values().flatten().any(|mark| mark == content);
    added.retain(|token| !is_mark(token["content"].as_str().unwrap()));
    for (id, mark) in (1000..).zip(&CASES.marks[name]) {
        // As in released files: harmony's are special tokens, those of reasoning are not.
        added.push(
            serde_json::json!({"id": id, "content": mark, "special": mark.starts_with("<|"), "normalized": false,
            "lstrip": false, "rstrip": false, "single_word": false}),
        );
    }
    TextModel::load(json.to_string().as_bytes(), None, None).unwrap()
}

static HARMONY: LazyLock<TextModel> = LazyLock::new(|| with_marks("harmony"));
static THINK: LazyLock<TextModel> = LazyLock::new(|| with_marks("think"));
static PLAIN: LazyLock<TextModel> = LazyLock::new(|| with_marks("none"));

/// What a stream makes of a text, and whether a stop text ended it.
fn read_from(mut stream: ChannelStream<'_>, model: &TextModel, text: &str) -> (Transcript, bool) {
    let mut transcript = Transcript::default();
    for id in model.encode(text, false).unwrap() {
        for event in stream.push(id).unwrap() {
            transcript.add(&event);
        }
    }
    let stopped = stream.stopped();
    for event in stream.finish().unwrap() {
        transcript.add(&event);
    }
    (transcript, stopped)
}

/// What comes of a text after an opening.
fn read(model: &TextModel, opening: &str, text: &str) -> Transcript {
    let opening = model.encode(opening, false).unwrap();
    read_from(ChannelStream::new(model, &opening, Vec::new()).unwrap(), model, text).0
}

#[test]
fn texts_are_told_apart_by_their_marks() {
    assert!(HARMONY.has_channels() && THINK.has_channels() && !PLAIN.has_channels());
    assert!(CASES.cases.len() > 20);
    for case in &CASES.cases {
        let model = match case.marks.as_str() {
            "harmony" => &HARMONY,
            "think" => &THINK,
            _ => &PLAIN,
        };
        let opening = model.encode(&case.opening, false).unwrap();
        let stream = match case.raw {
            true => ChannelStream::plain(model, case.stop.clone()),
            false => ChannelStream::new(model, &opening, case.stop.clone()).unwrap(),
        };
        let (transcript, stopped) = read_from(stream, model, &case.text);
        let said = serde_json::to_value(&transcript).unwrap();
        let expected: Vec<serde_json::Value> = (case.said.iter())
            .map(|(kind, channel, recipient, text)| {
                serde_json::json!({"kind": kind, "channel": channel, "recipient": recipient, "text": text})
            })
            .collect();
        assert_eq!(said, serde_json::Value::Array(expected), "{}", case.what);
        assert_eq!(stopped, !case.stop.is_empty(), "{}", case.what);
    }
}

#[test]
fn a_transcript_becomes_a_message_of_the_assistant() {
    let text = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>";
    let message = read(&HARMONY, "<|start|>assistant", text).message();
    assert_eq!((message.role.as_str(), message.content.as_str()), ("assistant", "Yes."));
    assert_eq!(message.reasoning.as_deref(), Some("Hm."));
    let message = read(&PLAIN, "", "Yes.").message();
    assert_eq!((message.content.as_str(), message.reasoning), ("Yes.", None));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the model says, every text comes in a message that was begun, and nothing panics.
    #[test]
    fn any_ids(ids in prop::collection::vec(0u32..430, 0..60)) {
        for model in [&*HARMONY, &*THINK, &*PLAIN] {
            for opening in 0..ids.len().min(8) {
                let mut stream = ChannelStream::new(model, &ids[..opening], vec!["the".to_string()]).unwrap();
                let mut events = Vec::new();
                for &id in &ids[opening..] {
                    events.extend(stream.push(id).unwrap());
                }
                events.extend(stream.finish().unwrap());
                prop_assert!(!matches!(events.first(), Some(ChannelEvent::Text(_))));
                prop_assert!(!events.contains(&ChannelEvent::Text(String::new())));
            }
        }
    }

    /// Messages of any text come out as they went in.
    #[test]
    fn any_messages(texts in prop::collection::vec("(\\PC|[ \n東🚀]){1,12}", 1..4)) {
        let mut said = String::new();
        for text in &texts {
            said += &format!("<|start|>assistant<|channel|>analysis<|message|>{text}<|end|>");
        }
        let read: Vec<String> = read(&HARMONY, "", &said).0.into_iter().map(|part| part.text).collect();
        prop_assert_eq!(read, texts);
    }
}
