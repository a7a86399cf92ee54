//! Tokenizing and chat templates against what Hugging Face's Python packages make of the same input
//! (`text/make_fixtures.py`).
#![cfg(feature = "text")]

use kiln_runtime::text::{Message, TextError, TextModel};
use proptest::prelude::*;
use serde::Deserialize;

const BYTE_LEVEL: &[u8] = include_bytes!("../../cases/text/byte_level.json");
const BYTE_FALLBACK: &[u8] = include_bytes!("../../cases/text/byte_fallback.json");
const CONFIG: &str = r#"{"bos_token": "<|begin|>", "eos_token": {"content": "<|im_end|>", "lstrip": false},
    "pad_token": "<|end|>", "unk_token": null, "add_bos_token": true}"#;

fn template(name: &str) -> &'static str {
    match name {
        "smollm2" => include_str!("../../cases/text/templates/smollm2.jinja"),
        "llama3" => include_str!("../../cases/text/templates/llama3.jinja"),
        "qwen3" => include_str!("../../cases/text/templates/qwen3.jinja"),
        "gemma3" => include_str!("../../cases/text/templates/gemma3.jinja"),
        "harmony" => include_str!("../../cases/text/templates/harmony.jinja"),
        "expressions" => include_str!("../../cases/text/templates/expressions.jinja"),
        "features" => include_str!("../../cases/text/templates/features.jinja"),
        other => panic!("no template {other}"),
    }
}

fn with_template(source: &str) -> TextModel {
    TextModel::load(BYTE_LEVEL, Some(CONFIG), Some(source)).unwrap()
}

fn messages(roles_and_contents: &[(&str, &str)]) -> Vec<Message> {
    let message = |&(role, content): &(&str, &str)| Message::new(role, content);
    roles_and_contents.iter().map(message).collect()
}

#[test]
fn templates_render_as_in_transformers() {
    #[derive(Deserialize)]
    struct Fixture {
        now: u64,
        renders: Vec<Render>,
    }
    #[derive(Deserialize)]
    struct Render {
        template: String,
        chat: String,
        messages: Vec<Message>,
        arguments: serde_json::Map<String, serde_json::Value>,
        add_generation_prompt: bool,
        /// Null where the template raised.
        text: Option<String>,
    }
    let fixture: Fixture = serde_json::from_str(include_str!("../../cases/text/renders.json")).unwrap();
    assert!(fixture.renders.len() > 90);
    for render in fixture.renders {
        let mut model = with_template(template(&render.template));
        model.set_now(fixture.now);
        for (name, value) in render.arguments.clone() {
            model.set_template_argument(name, value);
        }
        let rendered = model.render_chat(&render.messages, render.add_generation_prompt);
        let what = format!("{}, {} {:?}", render.template, render.chat, render.arguments);
        match render.text {
            Some(expected) => assert_eq!(rendered.unwrap(), expected, "{what}"),
            None => assert!(matches!(rendered, Err(TextError::ChatRefused { .. })), "{what}"),
        }
    }
}

#[test]
fn ids_and_text_are_those_of_the_python_tokenizers() {
    #[derive(Deserialize)]
    struct Case {
        text: String,
        ids: Vec<u32>,
        with_special: Vec<u32>,
        decoded: String,
        plain: String,
    }
    #[derive(Deserialize)]
    struct Fixture {
        byte_level: Vec<Case>,
        byte_fallback: Vec<Case>,
    }
    let fixture: Fixture = serde_json::from_str(include_str!("../../cases/text/encodings.json")).unwrap();
    for (tokenizer, cases) in [(BYTE_LEVEL, fixture.byte_level), (BYTE_FALLBACK, fixture.byte_fallback)] {
        let model = TextModel::load(tokenizer, None, None).unwrap();
        for case in cases {
            assert_eq!(model.encode(&case.text, false).unwrap(), case.ids, "{:?}", case.text);
            assert_eq!(model.encode(&case.text, true).unwrap(), case.with_special);
            assert_eq!(model.decode(&case.ids, false).unwrap(), case.decoded);
            assert_eq!(model.decode(&case.ids, true).unwrap(), case.plain);
        }
    }
}

