use kiln_bundle::{NOT_FINITE, RULED_OUT, StepWord};
use kiln_codegen_tests::oracle::fixtures;
use kiln_codegen_tests::{Data, Random};
use kiln_compiler::kernels::{Capability, KernelSpec};

use crate::support::{numbers, run_each, run_one, words};

/// What the step asks of the sampler.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    seed: u32,
    position: u32,
    temperature: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
}

const GREEDY: Wanted = Wanted {
    seed: 1,
    position: 5,
    temperature: 0.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
};

impl Wanted {
    fn step(&self) -> Data {
        let mut words = [0u32; StepWord::COUNT];
        words[StepWord::Position as usize] = self.position;
        words[StepWord::Tokens as usize] = 1;
        words[StepWord::Seed as usize] = self.seed;
        words[StepWord::Temperature as usize] = self.temperature.to_bits();
        words[StepWord::TopK as usize] = self.top_k;
        words[StepWord::TopP as usize] = self.top_p.to_bits();
        words[StepWord::MinP as usize] = self.min_p.to_bits();
        (&words).into()
    }
}

/// Checks the id that wins in all groups together.
fn greedy_case(logits: &[f32], groups: u32, expected: u32) {
    let vocab = logits.len() as u32;
    let partials = vec![[0u32; 2]; groups as usize];
    let everything = [f32::NEG_INFINITY];
    let buffers = [logits.into(), GREEDY.step(), (&everything).into(), (&partials).into()];
    run_each(
        &KernelSpec::SamplePartial { vocab, groups },
        &buffers,
        1,
        |kernel, outputs| {
            let partials = outputs[3].as_slice();
            assert_eq!(final_token(groups, partials), expected, "{}", kernel.name);
        },
    );
}

/// What `SampleFinal` makes of partial results.
fn final_token(groups: u32, partials: &[u8]) -> u32 {
    let buffers = [partials.into(), GREEDY.step(), (&[0u32; 4]).into(), (&[0u32; 3]).into()];
    words(
        &run_one(
            &KernelSpec::SampleFinal { groups, slots: 3 },
            Capability::Base,
            &buffers,
        )[2],
    )[0]
}

#[test]
fn greedy_takes_the_lowest_of_the_largest() {
    let mut random = Random(3);
    for (vocab, groups) in [(1, 1), (7, 4), (1000, 3), (5000, 64), (5000, 1)] {
        let mut logits = random.numbers(vocab);
        greedy_case(&logits, groups, argmax(&logits));
        // Ties, in one thread, in one group and across groups.
        for id in [vocab - 1, vocab / 2, vocab / 3, (vocab / 3 + 256).min(vocab - 1)] {
            logits[id] = 2.0;
            greedy_case(&logits, groups, argmax(&logits));
        }
    }
}

#[test]
fn greedy_with_odd_numbers() {
    let infinity = f32::INFINITY;
    for (logits, expected) in [
        ([-infinity, -infinity, -1e30, -infinity], 2),
        ([-1.0, -0.0, 0.0, -2.0], 1),
        ([-1e-45, -1.0, -2.0, -3.0], 0),
        ([f32::MIN, -infinity, f32::MIN, -infinity], 0),
    ] {
        greedy_case(&logits, 2, expected);
    }
}

/// Arithmetic that broke down is told, wherever it shows, and so is that there is no token to choose; what is fed on is
/// a token of the vocabulary all the same.
#[test]
fn what_is_no_token_is_reported() {
    let (nan, infinity) = (f32::NAN, f32::INFINITY);
    let many = |at: usize, value: f32| {
        let mut logits = Random(8).numbers(1000);
        logits[at] = value;
        logits
    };
    for (logits, expected) in [
        (vec![nan, -3.0, -2.0, nan], NOT_FINITE),
        (vec![nan; 4], NOT_FINITE),
        (vec![-nan; 4], NOT_FINITE),
        (vec![1.0, infinity, infinity, 2.0], NOT_FINITE),
        (vec![nan, -infinity, nan, -infinity], NOT_FINITE),
        (many(999, nan), NOT_FINITE),
        (many(256, -nan), NOT_FINITE),
        (many(0, infinity), NOT_FINITE),
        (vec![-infinity; 1000], RULED_OUT),
        (vec![-infinity], RULED_OUT),
    ] {
        for (temperature, top_k, top_p, min_p) in [(0.0, 0, 1.0, 0.0), (0.8, 0, 1.0, 0.0), (0.8, 2, 0.9, 0.1)] {
            let wanted = Wanted {
                temperature,
                top_k,
                top_p,
                min_p,
                ..GREEDY
            };
            let [report, token] = sampled(&logits, wanted);
            assert_eq!(report, expected, "{wanted:?} of {:?}", &logits[..4.min(logits.len())]);
            assert!((token as usize) < logits.len(), "{token}");
        }
    }
}

