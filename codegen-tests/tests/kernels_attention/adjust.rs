//! Biases, penalties and bans on logits, against transformers' own processors and against plain loops.

use std::collections::{BTreeMap, BTreeSet};

use kiln_bundle::{RuleWord, StepWord};
use kiln_codegen_tests::oracle::fixtures;
use kiln_codegen_tests::{Data, Random};
use kiln_compiler::kernels::{Capability, KernelSpec, build};
use serde_json::Value;

use crate::support::{close_numbers, numbers, run_step, variants, words};

/// A rule as the format has it: the token, what is added, how many tokens may have been sampled, what comes before.
type Rule = (u32, f32, u32, Vec<u32>);

/// What a generation asks of its logits.
#[derive(Clone, Debug)]
struct Asked {
    repetition: f32,
    presence: f32,
    frequency: f32,
    ngram: u32,
    rules: Vec<Rule>,
}

const NOTHING: Asked = Asked {
    repetition: 1.0,
    presence: 0.0,
    frequency: 0.0,
    ngram: 0,
    rules: Vec::new(),
};

impl Asked {
    /// The rules buffer, as `docs/bundle-format.md` describes it.
    fn words(&self) -> Vec<u32> {
        let mut rules = self.rules.clone();
        rules.sort_by_key(|rule| rule.0);
        let mut words = vec![0; RuleWord::COUNT];
        words[RuleWord::RepetitionPenalty as usize] = self.repetition.to_bits();
        words[RuleWord::PresencePenalty as usize] = self.presence.to_bits();
        words[RuleWord::FrequencyPenalty as usize] = self.frequency.to_bits();
        words[RuleWord::NoRepeatNgram as usize] = self.ngram;
        words[RuleWord::Count as usize] = rules.len() as u32;
        let mut behind: Vec<u32> = Vec::new();
        let start = RuleWord::COUNT + RuleWord::PER_RULE * rules.len();
        for (id, bias, first, before) in &rules {
            let at = (start + behind.len()) as u32;
            words.extend([*id, bias.to_bits(), *first, at, before.len() as u32]);
            behind.extend(before);
        }
        words.extend(behind);
        words
    }
}

/// The history as it is after some tokens were sampled.
fn history(prompt: &[u32], sampled: &[u32]) -> Vec<u32> {
    let mut entries: Vec<[u32; 2]> = Vec::new();
    for (place, &id) in prompt.iter().chain(sampled).enumerate() {
        let is_sampled = u32::from(place >= prompt.len());
        match entries.iter_mut().find(|entry| entry[0] == id) {
            Some(first) => {
                first[1] += is_sampled;
                entries.push([id, 0]);
            }
            None => entries.push([id, 1 + is_sampled]),
        }
    }
    entries.concat()
}

/// The three dispatches after all of `sampled` but the last token, and after the last one, which they append. Gives the last
/// logits.
fn adjust(
    variant: Capability,
    asked: &Asked,
    prompt: &[u32],
    sampled: &[u32],
    logits: &[f32],
    groups: u32,
) -> Vec<f32> {
    let first_round = sampled.len().saturating_sub(1);
    let known = first_round.saturating_sub(1);
    let mut entries = history(prompt, &sampled[..known]);
    // What lies beyond is left from another time.
    entries.resize(2 * (prompt.len() + sampled.len()) + 6, 0xdead_beef);
    let rules = asked.words();
    let mut found = Vec::new();
    for round in first_round..=sampled.len() {
        let mut step = [0u32; StepWord::COUNT];
        // The first token follows from a step of several.
        let tokens = if round == 0 { prompt.len().min(3) } else { 1 };
        step[StepWord::Position as usize] = (prompt.len() + round - tokens) as u32;
        step[StepWord::Tokens as usize] = tokens as u32;
        step[StepWord::Output as usize] = round as u32;
        let newest = round.checked_sub(1).map_or(0xdead, |last| sampled[last]);
        let run = |spec: KernelSpec, buffers: &[Data]| run_step(&spec, variant, buffers, 1);
        let outputs = run(
            KernelSpec::TokenRules,
            &[
                (&step).into(),
                (&[newest, 7]).into(),
                (&rules).into(),
                (&entries).into(),
                logits.into(),
            ],
        );
        entries = words(&outputs[3]);
        found = numbers(&outputs[4]);
        for spec in [KernelSpec::Penalties { groups }, KernelSpec::RepeatBan { groups }] {
            let buffers = [(&step).into(), (&entries).into(), (&rules).into(), (&found).into()];
            found = numbers(&run(spec, &buffers)[3]);
        }
    }
    let mut expected = history(prompt, sampled);
    expected.extend([0xdead_beef; 6]);
    assert_eq!(entries, expected, "history");
    found
}