#[test]
fn a_chat_has_its_special_tokens_once() {
    let model = with_template("{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}");
    let begin = model.encode("<|begin|>", false).unwrap();
    assert_eq!(begin.len(), 1);
    let ids = model.encode_chat(&messages(&[("user", "the model")]), true).unwrap();
    assert_eq!(ids.iter().filter(|&&id| id == begin[0]).count(), 1);
    assert_eq!(model.encode("the model", true).unwrap(), ids);
}

#[test]
fn truncation_and_padding_in_the_file_do_not_cut_prompts() {
    let mut json: serde_json::Value = serde_json::from_slice(BYTE_LEVEL).unwrap();
    json["truncation"] = serde_json::json!({"direction": "Right", "max_length": 2,
        "strategy": "LongestFirst", "stride": 0});
    json["padding"] = serde_json::json!({"strategy": {"Fixed": 64}, "direction": "Right",
        "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "<|begin|>"});
    let model = TextModel::load(json.to_string().as_bytes(), None, None).unwrap();
    let plain = TextModel::load(BYTE_LEVEL, None, None).unwrap();
    let text = "The quick brown fox jumps.";
    assert_eq!(model.encode(text, false).unwrap(), plain.encode(text, false).unwrap());
}

#[test]
fn a_template_may_stand_in_the_tokenizer_config() {
    let single = r#"{"chat_template": "single {{ messages[0].content }}"}"#;
    let named = r#"{"chat_template": [{"name": "tool_use", "template": "no"},
        {"name": "default", "template": "named {{ messages[0].content }}"}]}"#;
    let chat = messages(&[("user", "x")]);
    for (config, expected) in [(single, "single x"), (named, "named x")] {
        let model = TextModel::load(BYTE_LEVEL, Some(config), None).unwrap();
        assert_eq!(model.render_chat(&chat, false).unwrap(), expected);
        let model = TextModel::load(BYTE_LEVEL, Some(config), Some("file")).unwrap();
        assert_eq!(model.render_chat(&chat, false).unwrap(), "file");
    }
    for unusable in [
        r#"{"chat_template": [{"name": "tool_use", "template": "x"}]}"#,
        r#"{"chat_template": 3}"#,
    ] {
        let model = TextModel::load(BYTE_LEVEL, Some(unusable), None).unwrap();
        assert!(model.has_chat_template());
        let error = model.render_chat(&chat, false).unwrap_err().to_string();
        assert!(error.contains("`default`"), "{error}");
    }
    let none = TextModel::load(BYTE_LEVEL, Some(r#"{"chat_template": null}"#), None).unwrap();
    assert!(!none.has_chat_template());
}

#[test]
fn a_template_without_end_is_an_error() {
    for endless in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set n = namespace(x='12345678') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x='12345678') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x=[1, 2]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{{ 'x' * 1000000000000 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ] {
        let rendered = with_template(endless).render_chat(&messages(&[("user", "Hi")]), true);
        assert!(matches!(rendered, Err(TextError::ChatTemplate { .. })), "{endless}");
    }
}

#[test]
fn a_template_that_makes_much_of_little_is_an_error() {
    const LITTLE: &str = "{% set x = 'x' * 99999 %}{% set many = [x] * 9999 %}";
    for much in [
        "{{ x.replace('x', x) }}",
        "{{ x | replace('x', x) }}",
        "{{ many | join }}",
        "{{ ''.join(many) }}",
        "{{ x.join(x) }}",
        "{{ many }}",
        "{{ many ~ '' }}",
        "{{ many | tojson }}",
        "{{ {'a': many}.values() }}",
        "{{ ('\\n' * 9999) | indent(x, blank=true) }}",
        "{{ ('%(a)s' * 9999) % {'a': x} }}",
        "{{ ('%(a)999999d' * 9999) % {'a': 1} }}",
        "{{ ('{0}' * 9999).format(x) }}",
        "{{ ('\\t' * 99999).expandtabs(1000) }}",
        "{{ ''.ljust(99999999) }}",
        "{{ '' | center(99999999) }}",
        "{{ (' ' * 9999999).split(' ') | length }}",
        "{{ ('\\n' * 9999999).splitlines() | length }}",
        "{{ strftime_now('%c' * 9999999) }}",
        "{% set n = namespace(x=[x]) %}{% for i in range(40) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
        "{% set n = namespace(x=[]) %}{% for i in range(99999) %}{% set n.x = [x ~ i] + n.x %}{% endfor %}",
    ] {
        let rendered = with_template(&format!("{LITTLE}{much}")).render_chat(&messages(&[("user", "Hi")]), true);
        assert!(matches!(rendered, Err(TextError::ChatTemplate { .. })), "{much}");
    }
}

#[test]
fn a_pattern_that_backtracks_without_end_gives_up() {
    let mut tokenizer: serde_json::Value = serde_json::from_slice(BYTE_LEVEL).unwrap();
    tokenizer["pre_tokenizer"] = serde_json::json!({
        "type": "Split", "pattern": { "Regex": "(?=(a+)+c)(a+)+c" }, "behavior": "Isolated", "invert": false,
    });
    let model = TextModel::load(tokenizer.to_string().as_bytes(), None, None).unwrap();
    let started = std::time::Instant::now();
    // Either is fine; taking 2^40 steps is not.
    let _ = model.encode(&("a".repeat(40) + "b"), false);
    assert!(started.elapsed() < std::time::Duration::from_secs(60));
}

#[test]
fn errors_name_the_cause_and_the_way_out() {
    let chat = messages(&[("user", "x")]);

    let model = TextModel::load(BYTE_LEVEL, None, None).unwrap();
    assert!(!model.has_chat_template());
    let error = model.render_chat(&chat, true).unwrap_err();
    assert!(matches!(error, TextError::NoChatTemplate));
    assert!(error.to_string().contains("--raw"), "{error}");

    // A template that cannot work leaves raw prompts usable.
    let model = with_template("{% for %}");
    assert!(model.has_chat_template());
    assert!(model.encode("x", false).is_ok());
    let error = model.render_chat(&chat, true).unwrap_err();
    assert!(matches!(error, TextError::ChatTemplate { .. }));
    assert!(error.to_string().contains("chat_template:1"), "{error}");

    let model = with_template("{{ no_such_function() }}");
    let error = model.render_chat(&chat, true).unwrap_err();
    assert!(error.to_string().contains("no_such_function"), "{error}");

    let model = with_template("{% macro f() %}{{ raise_exception('too long') }}{% endmacro %}{{ f() }}");
    let error = model.render_chat(&chat, true).unwrap_err();
    assert_eq!(error.to_string(), "the chat template refuses these messages: too long");

    for damaged in [&b"{}"[..], b"", b"{\"model\": 3}", &BYTE_LEVEL[..BYTE_LEVEL.len() / 2]] {
        assert!(matches!(
            TextModel::load(damaged, None, None),
            Err(TextError::Tokenizer { .. })
        ));
    }
    let damaged = TextModel::load(BYTE_LEVEL, Some("{"), None);
    assert!(matches!(damaged, Err(TextError::TokenizerConfig { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is changed in the file, it is an error or a tokenizer that works.
    #[test]
    fn no_tokenizer_file_panics(at in 0.0..1.0, removed in 0usize..12, added in "[0-9a-z\"{}\\[\\],:. ]{0,3}", level: bool) {
        let mut bytes = if level { BYTE_LEVEL } else { BYTE_FALLBACK }.to_vec();
        let start = (at * bytes.len() as f64) as usize;
        let end = (start + removed).min(bytes.len());
        bytes.splice(start..end, added.bytes());
        if let Ok(model) = TextModel::load(&bytes, None, None) {
            let ids = model.encode("The model 東京 <think> a b", true);
            let _ = ids.map(|ids| model.decode(&ids, true));
        }
    }
}