/// What the three dispatches of `sample` report, and the token that they feed on.
fn sampled(logits: &[f32], wanted: Wanted) -> [u32; 2] {
    let (vocab, groups) = (logits.len() as u32, 3);
    let run = |spec, buffers: &[Data]| run_one(&spec, Capability::Base, buffers);
    let buffers = [logits.into(), wanted.step(), (&[0f32]).into()];
    let threshold = run(KernelSpec::SampleThreshold { vocab }, &buffers)[2].clone();
    let buffers = [
        logits.into(),
        wanted.step(),
        threshold.as_slice().into(),
        (&[[0u32; 2]; 3]).into(),
    ];
    let partials = run(KernelSpec::SamplePartial { vocab, groups }, &buffers)[3].clone();
    let buffers = [
        partials.as_slice().into(),
        wanted.step(),
        (&[u32::MAX; 2]).into(),
        (&[0u32; 3]).into(),
    ];
    let outputs = run(KernelSpec::SampleFinal { groups, slots: 3 }, &buffers);
    [words(&outputs[3])[0], words(&outputs[2])[0]]
}

fn argmax(logits: &[f32]) -> u32 {
    let largest = logits.iter().copied().fold(f32::MIN, f32::max);
    logits
        .iter()
        .position(|&logit| logit == largest)
        .expect("the largest is there") as u32
}

#[test]
fn final_advances_the_step() {
    // Scores of positive logits, and of a group without any.
    let partials = [
        [0x8000_0007u32, 40],
        [0x8000_0009, 31],
        [0x8000_0009, 12],
        [0, 3],
        [0x8000_0008, 1],
    ];
    let mut before = [0u32; StepWord::COUNT];
    before.copy_from_slice(&[100, 17, 16, 8, 5, 6, 7, 8, 9]);
    let buffers = [
        (&partials).into(),
        (&before).into(),
        (&[1u32, 2, 3]).into(),
        (&[90u32, 91, 92]).into(),
    ];
    run_each(
        &KernelSpec::SampleFinal { groups: 5, slots: 3 },
        &buffers,
        1,
        |kernel, outputs| {
            assert_eq!(words(&outputs[1]), [117, 1, 0, 9, 5, 6, 7, 8, 9], "{}", kernel.name);
            assert_eq!(words(&outputs[2]), [12, 2, 3], "{}", kernel.name);
            assert_eq!(words(&outputs[3]), [90, 91, 12], "{}", kernel.name);
        },
    );
}

/// Which tokens `SampleThreshold` keeps, checked against the definitions in f64.
fn threshold_case(logits: &[f32], wanted: Wanted) {
    let vocab = logits.len() as u32;
    let buffers = [logits.into(), wanted.step(), (&[0f32]).into()];
    run_each(
        &KernelSpec::SampleThreshold { vocab },
        &buffers,
        1,
        |kernel, outputs| {
            let threshold = numbers(&outputs[2])[0];
            let kept: Vec<f32> = logits.iter().copied().filter(|&logit| logit >= threshold).collect();
            let mut sorted: Vec<f32> = logits.iter().copied().filter(|logit| !logit.is_nan()).collect();
            sorted.sort_by(|a, b| b.total_cmp(a));
            if (1..vocab).contains(&wanted.top_k) {
                let least = sorted[(wanted.top_k as usize).min(sorted.len()) - 1];
                sorted.retain(|&logit| logit >= least);
            }
            if wanted.top_p >= 1.0 {
                assert_eq!(kept.len(), sorted.len(), "{} {:?}", kernel.name, kernel.features);
                return;
            }
            let mass = |logits: &[f32]| -> f64 {
                let weight = |&logit: &f32| (f64::from(logit - sorted[0]) / f64::from(wanted.temperature)).exp();
                logits.iter().map(weight).sum()
            };
            let (all, top_p) = (mass(&sorted), f64::from(wanted.top_p));
            let least = kept.iter().copied().fold(f32::INFINITY, f32::min);
            let without_least: Vec<f32> = kept.iter().copied().filter(|&logit| logit > least).collect();
            // Sums in f32 may miss the target by a few roundings.
            assert!(mass(&kept) / all >= top_p - 2e-6, "{}: keeps too little", kernel.name);
            assert!(
                mass(&without_least) / all < top_p + 2e-6,
                "{}: keeps too much",
                kernel.name
            );
            assert!(!kept.is_empty(), "{}: keeps nothing", kernel.name);
        },
    );
}