/// The variants whose texts of these kernels differ.
fn variants_that_differ(groups: u32) -> Vec<Capability> {
    let specs = [
        KernelSpec::TokenRules,
        KernelSpec::Penalties { groups },
        KernelSpec::RepeatBan { groups },
    ];
    let text = |variant: &Capability| {
        specs
            .each_ref()
            .map(|spec| build(spec, *variant).expect("a kernel").wgsl)
    };
    let mut texts = BTreeSet::new();
    let mut variants = variants();
    variants.retain(|variant| texts.insert(text(variant)));
    variants
}

fn check(asked: &Asked, prompt: &[u32], sampled: &[u32], logits: &[f32], groups: u32, expected: &[f64]) {
    for variant in variants_that_differ(groups) {
        let found = adjust(variant, asked, prompt, sampled, logits, groups);
        let what = format!("{variant:?}, {groups} groups: {asked:?} after {prompt:?}, {sampled:?}");
        let is_out = |value: f64| value == f64::NEG_INFINITY;
        let (mut numbers, mut expected_numbers) = (Vec::new(), Vec::new());
        for (id, (found, expected)) in found.into_iter().zip(expected).enumerate() {
            assert_eq!(
                is_out(found.into()),
                is_out(*expected),
                "{id} is {found}, not {expected}: {what}"
            );
            if !is_out(*expected) {
                numbers.push(found);
                expected_numbers.push(*expected);
            }
        }
        // Division may be off by 2.5 units in the last place, sums of many biases by some more.
        close_numbers(&what, &numbers, &expected_numbers, 2e-6);
    }
}

/// Settings of generation_config.json, as transformers takes them.
fn asked(settings: &Value, prompt: usize) -> Asked {
    let ids = |value: &Value| -> Vec<u32> { serde_json::from_value(value.clone()).expect("ids") };
    let list = |name: &str| settings[name].as_array().cloned().unwrap_or_default();
    let sequence = |mut ids: Vec<u32>, bias: f32| {
        let id = ids.pop().expect("an id");
        (id, bias, u32::MAX, ids)
    };
    let count = |name: &str| settings[name].as_u64().unwrap_or(0) as u32;
    let mut rules: Vec<Rule> = Vec::new();
    for pair in list("sequence_bias") {
        rules.push(sequence(ids(&pair[0]), pair[1].as_f64().expect("a bias") as f32));
    }
    // 2 is the end token, which no ban of words touches.
    let bad = list("bad_words_ids")
        .iter()
        .map(ids)
        .filter(|ids| *ids != [2])
        .collect::<Vec<_>>();
    rules.extend(bad.into_iter().map(|ids| sequence(ids, f32::NEG_INFINITY)));
    for (name, first) in [("suppress_tokens", u32::MAX), ("begin_suppress_tokens", 1)] {
        let tokens = ids(&Value::Array(list(name)));
        rules.extend(tokens.into_iter().map(|id| (id, f32::NEG_INFINITY, first, Vec::new())));
    }
    let unending = count("min_new_tokens").max(count("min_length").saturating_sub(prompt as u32));
    rules.push((2, f32::NEG_INFINITY, unending, Vec::new()));
    Asked {
        repetition: settings["repetition_penalty"].as_f64().unwrap_or(1.0) as f32,
        ngram: count("no_repeat_ngram_size"),
        rules,
        ..NOTHING
    }
}

