//! Definitions that are longer, wider or larger than what is shipped: they compile, or are refused with the reason.

use std::fs;

use kiln_compiler::architectures::Registry;
use kiln_compiler::compile::{CompileError, CompileOptions, CompileReport, compile};
use kiln_compiler::config::{Field, FromConfig};
use kiln_compiler::dsl::*;
use kiln_compiler::progress::Silent;
use kiln_compiler::rewrite::OptLevel;
use serde_json::{Value, json};

#[derive(Config)]
struct PlainConfig {
    vocab_size: Dim,
    hidden_size: Dim,
    num_hidden_layers: Dim,
}

fn config() -> Value {
    json!({
        "architectures": ["LimitsForCausalLM"], "vocab_size": 33, "hidden_size": 24, "num_hidden_layers": 2,
        "max_position_embeddings": 64,
    })
}

/// Kernels of a model whose layer is `x + body(layer, x)`.
fn compiled(
    config: &Value,
    level: OptLevel,
    registry: impl FnOnce(Registry) -> Registry,
) -> Result<CompileReport, CompileError> {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("config.json");
    fs::write(&source, config.to_string()).unwrap();
    let options = CompileOptions {
        no_weights: true,
        level,
        ..CompileOptions::new(&source, folder.path().join("out"))
    };
    compile(&options, &registry(Registry::default()), &Silent)
}

fn layers_of(
    level: OptLevel,
    body: impl for<'g> Fn(&Layer<'g, ()>, Tensor<'g>) -> Tensor<'g> + Send + Sync + 'static,
) -> Result<CompileReport, CompileError> {
    let architecture = Architecture::new(
        &["LimitsForCausalLM"],
        move |c: &PlainConfig, w: Weights<'_>, tokens: Tokens<'_>| {
            let embedding = w.matrix("embed", c.vocab_size, c.hidden_size);
            let mut stack = w.layers("layers", c.num_hidden_layers).enter(gather(embedding, tokens));
            while let Some((layer, x)) = stack.next_template() {
                stack.output(x + body(&layer, x));
            }
            linear(stack.leave(), embedding)
        },
    );
    compiled(&config(), level, |registry| registry.with(architecture))
}

/// `hidden_size`, as the definitions here name it.
fn hidden() -> Dim {
    Dim::symbol("hidden_size", 24)
}

/// A product with this many elementwise operators after it.
fn chain(length: usize) -> Result<CompileReport, CompileError> {
    layers_of(OptLevel::Full, move |layer, x| {
        let product = linear(x, layer.matrix("proj", hidden(), hidden()));
        (0..length).fold(product, |x, _| silu(x))
    })
}

#[test]
fn elementwise_operators_with_more_inputs_than_a_kernel_has_bindings() {
    for level in [OptLevel::None, OptLevel::Full] {
        let report = layers_of(level, |layer, x| {
            let each = (0..12).map(|n| {
                let name = format!("proj{n}");
                // A bias on some of them, so that they are not one product.
                linear(x, layer.matrix(name.as_str(), hidden(), hidden()).biased(n % 2 == 0))
            });
            each.fold(x, |sum, each| silu(each) * sum)
        });
        report.unwrap_or_else(|error| panic!("{level:?}: {error}"));
    }
}

#[test]
fn a_long_chain_after_a_product_is_one_kernel() {
    let report = chain(30).unwrap();
    let layer = (report.explanations.iter()).find(|explanation| explanation.section.ends_with("layer"));
    let layer = layer.expect("an explanation of the layer");
    assert!(layer.missed.is_empty(), "{layer}");
    assert_eq!(layer.kernels.len(), 1, "{layer}");
}

#[test]
fn rules_that_do_not_come_to_rest_are_no_error() {
    let report = chain(150).unwrap();
    let told = report.explanations.iter().any(|explanation| {
        let text = explanation.to_string();
        text.contains("not fused: what rules would have found after 64 rounds: the section is very long")
    });
    assert!(told, "{:?}", report.explanations);
}

fn heads_of(width: usize) -> Result<CompileReport, CompileError> {
    layers_of(OptLevel::Full, move |layer, x| {
        let split = |name| linear(x, layer.matrix(name, width, hidden())).heads(1, width);
        let attended = attention(split("q"), layer.cache(split("k"), split("v")), Attention::causal());
        linear(attended, layer.matrix("o", hidden(), width))
    })
}

#[test]
fn where_one_kernel_cannot_hold_a_head_another_is_taken() {
    // By parts of the cache, a thread has one element of a head, or four.
    for width in [130, 255, 256] {
        heads_of(width).unwrap_or_else(|error| panic!("{width}: {error}"));
    }
}

#[test]
fn a_rope_over_other_heads_than_those_that_attend() {
    let theta = json!({"rope_type": "default", "rope_theta": 100.0});
    let rope = Rope::from_config(Field {
        key: "rope",
        symbol: "rope",
        value: &theta,
    })
    .unwrap();
    for level in [OptLevel::None, OptLevel::Full] {
        let rope = rope.clone();
        let report = layers_of(level, move |layer, x| {
            let product = |name| linear(x, layer.matrix(name, 32, hidden()));
            let q = product("q").heads(2, 16).rope(&rope).merge_heads().heads(4, 8);
            let k = product("k").heads(4, 8).rope(&rope);
            let attended = attention(q, layer.cache(k, product("v").heads(4, 8)), Attention::causal());
            linear(attended, layer.matrix("o", hidden(), 32))
        });
        report.unwrap_or_else(|error| panic!("{level:?}: {error}"));
    }
}