/// Logits as models make them: most around -2, some much larger.
fn logits(vocab: usize, seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    (0..vocab).map(|_| 3.0 * random.normal() - 2.0).collect()
}

#[test]
fn threshold_keeps_top_k() {
    for (vocab, top_k) in [
        (1000, 1),
        (1000, 40),
        (1001, 40),
        (50_257, 50),
        (50_257, 1000),
        (1000, 999),
        (10, 10),
        (10, 3),
    ] {
        let logits = logits(vocab, u64::from(top_k));
        threshold_case(
            &logits,
            Wanted {
                temperature: 0.7,
                top_k,
                ..GREEDY
            },
        );
    }
    // Many ties, and numbers that are none.
    let mut tied: Vec<f32> = (0..500).map(|i| (i % 10) as f32).collect();
    tied[3] = f32::NAN;
    tied[4] = f32::NEG_INFINITY;
    for top_k in [1, 49, 50, 51, 120] {
        threshold_case(
            &tied,
            Wanted {
                temperature: 1.0,
                top_k,
                ..GREEDY
            },
        );
    }
}

#[test]
fn threshold_keeps_top_p() {
    for (vocab, temperature, top_p) in [
        (1000, 1.0, 0.9),
        (1001, 0.6, 0.95),
        (32_000, 1.0, 0.5),
        (32_000, 2.0, 0.99),
        (1000, 1.0, 0.0),
        (1000, 0.01, 0.9),
        (1000, 100.0, 0.999),
    ] {
        threshold_case(
            &logits(vocab, vocab as u64),
            Wanted {
                temperature,
                top_p,
                ..GREEDY
            },
        );
    }
    let flat = vec![1.5f32; 300];
    threshold_case(
        &flat,
        Wanted {
            temperature: 1.0,
            top_p: 0.5,
            ..GREEDY
        },
    );
}

#[test]
fn threshold_keeps_top_p_of_top_k() {
    for (top_k, top_p) in [(5, 0.5), (50, 0.9), (200, 0.3), (1, 0.9), (4000, 0.5), (9999, 0.9)] {
        threshold_case(
            &logits(4000, 9),
            Wanted {
                temperature: 0.8,
                top_k,
                top_p,
                ..GREEDY
            },
        );
    }
}

#[test]
fn threshold_keeps_all_where_nothing_is_asked() {
    for wanted in [
        GREEDY,
        Wanted {
            temperature: 1.0,
            ..GREEDY
        },
        Wanted {
            top_k: 5,
            top_p: 0.5,
            ..GREEDY
        },
    ] {
        let buffers = [(&logits(100, 1)).into(), wanted.step(), (&[5f32]).into()];
        run_each(
            &KernelSpec::SampleThreshold { vocab: 100 },
            &buffers,
            1,
            |_, outputs| {
                assert_eq!(numbers(&outputs[2]), [f32::NEG_INFINITY]);
            },
        );
    }
}

