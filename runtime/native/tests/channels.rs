//! Generated text told apart by what it is.
#![cfg(feature = "text")]

use std::sync::LazyLock;

use kiln_runtime::text::{ChannelEvent, ChannelKind, ChannelStream, ChannelText, TextModel, Transcript};
use proptest::prelude::*;

const MARKS: [&str; 9] = [
    "<|start|>",
    "<|channel|>",
    "<|message|>",
    "<|constrain|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<think>",
    "</think>",
];

/// The byte-level tokenizer of the fixtures with these added tokens.
fn with_marks(marks: &[&str]) -> TextModel {
    let mut json: serde_json::Value = serde_json::from_str(include_str!("../../cases/text/byte_level.json")).unwrap();
    let added = json["added_tokens"].as_array_mut().unwrap();
    added.retain(|token| !MARKS.contains(&token["content"].as_str().unwrap()));
    for (id, mark) in (1000..).zip(marks) {
        // As in released files: harmony's are special tokens, those of reasoning are not.
        added.push(
            serde_json::json!({"id": id, "content": mark, "special": mark.starts_with("<|"), "normalized": false,
            "lstrip": false, "rstrip": false, "single_word": false}),
        );
    }
    TextModel::load(json.to_string().as_bytes(), None, None).unwrap()
}

static HARMONY: LazyLock<TextModel> = LazyLock::new(|| with_marks(&MARKS[..7]));
static THINK: LazyLock<TextModel> = LazyLock::new(|| with_marks(&MARKS[7..]));
static PLAIN: LazyLock<TextModel> = LazyLock::new(|| with_marks(&[]));

