//! Sampling: the three kernels in a row, in every variant, against what the distributions say.

use std::sync::LazyLock;

use kiln_bundle::StepWord;
use kiln_codegen_tests::{Data, Device, check_with_naga, check_with_tint};
use kiln_compiler::kernels::{KernelSource, KernelSpec, Variant, build};

static DEVICE: LazyLock<Device> = LazyLock::new(Device::software_or_any);

const GROUPS: u32 = 64;
const SLOTS: u32 = 16;

struct Pipeline {
    kernels: [KernelSource; 3],
}

#[derive(Clone, Copy)]
struct Settings {
    temperature: f32,
    top_k: u32,
    top_p: f32,
    seed: u32,
    position: u32,
}

const GREEDY: Settings = Settings {
    temperature: 0.0,
    top_k: 0,
    top_p: 1.0,
    seed: 7,
    position: 3,
};

impl Settings {
    fn step(self) -> Vec<u32> {
        let mut words = vec![0; StepWord::COUNT];
        let mut set = |word: StepWord, value| words[word as usize] = value;
        set(StepWord::Position, self.position);
        set(StepWord::Tokens, 5);
        set(StepWord::Row, 4);
        set(StepWord::Output, SLOTS + 2);
        set(StepWord::Seed, self.seed);
        set(StepWord::Temperature, self.temperature.to_bits());
        set(StepWord::TopK, self.top_k);
        set(StepWord::TopP, self.top_p.to_bits());
        words
    }
}

impl Pipeline {
    fn new(vocab: u32, variant: Variant) -> Self {
        let specs = [
            KernelSpec::SampleThreshold { vocab },
            KernelSpec::SamplePartial { vocab, groups: GROUPS },
            KernelSpec::SampleFinal {
                groups: GROUPS,
                slots: SLOTS,
            },
        ];
        let kernels = specs.map(|spec| build(&spec, variant).unwrap());
        kernels.iter().for_each(check_with_naga);
        kernels.iter().for_each(check_with_tint);
        Pipeline { kernels }
    }

    /// The token, and the step, tokens and output buffers after it.
    fn run(&self, logits: &[f32], settings: Settings) -> (u32, [Vec<u32>; 3]) {
        let step = settings.step();
        let [threshold, partial, last] = &self.kernels;
        let words = |bytes: &[u8]| bytemuck::pod_collect_to_vec::<u8, u32>(bytes);
        let found = DEVICE.run(threshold, &[logits.into(), (&step).into(), (&[0u32]).into()], [1, 1, 1]);
        let kept = words(&found[2]);
        let empty = vec![0u32; 2 * GROUPS as usize];
        let buffers: [Data; 4] = [logits.into(), (&step).into(), (&kept).into(), (&empty).into()];
        let partials = words(&DEVICE.run(partial, &buffers, [GROUPS, 1, 1])[3]);
        let buffers: [Data; 4] = [
            (&partials).into(),
            (&step).into(),
            (&vec![9u32; 5]).into(),
            (&vec![0u32; SLOTS as usize]).into(),
        ];
        let after = DEVICE.run(last, &buffers, [1, 1, 1]);
        let [step, tokens, output] = [1, 2, 3].map(|index| words(&after[index]));
        (tokens[0], [step, tokens, output])
    }
}

fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..count).map(|_| (next() + next() + next() - 1.5) * 6.0).collect()
}

#[test]
fn greedy_takes_the_largest_and_of_equals_the_first() {
    for variant in DEVICE.variants() {
        for vocab in [1, 5, 333, 49_152, 70_001] {
            let pipeline = Pipeline::new(vocab as u32, variant);
            let mut logits = random(vocab, vocab as u64);
            let at = vocab * 2 / 3;
            logits[at] = 50.0;
            assert_eq!(pipeline.run(&logits, GREEDY).0, at as u32, "{vocab}");
            if vocab == 1 {
                continue;
            }
            logits[vocab - 1] = 50.0;
            logits[vocab / 4] = f32::NAN;
            logits[vocab / 2] = f32::NEG_INFINITY;
            let expected = (0..vocab).find(|&id| logits[id] == 50.0).unwrap();
            assert_eq!(
                pipeline.run(&logits, GREEDY).0,
                expected as u32,
                "{vocab} with equals and NaN"
            );
        }
    }
}

#[test]
fn the_last_kernel_makes_the_next_step_ready() {
    for variant in DEVICE.variants() {
        let logits = random(100, 1);
        let (token, [step, tokens, output]) = Pipeline::new(100, variant).run(&logits, GREEDY);
        let word = |word: StepWord| step[word as usize];
        assert_eq!(word(StepWord::Position), 3 + 5);
        assert_eq!((word(StepWord::Tokens), word(StepWord::Row)), (1, 0));
        assert_eq!(word(StepWord::Output), SLOTS + 3);
        assert_eq!(word(StepWord::Seed), 7);
        assert_eq!(output[2], token);
        assert_eq!(tokens[1..], [9; 4]);
    }
}