/// The ids that transformers samples among, with min-p alone and together with the others.
#[test]
fn threshold_keeps_what_transformers_keeps() {
    let text = std::fs::read_to_string(fixtures().join("sampling.json")).expect("the fixture");
    let fixture: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let cases = fixture["kept"].as_array().expect("a list");
    assert!(cases.len() > 5);
    for case in cases {
        let settings = &case["settings"];
        let number = |name: &str, absent: f64| settings[name].as_f64().unwrap_or(absent) as f32;
        let logits: Vec<f32> = serde_json::from_value(case["logits"].clone()).expect("logits");
        let wanted = Wanted {
            temperature: number("temperature", 1.0),
            top_k: settings["top_k"].as_u64().unwrap_or(0) as u32,
            top_p: number("top_p", 1.0),
            min_p: number("min_p", 0.0),
            ..GREEDY
        };
        let spec = KernelSpec::SampleThreshold {
            vocab: logits.len() as u32,
        };
        run_each(
            &spec,
            &[(&logits).into(), wanted.step(), (&[0f32]).into()],
            1,
            |kernel, outputs| {
                let threshold = numbers(&outputs[2])[0];
                let kept = |&id: &usize| logits[id] >= threshold;
                let kept: Vec<usize> = (0..logits.len()).filter(kept).collect();
                assert_eq!(serde_json::json!(kept), case["ids"], "{settings} {:?}", kernel.features);
            },
        );
    }
}

#[test]
fn draws_with_min_p_follow_softmax_of_what_it_keeps() {
    let mut random = Random(12);
    let mut block = [0f32; 256];
    block.fill_with(|| 2.0 * random.normal());
    let wanted = Wanted {
        seed: 4,
        temperature: 1.5,
        min_p: 0.05,
        ..GREEDY
    };
    let buffers = [(&block).into(), wanted.step(), (&[0f32]).into()];
    let spec = KernelSpec::SampleThreshold { vocab: 256 };
    let threshold = numbers(&run_one(&spec, Capability::Base, &buffers)[2])[0];
    let counts = draws(&block, wanted, threshold, 16_384);
    let largest = block.iter().copied().fold(f32::MIN, f32::max);
    let least = f64::from(largest) + 1.5 * 0.05f64.ln();
    let probabilities = softmax(&block, wanted.temperature, least as f32);
    let kept = probabilities.iter().filter(|probability| **probability > 0.0).count();
    assert!((2..200).contains(&kept), "{kept} of 256 are kept");
    for (count, probability) in counts.iter().zip(&probabilities) {
        assert!(*count == 0 || *probability > 0.0, "a token that was not kept was drawn");
    }
    let (statistic, classes) = chi_square(&counts, &probabilities);
    let freedom = (classes - 1) as f64;
    // As in `draws_follow_softmax`.
    let bound = freedom + 5.0 * (2.0 * freedom).sqrt() + 8.0;
    assert!(statistic < bound, "{statistic} over {classes} classes, bound {bound}");
}

/// Ids of one block of 256, a thousandfold: each workgroup of `SamplePartial` then draws from the same distribution,
/// with noise of its own. Gives how often each of the 256 was drawn.
fn draws(block: &[f32; 256], wanted: Wanted, threshold: f32, groups: u32) -> Vec<u32> {
    let logits = block.repeat(groups as usize);
    let partials = vec![[0u32; 2]; groups as usize];
    let buffers = [
        (&logits).into(),
        wanted.step(),
        (&[threshold]).into(),
        (&partials).into(),
    ];
    let spec = KernelSpec::SamplePartial {
        vocab: groups * 256,
        groups,
    };
    let mut counts = vec![0; 256];
    for partial in words(&run_one(&spec, Capability::Base, &buffers)[3]).chunks(2) {
        counts[partial[1] as usize % 256] += 1;
    }
    counts
}

/// Pearson's statistic of draws against probabilities; classes expected less than 8 times are joined.
fn chi_square(counts: &[u32], probabilities: &[f64]) -> (f64, usize) {
    let total: u32 = counts.iter().sum();
    let (mut statistic, mut classes) = (0.0, 0);
    let (mut rare_count, mut rare_expected) = (0.0, 0.0);
    let mut add = |count: f64, expected: f64| {
        statistic += (count - expected).powi(2) / expected;
        classes += 1;
    };
    for (&count, probability) in counts.iter().zip(probabilities) {
        let expected = probability * f64::from(total);
        if expected >= 8.0 {
            add(f64::from(count), expected);
        } else {
            rare_count += f64::from(count);
            rare_expected += expected;
        }
    }
    if rare_expected > 0.0 {
        add(rare_count, rare_expected);
    }
    (statistic, classes)
}

fn softmax(block: &[f32; 256], temperature: f32, threshold: f32) -> Vec<f64> {
    let weight = |&logit: &f32| match logit >= threshold {
        true => f64::from(logit / temperature).exp(),
        false => 0.0,
    };
    let sum: f64 = block.iter().map(weight).sum();
    block.iter().map(|logit| weight(logit) / sum).collect()
}