/// What comes of a text after an opening, and whether a stop text ended it.
fn read(model: &TextModel, opening: &str, text: &str, stops: &[&str]) -> (Transcript, bool) {
    let stops = stops.iter().map(ToString::to_string).collect();
    let opening = model.encode(opening, false).unwrap();
    let mut stream = ChannelStream::new(model, &opening, stops).unwrap();
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

/// `kind name>recipient: text` of each message.
fn lines(model: &TextModel, opening: &str, text: &str) -> Vec<String> {
    let line = |part: &ChannelText| {
        let channel = &part.channel;
        let name = channel.name.as_deref().unwrap_or("-");
        let recipient = channel
            .recipient
            .as_ref()
            .map(|to| format!(">{to}"))
            .unwrap_or_default();
        format!("{:?} {name}{recipient}: {}", channel.kind, part.text)
    };
    read(model, opening, text, &[]).0.0.iter().map(line).collect()
}

#[test]
fn harmony_messages_are_told_apart() {
    assert!(HARMONY.has_channels());
    let answer = "<|channel|>analysis<|message|>France,\nso Paris.\n<|end|><|start|>assistant<|channel|>final<|message|>\
                  Paris — 東京.<|return|>";
    let expected = [
        "Reasoning analysis: France,\nso Paris.\n",
        "Answer final: Paris — 東京.",
    ];
    assert_eq!(lines(&HARMONY, "<|start|>assistant", answer), expected);
    // The opening may also be the whole prompt, or nothing.
    let prompt = "<|start|>system<|message|>You are.<|end|><|start|>user<|message|>Where?<|end|><|start|>assistant";
    assert_eq!(lines(&HARMONY, prompt, answer), expected);
    let whole = format!("<|start|>assistant{answer}");
    assert_eq!(lines(&HARMONY, "", &whole), expected);
}

#[test]
fn harmony_calls_name_their_tool() {
    let call = |header: &str| {
        let text = format!("{header}<|message|>{{\"city\": \"Paris\"}}<|call|>");
        lines(&HARMONY, "<|start|>assistant", &text)
    };
    let expected = [r#"ToolCall commentary>functions.weather: {"city": "Paris"}"#];
    // The recipient stands behind the channel or behind the role; the content type may be missing.
    assert_eq!(
        call("<|channel|>commentary to=functions.weather <|constrain|>json"),
        expected
    );
    assert_eq!(call("<|channel|>commentary to=functions.weather"), expected);
    assert_eq!(
        call(" to=functions.weather<|channel|>commentary <|constrain|>json"),
        expected
    );
    assert_eq!(call(" to=functions.weather<|channel|>commentary json"), expected);
    let python = "<|channel|>analysis to=python code<|message|>1 + 1<|call|>";
    assert_eq!(
        lines(&HARMONY, "<|start|>assistant", python),
        ["ToolCall analysis>python: 1 + 1"]
    );
    // A call without arguments is one, too.
    let empty = "<|channel|>commentary to=functions.now<|message|><|call|>";
    assert_eq!(
        lines(&HARMONY, "<|start|>assistant", empty),
        ["ToolCall commentary>functions.now: "]
    );
    // A preamble for the user before it.
    let text = "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>commentary to=a<|message|>1<|call|>";
    let expected = ["Commentary commentary: I look.", "ToolCall commentary>a: 1"];
    assert_eq!(lines(&HARMONY, "<|start|>assistant", text), expected);
}

#[test]
fn harmony_that_is_not_as_specified_loses_no_text() {
    let cases: [(&str, &str, &[&str]); 6] = [
        (
            "<|start|>assistant",
            "<|message|>No channel.<|return|>",
            &["Answer -: No channel."],
        ),
        ("", "No header at all.", &["Answer -: No header at all."]),
        ("", "<|channel|>final<|message|>No start.", &["Answer final: No start."]),
        (
            "<|start|>assistant",
            "<|channel|>analysis<|message|>Not<|constrain|> ended<|channel|>final<|message|>yes",
            &["Reasoning analysis: Not ended", "Answer final: yes"],
        ),
        (
            "<|start|>assistant",
            "<|channel|>final<|message|>a<|end|>behind it",
            &["Answer final: a", "Answer -: behind it"],
        ),
        (
            "<|start|>assistant",
            "<|channel|>notes<|message|>x",
            &["Commentary notes: x"],
        ),
    ];
    for (opening, text, expected) in cases {
        assert_eq!(lines(&HARMONY, opening, text), expected, "{text}");
    }
    // Cut off in the header.
    assert!(lines(&HARMONY, "<|start|>assistant", "<|channel|>final").is_empty());
}

#[test]
fn reasoning_stands_between_its_tokens() {
    assert!(THINK.has_channels());
    let expected = ["Reasoning -: France,\n\nso Paris.", "Answer -: Paris.\n"];
    let answer = "<think>\nFrance,\n\nso Paris.\n</think>\n\nParis.\n";
    assert_eq!(lines(&THINK, "<|im_start|>assistant\n", answer), expected);
    // Where the template has opened it already.
    let (_, open) = answer.split_at("<think>\n".len());
    assert_eq!(lines(&THINK, "<|im_start|>assistant\n<think>\n", open), expected);
    // Told not to think; an answer at once; only thought.
    let closed = "<|im_start|>assistant\n<think>\n\n</think>\n\n";
    assert_eq!(lines(&THINK, closed, "\nParis."), ["Answer -: Paris."]);
    assert_eq!(lines(&THINK, "", "<think>\n\n</think>\n\nParis."), ["Answer -: Paris."]);
    assert_eq!(lines(&THINK, "", "\nParis."), ["Answer -: \nParis."]);
    assert_eq!(lines(&THINK, "", "<think>\nHm.\n"), ["Reasoning -: Hm."]);
}

#[test]
fn models_without_marks_only_answer() {
    assert!(!PLAIN.has_channels());
    let text = "<|channel|>final<|message|> and <think> are text\n";
    assert_eq!(lines(&PLAIN, "", text), [format!("Answer -: {text}")]);
}

#[test]
fn stop_texts_end_the_answer_only() {
    let text = "<|channel|>analysis<|message|>one stop two<|end|><|start|>assistant<|channel|>final<|message|>\
                three stop four<|return|>";
    let (transcript, stopped) = read(&HARMONY, "<|start|>assistant", text, &["stop"]);
    assert!(stopped);
    assert_eq!(transcript.text_of(ChannelKind::Reasoning).unwrap(), "one stop two");
    assert_eq!(transcript.text_of(ChannelKind::Answer).unwrap(), "three ");
    // A mark may be one.
    let (transcript, stopped) = read(&HARMONY, "<|start|>assistant", text, &["<|end|>"]);
    assert!(stopped);
    assert_eq!(transcript.text_of(ChannelKind::Answer), None);
}

#[test]
fn a_transcript_becomes_a_message_of_the_assistant() {
    let text = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>";
    let message = read(&HARMONY, "<|start|>assistant", text, &[]).0.message();
    assert_eq!((message.role.as_str(), message.content.as_str()), ("assistant", "Yes."));
    assert_eq!(message.reasoning.as_deref(), Some("Hm."));
    let message = read(&PLAIN, "", "Yes.", &[]).0.message();
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
        let read: Vec<String> = read(&HARMONY, "", &said, &[]).0.0.into_iter().map(|part| part.text).collect();
        prop_assert_eq!(read, texts);
    }
}
