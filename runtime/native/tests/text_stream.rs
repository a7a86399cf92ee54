//! Streamed text is the decoded text, whatever the ids.
#![cfg(feature = "text")]

use std::sync::LazyLock;

use kiln_runtime::text::{TextModel, TokenStream};
use proptest::prelude::*;

const BYTE_LEVEL: &str = include_str!("../../cases/text/byte_level.json");
const BYTE_FALLBACK: &str = include_str!("../../cases/text/byte_fallback.json");

/// The two fixtures and, made from the second, the decoders of Llama 2 and of SentencePiece unigram models.
static TOKENIZERS: LazyLock<Vec<TextModel>> = LazyLock::new(|| {
    let mut llama2: serde_json::Value = serde_json::from_str(BYTE_FALLBACK).unwrap();
    llama2["normalizer"] = serde_json::json!({"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]});
    llama2["decoder"]["decoders"]
        .as_array_mut()
        .unwrap()
        .push(serde_json::json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    let mut metaspace = llama2.clone();
    metaspace["decoder"] = serde_json::json!({"type": "Metaspace", "replacement": "▁",
        "prepend_scheme": "always", "split": true});
    let mut none = llama2.clone();
    none["decoder"] = serde_json::Value::Null;
    let texts = [llama2, metaspace, none].map(|json| json.to_string());
    [BYTE_LEVEL, BYTE_FALLBACK]
        .into_iter()
        .chain(texts.iter().map(String::as_str))
        .map(|json| TextModel::load(json.as_bytes(), None, None).unwrap())
        .collect()
});

fn byte_level() -> &'static TextModel {
    &TOKENIZERS[0]
}

fn byte_fallback() -> &'static TextModel {
    &TOKENIZERS[1]
}

/// All pieces, the last one from `finish`, and whether a stop string ended them.
fn pieces(model: &TextModel, ids: &[u32], stops: &[String]) -> (Vec<String>, bool) {
    let mut stream = TokenStream::new(model, stops.to_vec());
    let mut pieces = Vec::new();
    let mut stopped = false;
    for &id in ids {
        let pushed = stream.push(id).unwrap();
        assert!(
            !stopped || (pushed.stopped && pushed.text.is_empty()),
            "text after a stop"
        );
        stopped = pushed.stopped;
        pieces.push(pushed.text);
    }
    let rest = stream.finish().unwrap();
    assert!(!stopped || rest.is_empty());
    pieces.push(rest);
    (pieces, stopped)
}

/// The text before the stop string that is complete first, as one would write it for a whole text.
fn cut(text: &str, stops: &[String]) -> String {
    for end in (0..=text.len()).filter(|&end| text.is_char_boundary(end)) {
        let complete = stops
            .iter()
            .filter(|stop| !stop.is_empty() && text[..end].ends_with(*stop));
        if let Some(longest) = complete.map(String::len).max() {
            return text[..end - longest].to_string();
        }
    }
    text.to_string()
}

/// Cases that the tests of the JavaScript package read as well.
#[test]
fn a_stop_text_ends_the_answer_wherever_the_pieces_are_cut() {
    let cases: serde_json::Value = serde_json::from_str(include_str!("../../cases/text/stops.json")).unwrap();
    let model = byte_level();
    let ids = model.encode(cases["text"].as_str().unwrap(), false).unwrap();
    for case in cases["cases"].as_array().unwrap() {
        let stops: Vec<String> = serde_json::from_value(case["stop"].clone()).unwrap();
        assert_eq!(
            pieces(model, &ids, &stops).0.concat(),
            case["shown"].as_str().unwrap(),
            "{stops:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_ids(ids in prop::collection::vec(0u32..430, 0..60)) {
        for model in TOKENIZERS.iter() {
            let whole = model.decode(&ids, true).unwrap();
            prop_assert_eq!(pieces(model, &ids, &[]).0.concat(), whole);
        }
    }

    /// Tokens that are single bytes, where most sequences are no text.
    #[test]
    fn any_bytes(bytes in prop::collection::vec(prop_oneof![0u8..=255, Just(0xE6), Just(0x9D), Just(0xB1)], 0..40)) {
        let (level, fallback) = (byte_level(), byte_fallback());
        let fallback_ids: Vec<u32> = bytes.iter().map(|&byte| 4 + u32::from(byte)).collect();
        prop_assert_eq!(pieces(fallback, &fallback_ids, &[]).0.concat(), fallback.decode(&fallback_ids, true).unwrap());
        // The alphabet follows the four special tokens, in the order of its characters.
        let level_ids: Vec<u32> = bytes.iter().map(|&byte| 4 + u32::from(byte)).collect();
        prop_assert_eq!(pieces(level, &level_ids, &[]).0.concat(), level.decode(&level_ids, true).unwrap());
    }

    #[test]
    fn any_text(text in "(\\PC|[ \n\té—東🚀▁]|the model ){0,40}") {
        for model in TOKENIZERS.iter() {
            let ids = model.encode(&text, false).unwrap();
            let whole = model.decode(&ids, true).unwrap();
            let (pieces, _) = pieces(model, &ids, &[]);
            prop_assert_eq!(pieces.concat(), whole.clone());
            // No piece ends within a character.
            let replaced = |text: &str| text.matches('\u{FFFD}').count();
            prop_assert_eq!(pieces.iter().map(|piece| replaced(piece)).sum::<usize>(), replaced(&whole));
        }
    }

    /// Nothing is held back longer than it must be: at most one incomplete character.
    #[test]
    fn byte_level_text_comes_at_once(ids in prop::collection::vec(0u32..422, 0..40)) {
        let model = byte_level();
        let (pieces, _) = pieces(model, &ids, &[]);
        for pushed in 0..=ids.len() {
            let whole = model.decode(&ids[..pushed], true).unwrap();
            let shown = pieces[..pushed].concat();
            prop_assert!(shown == whole || format!("{shown}\u{FFFD}") == whole, "{shown:?} of {whole:?}");
        }
    }

    #[test]
    fn stop_strings(
        text in "[ab é\n]{0,30}",
        stops in prop::collection::vec("[ab é\n]{0,4}", 0..4),
    ) {
        for model in TOKENIZERS.iter() {
            let ids = model.encode(&text, false).unwrap();
            let whole = model.decode(&ids, true).unwrap();
            let (pieces, stopped) = pieces(model, &ids, &stops);
            let expected = cut(&whole, &stops);
            prop_assert_eq!(pieces.concat(), expected.clone());
            // What only `finish` completes cannot have stopped a push.
            prop_assert!(!stopped || expected != whole);
        }
    }
}

#[test]
fn stop_strings_span_tokens_and_are_held_back() {
    let model = byte_level();
    let ids = model.encode("the model stops here and not later", false).unwrap();
    let stop = "stops here".to_string();
    assert!(model.encode(&stop, false).unwrap().len() > 3);
    let (pieces, stopped) = pieces(model, &ids, &[stop]);
    assert!(stopped);
    assert_eq!(pieces.concat(), "the model ");
    assert!(pieces.iter().all(|piece| !piece.contains('s')));
}

#[test]
fn a_special_token_may_be_a_stop() {
    let model = byte_level();
    let ids = model.encode("the<|im_end|> model", false).unwrap();
    let (all, stopped) = pieces(model, &ids, &["<|end|>".to_string()]);
    assert_eq!((all.concat().as_str(), stopped), ("the model", false));
    let (all, stopped) = pieces(model, &ids, &["<|im_end|>".to_string()]);
    assert_eq!((all.concat().as_str(), stopped), ("the", true));
}

/// Decoding the whole text at each token would take minutes here.
#[test]
fn a_token_costs_the_same_in_a_long_text() {
    for model in TOKENIZERS.iter() {
        let ids = model.encode(&"the model 東京 🚀 ".repeat(10_000), false).unwrap();
        assert!(ids.len() > 50_000);
        assert_eq!(pieces(model, &ids, &[]).0.concat(), model.decode(&ids, true).unwrap());
    }
}