#[test]
fn draws_follow_softmax() {
    let mut random = Random(11);
    let mut block = [0f32; 256];
    block.fill_with(|| 2.0 * random.normal());
    for (seed, temperature, threshold) in [
        (1, 1.0, f32::NEG_INFINITY),
        (2, 0.6, f32::NEG_INFINITY),
        (3, 1.5, 0.5),
        (0, 1.0, 3.0),
        (u32::MAX, 8.0, -9.0),
    ] {
        let wanted = Wanted {
            seed,
            temperature,
            position: 7 * seed.min(9),
            ..GREEDY
        };
        let counts = draws(&block, wanted, threshold, 16_384);
        let probabilities = softmax(&block, temperature, threshold);
        for (count, probability) in counts.iter().zip(&probabilities) {
            assert!(*count == 0 || *probability > 0.0, "a token that was not kept was drawn");
        }
        let (statistic, classes) = chi_square(&counts, &probabilities);
        // Mean and variance of the statistic are n and 2n for n = classes - 1; 5 deviations, and some for the skew.
        let freedom = (classes - 1) as f64;
        let bound = freedom + 5.0 * (2.0 * freedom).sqrt() + 8.0;
        assert!(
            statistic < bound,
            "seed {seed}: {statistic} over {classes} classes, bound {bound}"
        );
    }
}

#[test]
fn wrong_distributions_would_be_noticed() {
    let block = [0f32; 256].map(|_| 0.0);
    let counts = draws(
        &block,
        Wanted {
            temperature: 1.0,
            ..GREEDY
        },
        f32::NEG_INFINITY,
        16_384,
    );
    let skewed: Vec<f64> = (0..256).map(|id| if id % 2 == 0 { 1.2 } else { 0.8 } / 256.0).collect();
    let (statistic, _) = chi_square(&counts, &skewed);
    assert!(statistic > 255.0 + 5.0 * 22.6 + 8.0, "{statistic}");
}

#[test]
fn draws_depend_on_seed_and_position_only() {
    let block = [0f32; 256].map(|_| 0.0);
    let wanted = Wanted {
        temperature: 1.0,
        ..GREEDY
    };
    let partials = vec![[0u32; 2]; 64];
    let logits = block.repeat(64);
    let run = |wanted: Wanted| -> Vec<u32> {
        let buffers = [(&logits).into(), wanted.step(), (&[-1f32]).into(), (&partials).into()];
        let spec = KernelSpec::SamplePartial {
            vocab: 64 * 256,
            groups: 64,
        };
        let first = words(&run_one(&spec, Capability::Base, &buffers)[3]);
        run_each(&spec, &buffers, 1, |kernel, outputs| {
            assert_eq!(words(&outputs[3]), first, "{} {:?}", kernel.name, kernel.features);
        });
        first.chunks(2).map(|partial| partial[1] % 256).collect()
    };
    let reference = run(wanted);
    let same = |other: &[u32]| reference.iter().zip(other).filter(|(a, b)| a == b).count();
    assert_eq!(run(wanted), reference);
    assert!(same(&run(Wanted { seed: 2, ..wanted })) < 8);
    assert!(same(&run(Wanted { position: 6, ..wanted })) < 8);
    assert!(
        same(&run(Wanted {
            seed: wanted.position,
            position: wanted.seed,
            ..wanted
        })) < 8
    );
}

#[test]
fn successive_positions_are_independent() {
    let logits = [1f32, 0.0, -1.0, 0.5];
    let mut counts = [0u32; 4];
    for position in 0..300 {
        let wanted = Wanted {
            temperature: 1.0,
            position,
            ..GREEDY
        };
        let buffers = [
            (&logits).into(),
            wanted.step(),
            (&[-9f32]).into(),
            (&[[0u32; 2]]).into(),
        ];
        let spec = KernelSpec::SamplePartial { vocab: 4, groups: 1 };
        counts[words(&run_one(&spec, Capability::Base, &buffers)[3])[1] as usize] += 1;
    }
    let weights = logits.map(|logit| f64::from(logit).exp());
    let sum: f64 = weights.iter().sum();
    let (statistic, _) = chi_square(&counts, &weights.map(|weight| weight / sum));
    assert!(statistic < 25.0, "{statistic}: {counts:?}");
}