#[test]
fn logits_are_those_of_transformers_processors() {
    let text = std::fs::read_to_string(fixtures().join("sampling.json")).expect("the fixture");
    let fixture: Value = serde_json::from_str(&text).expect("JSON");
    let cases = fixture["processed"].as_array().expect("a list");
    assert!(cases.len() > 20);
    for case in cases {
        let ids = |name: &str| -> Vec<u32> { serde_json::from_value(case[name].clone()).expect("ids") };
        let logits: Vec<f32> = serde_json::from_value(case["logits"].clone()).expect("logits");
        let scores: Vec<Option<f64>> = serde_json::from_value(case["scores"].clone()).expect("scores");
        let expected: Vec<f64> = scores
            .into_iter()
            .map(|score| score.unwrap_or(f64::NEG_INFINITY))
            .collect();
        let (prompt, sampled) = (ids("prompt"), ids("sampled"));
        check(
            &asked(&case["settings"], prompt.len()),
            &prompt,
            &sampled,
            &logits,
            2,
            &expected,
        );
    }
}

/// In plain loops. Order: biases, penalties, repeated n-grams.
fn plain(asked: &Asked, prompt: &[u32], sampled: &[u32], logits: &[f32]) -> Vec<f64> {
    let history: Vec<u32> = prompt.iter().chain(sampled).copied().collect();
    let mut logits: Vec<f64> = logits.iter().copied().map(f64::from).collect();
    for (id, bias, first, before) in &asked.rules {
        if sampled.len() < *first as usize && history.ends_with(before) {
            logits[*id as usize] += f64::from(*bias);
        }
    }
    let mut times = BTreeMap::<u32, u32>::new();
    prompt.iter().for_each(|id| *times.entry(*id).or_default() += 0);
    sampled.iter().for_each(|id| *times.entry(*id).or_default() += 1);
    for (id, times) in times {
        let (logit, penalty) = (&mut logits[id as usize], f64::from(asked.repetition));
        *logit = if *logit < 0.0 {
            *logit * penalty
        } else {
            *logit / penalty
        };
        *logit -= f64::from(times) * f64::from(asked.frequency) + f64::from(times.min(1)) * f64::from(asked.presence);
    }
    let n = asked.ngram as usize;
    if n > 0 {
        for gram in history.windows(n) {
            if history.ends_with(&gram[..n - 1]) {
                logits[gram[n - 1] as usize] = f64::NEG_INFINITY;
            }
        }
    }
    logits
}

/// Longer than a workgroup has threads, over few tokens, so that everything repeats.
#[test]
fn logits_are_those_of_plain_loops() {
    let mut random = Random(17);
    let mut below = |most: u32| random.below(most as usize) as u32;
    for (length, kinds) in [(1, 3), (2, 3), (300, 5), (900, 40)] {
        let prompt: Vec<u32> = (0..length).map(|_| below(kinds)).collect();
        let sampled: Vec<u32> = (0..5).map(|_| below(kinds)).collect();
        let all: Vec<u32> = prompt.iter().chain(&sampled).copied().collect();
        let logits: Vec<f32> = (0..50).map(|_| below(1000) as f32 / 100.0 - 5.0).collect();
        let tail = |count: usize| all[all.len() - count.min(all.len())..].to_vec();
        // Many rules of one token, and more tokens than a workgroup has threads, over and over.
        let mut rules: Vec<Rule> = (0..700)
            .map(|i| (i % 45, i as f32 / 512.0 - 0.5, 3 + i % 7, tail((i % 4) as usize)))
            .collect();
        rules.push((44, f32::NEG_INFINITY, u32::MAX, tail(1)));
        rules.push((43, f32::NEG_INFINITY, u32::MAX, vec![kinds + 1]));
        for asked in [
            Asked {
                repetition: 1.7,
                presence: 0.5,
                frequency: -0.25,
                ngram: 3,
                rules: rules.clone(),
            },
            Asked {
                frequency: 0.75,
                ..NOTHING
            },
            Asked {
                presence: 1.25,
                ngram: 1,
                ..NOTHING
            },
            Asked { rules, ..NOTHING },
            NOTHING,
        ] {
            let expected = plain(&asked, &prompt, &sampled, &logits);
            for groups in [1, 3] {
                check(&asked, &prompt, &sampled, &logits, groups, &expected);
            }
        }
    }
}