#[test]
fn rotations_of_one_name_are_told_apart() {
    let ropes = [100.0, 10_000.0].map(|theta| {
        let value = json!({"rope_type": "default", "rope_theta": theta});
        Rope::from_config(Field {
            key: "rope",
            symbol: "rope",
            value: &value,
        })
        .unwrap()
    });
    let report = layers_of(OptLevel::Full, move |layer, x| {
        let x = linear(x, layer.matrix("in", 24, hidden()));
        let turned = ropes.iter().fold(x, |x, rope| {
            let x = x.heads(2, 12).rope(rope).merge_heads();
            x.heads(3, 8).rope(rope).merge_heads()
        });
        linear(turned, layer.matrix("out", hidden(), 24))
    });
    let weights = report.unwrap().manifest.weights;
    let tables = weights
        .iter()
        .filter(|weight| weight.name.ends_with("inv_freq"))
        .count();
    // Of two bases for two widths.
    assert_eq!(tables, 4, "{weights:?}");
}

#[test]
fn what_no_kernel_can_do_is_refused_with_the_reason() {
    let error = heads_of(264).unwrap_err().to_string();
    assert!(
        error.contains("attention heads of 264 elements; kernels hold at most 256"),
        "{error}"
    );
    for level in [OptLevel::None, OptLevel::Full] {
        let error = layers_of(level, |layer, x| {
            let scores = linear(x, layer.router("router", 600, hidden()));
            let bank = |name, rows, columns| layer.bank(name, 600, rows, columns);
            let inner = Dim::constant(8);
            let experts = Experts {
                gate: bank("gate", inner, hidden()),
                up: bank("up", inner, hidden()),
                down: bank("down", hidden(), inner),
                gated: Gate::Activated(Activation::Silu),
            };
            moe(x, route(scores, Routing::top(2, Scoring::SoftmaxChosen)), experts)
        });
        let error = error.unwrap_err().to_string();
        let reason = "a choice of 600 experts; kernels choose among at most 512";
        assert!(error.contains(reason), "{level:?}: {error}");
    }
}

/// The line of this file that an error points at.
fn authors_line(error: &str) -> &'static str {
    let (_, place) = error.split_once("limits/mod.rs:").expect("a place in this file");
    let (line, _) = place.split_once(':').expect("a line and a column");
    let line: usize = line.parse().expect("a number");
    include_str!("mod.rs").lines().nth(line - 1).expect("a line").trim()
}

#[test]
fn a_definition_without_a_head_is_refused_at_its_last_line() {
    let architecture = Architecture::new(
        &["LimitsForCausalLM"],
        |c: &PlainConfig, w: Weights<'_>, tokens: Tokens<'_>| {
            let mut stack = w
                .layers("layers", c.num_hidden_layers)
                .enter(gather(w.matrix("embed", c.vocab_size, c.hidden_size), tokens));
            while let Some((_, x)) = stack.next_template() {
                stack.output(x + silu(x));
            }
            silu(stack.leave())
        },
    );
    let error = architecture.build(&config()).unwrap_err().to_string();
    let what = "the definition returns [T, hidden_size = 24], but logits are [T, vocab_size = 33]";
    assert!(error.contains(what), "{error}");
    assert_eq!(authors_line(&error), "silu(stack.leave())", "{error}");
}

#[test]
fn a_value_from_within_the_layers_is_refused_at_the_authors_line() {
    let architecture = Architecture::new(
        &["LimitsForCausalLM"],
        |c: &PlainConfig, w: Weights<'_>, tokens: Tokens<'_>| {
            let embedding = w.matrix("embed", c.vocab_size, c.hidden_size);
            let x = gather(embedding, tokens);
            let early = linear(x, embedding);
            let mut stack = w.layers("layers", c.num_hidden_layers).enter(x);
            while let Some((_, x)) = stack.next_template() {
                stack.output(silu(x));
            }
            early
        },
    );
    let error = architecture.build(&config()).unwrap_err().to_string();
    assert_eq!(authors_line(&error), "let early = linear(x, embedding);", "{error}");
    assert!(!error.contains("dsl/"), "{error}");
}

/// Each number of each shipped architecture's config, made absurd: an error or a model, but no overflow.
#[test]
fn absurd_sizes_are_errors() {
    let registry = Registry::default();
    let mut tried = Vec::new();
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../codegen-tests/fixtures");
    let mut cases: Vec<_> = fs::read_dir(fixtures)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    for case in cases {
        // Not every folder there is a reference case.
        let Ok(text) = fs::read_to_string(case.join("config.json")) else {
            continue;
        };
        let config: Value = serde_json::from_str(&text).unwrap();
        let name = registry.for_config(&config).unwrap().names()[0];
        if tried.contains(&name) {
            continue;
        }
        tried.push(name);
        let numbers: Vec<&String> = (config.as_object().unwrap().iter())
            .filter(|(_, value)| value.is_number())
            .map(|(key, _)| key)
            .collect();
        // All at once, and each alone.
        let all = numbers
            .iter()
            .map(|key| key.as_str())
            .filter(|key| *key != "num_hidden_layers");
        let mut changes: Vec<Vec<&str>> = vec![all.collect()];
        changes.extend(numbers.iter().map(|key| vec![key.as_str()]));
        for change in changes {
            let mut config = config.clone();
            for key in &change {
                config[*key] = match config[*key].is_u64() {
                    true => json!((1_u64 << 31) - 1),
                    false => json!(1e300),
                };
            }
            if let Err(error) = compiled(&config, OptLevel::Full, |registry| registry) {
                let text = error.to_string();
                assert!(
                    !text.is_empty() && !text.contains("please report"),
                    "{name} {change:?}: {text}"
                );
            }
        }
    }
    for name in registry.names() {
        let architecture = registry.lookup(name).unwrap().names()[0];
        assert!(tried.contains(&architecture), "a reference case of {architecture}");
    }
}