/// The probabilities that Hugging Face's warpers leave: temperature, then top-k, then top-p.
fn probabilities(logits: &[f32], settings: Settings) -> Vec<f64> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    if settings.top_k > 0 {
        order.truncate(settings.top_k as usize);
    }
    let weight = |id: usize| (f64::from(logits[id] - logits[order[0]]) / f64::from(settings.temperature)).exp();
    let whole: f64 = order.iter().map(|&id| weight(id)).sum();
    let mut kept = Vec::new();
    let mut mass = 0.0;
    for &id in &order {
        kept.push(id);
        mass += weight(id) / whole;
        if mass >= f64::from(settings.top_p) {
            break;
        }
    }
    let whole: f64 = kept.iter().map(|&id| weight(id)).sum();
    let mut probabilities = vec![0.0; logits.len()];
    for id in kept {
        probabilities[id] = weight(id) / whole;
    }
    probabilities
}

#[test]
fn draws_follow_the_distribution() {
    let vocab = 40;
    let logits = random(vocab, 11);
    let cases = [
        (1.0, 0, 1.0),
        (0.7, 0, 1.0),
        (1.3, 6, 1.0),
        (1.0, 0, 0.8),
        (0.9, 12, 0.9),
        (2.0, 40, 0.5),
    ];
    for variant in DEVICE.variants() {
        let pipeline = Pipeline::new(vocab as u32, variant);
        // The variants differ in how they sum, so beyond base the cases that sum will do.
        let cases = if variant == Variant::Base {
            &cases[..]
        } else {
            &cases[4..5]
        };
        for &(temperature, top_k, top_p) in cases {
            const DRAWS: u32 = 120;
            let settings = Settings {
                temperature,
                top_k,
                top_p,
                ..GREEDY
            };
            let mut counts = vec![0u32; vocab];
            for draw in 0..DRAWS {
                let settings = Settings {
                    seed: draw / 20,
                    position: draw % 20,
                    ..settings
                };
                counts[pipeline.run(&logits, settings).0 as usize] += 1;
            }
            let expected = probabilities(&logits, settings);
            let mut chi_squared = 0.0;
            let mut cells = 0.0;
            for (&count, &probability) in counts.iter().zip(&expected) {
                assert!(
                    probability > 0.0 || count == 0,
                    "{settings_text:?}: drew what is cut off",
                    settings_text = (temperature, top_k, top_p)
                );
                if probability > 0.0 {
                    let mean = probability * f64::from(DRAWS);
                    chi_squared += (f64::from(count) - mean).powi(2) / mean;
                    cells += 1.0;
                }
            }
            // Mean cells - 1, variance 2 (cells - 1); small cells make the tail heavier, hence six deviations.
            let freedom: f64 = cells - 1.0;
            let bound = freedom + 6.0 * (2.0 * freedom).sqrt() + 1.0;
            assert!(
                chi_squared < bound,
                "{variant:?} {temperature} {top_k} {top_p}: {chi_squared} of {bound}"
            );
        }
    }
}

#[test]
fn the_threshold_is_exact_on_a_large_vocabulary() {
    let vocab = 49_153;
    let logits = random(vocab, 5);
    let mut sorted = logits.clone();
    sorted.sort_by(|a, b| b.total_cmp(a));
    for variant in DEVICE.variants() {
        let kernel = &Pipeline::new(vocab as u32, variant).kernels[0];
        for top_k in [1, 2, 50, 1000, 49_152] {
            let settings = Settings {
                temperature: 1.0,
                top_k,
                ..GREEDY
            };
            let buffers: [Data; 3] = [(&logits).into(), (&settings.step()).into(), (&[0u32]).into()];
            let found: Vec<f32> = DEVICE.run_for_output(kernel, &buffers, [1, 1, 1]);
            let kept = sorted.iter().take_while(|&&logit| logit >= found[0]).count();
            assert_eq!(kept, top_k as usize, "top {top_k}");
        }
    }
}

#[test]
fn a_seed_gives_the_same_token_again() {
    let logits = random(500, 2);
    let pipeline = Pipeline::new(500, Variant::Base);
    let settings = Settings {
        temperature: 1.5,
        ..GREEDY
    };
    let draw = |seed| pipeline.run(&logits, Settings { seed, ..settings }).0;
    let first: Vec<u32> = (0..20).map(draw).collect();
    assert_eq!(first, (0..20).map(draw).collect::<Vec<_>>());
    assert!(first.iter().any(|&token| token != first[0]));
}
