//! Small templates against what Jinja2 itself prints, as transformers sets it up: `runtime/cases/text/make_fixtures.py`.

use minijinja::value::{Serde, Value};
use serde::Deserialize;

use super::{Template, WallTime};

#[derive(Deserialize)]
struct Fixture {
    now: u64,
    values: serde_json::Map<String, serde_json::Value>,
    messages: serde_json::Value,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    topic: String,
    template: String,
    /// Null where Jinja2 raises.
    text: Option<String>,
    /// The suites whose Jinja is known to refuse it.
    #[serde(default)]
    refused_by: Vec<String>,
}

/// Each prints what Jinja2 prints or is refused; nothing prints something else.
#[test]
fn small_templates_print_what_jinja2_prints() {
    let fixture: Fixture = serde_json::from_str(include_str!("../../../../cases/text/jinja.json")).unwrap();
    assert!(fixture.cases.len() > 1000);
    for case in fixture.cases {
        let mut variables = vec![
            ("messages", Value::from(Serde(&fixture.messages))),
            ("add_generation_prompt", Value::from(true)),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
        ];
        let values = fixture.values.iter();
        variables.extend(values.map(|(name, value)| (name.as_str(), Value::from(Serde(value)))));
        let now = Some(WallTime::from_seconds(fixture.now));
        let rendered = Template::new(&case.template).and_then(|template| template.render(variables, now));
        let is_refused = case.refused_by.iter().any(|suite| suite == "native");
        let expected = case.text.filter(|_| !is_refused);
        assert_eq!(rendered.ok(), expected, "{}: {}", case.topic, case.template);
    }
}
