//! Routing against a plain sort.

use kiln_codegen_tests::Data;
use kiln_compiler::graph::{RouteSpec, Scoring};
use kiln_compiler::kernels::{KernelSpec, RouteKernelSpec, Strided};

use crate::support::{Random, run_each};

/// Exponentials and a short sum in f32.
const TOLERANCE: f64 = 2e-6;

/// What a token goes to: experts and weights.
pub type Chosen = Vec<(u32, f64)>;

/// The definition, by sorting.
pub fn reference(scores: &[f64], bias: Option<&[f32]>, route: &RouteSpec) -> Chosen {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let preference = |expert: usize| match (bias, route.scoring) {
        (None, _) => scores[expert],
        (Some(bias), Scoring::Sigmoid) => sigmoid(scores[expert]) + f64::from(bias[expert]),
        (Some(bias), _) => scores[expert] + f64::from(bias[expert]),
    };
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // Stable: of equal ones the lowest stays first. Zero is added so that -0 is 0.
    order.sort_by(|&a, &b| (preference(b) + 0.0).total_cmp(&(preference(a) + 0.0)));
    let k = route.experts_per_token as usize;
    for pair in order[..(k + 1).min(order.len())].windows(2) {
        let gap = preference(pair[0]) - preference(pair[1]);
        assert!(gap == 0.0 || gap > 2e-6, "a gap of {gap:e} is no fair test in f32");
    }
    order.truncate(k);

    let largest = scores.iter().copied().fold(f64::MIN, f64::max);
    let exponential = |expert: usize| (scores[expert] - largest).exp();
    let chosen_sum: f64 = order.iter().map(|&expert| exponential(expert)).sum();
    let all_sum: f64 = (0..scores.len()).map(exponential).sum();
    let mut weights: Vec<f64> = order
        .iter()
        .map(|&expert| match route.scoring {
            Scoring::SoftmaxChosen => exponential(expert) / chosen_sum,
            Scoring::SoftmaxAll => exponential(expert) / all_sum,
            Scoring::Sigmoid => sigmoid(scores[expert]),
        })
        .collect();
    if let Some(eps) = route.normalize {
        let sum = weights.iter().sum::<f64>() + f64::from(eps);
        weights.iter_mut().for_each(|weight| *weight /= sum);
    }
    let scaled = weights.iter().map(|weight| weight * f64::from(route.scale));
    order.iter().map(|&expert| expert as u32).zip(scaled).collect()
}

/// The routing of `tokens` as kernels store it must be `expected`.
pub fn check_routing(spec: &KernelSpec, buffers: &[Data], expected: &[Chosen]) {
    run_each(
        spec,
        buffers,
        expected.len() as u32,
        |kernel, variant, found: Vec<u32>| {
            let expected: Vec<(u32, f64)> = expected.iter().flatten().copied().collect();
            assert_eq!(found.len(), 2 * expected.len());
            let largest = expected.iter().fold(1e-30f64, |most, (_, weight)| most.max(*weight));
            for (index, (found, (expert, weight))) in found.chunks(2).zip(expected).enumerate() {
                let found_weight = f64::from(f32::from_bits(found[1]));
                assert!(
                    found[0] == expert && (found_weight - weight).abs() <= TOLERANCE * largest,
                    "{} {variant:?}: assignment {index} is {} with {found_weight}, expected {expert} with {weight}\n{}",
                    kernel.name,
                    found[0],
                    kernel.wgsl
                );
            }
        },
    );
}

pub fn route(k: u32, scoring: Scoring) -> RouteSpec {
    RouteSpec {
        experts_per_token: k,
        scoring,
        normalize: None,
        scale: 1.0,
    }
}

fn case(scores: &[f32], tokens: usize, bias: Option<&[f32]>, route: RouteSpec) {
    let experts = scores.len() / tokens;
    // Scores in wider rows, beside numbers that must not be read.
    let (stride, offset) = (experts + 3, 2);
    let mut wide = vec![1000f32; tokens * stride];
    for (token, scores) in scores.chunks(experts).enumerate() {
        wide[token * stride + offset..][..experts].copy_from_slice(scores);
    }
    let spec = KernelSpec::Route(RouteKernelSpec {
        experts: experts as u32,
        route,
        scores: Strided {
            stride: stride as u32,
            offset: offset as u32,
        },
        selection_bias: bias.is_some(),
    });
    let mut buffers: Vec<Data> = vec![(&wide).into()];
    buffers.extend(bias.map(Data::from));
    let routing = vec![u32::MAX; tokens * route.experts_per_token as usize * 2];
    buffers.push((&routing).into());
    let expected: Vec<Chosen> = scores
        .chunks(experts)
        .map(|scores| {
            let scores: Vec<f64> = scores.iter().map(|&score| score.into()).collect();
            reference(&scores, bias, &route)
        })
        .collect();
    check_routing(&spec, &buffers, &expected);
}

/// Scores that differ by at least 1/1000, shuffled.
fn distinct(tokens: usize, experts: usize, random: &mut Random) -> Vec<f32> {
    let mut all = Vec::new();
    for _ in 0..tokens {
        let mut scores: Vec<f32> = (0..experts)
            .map(|i| i as f32 / 100.0 + random.number() / 400.0)
            .collect();
        for i in (1..experts).rev() {
            scores.swap(i, random.below(i + 1));
        }
        all.extend(scores.iter().map(|score| score - experts as f32 / 200.0));
    }
    all
}

#[test]
fn route_by_every_scoring() {
    let mut random = Random(1);
    for (experts, k) in [(32, 4), (128, 8), (1, 1), (5, 5), (512, 32)] {
        let scores = distinct(3, experts, &mut random);
        for scoring in [Scoring::SoftmaxChosen, Scoring::SoftmaxAll, Scoring::Sigmoid] {
            for normalize in [None, Some(0.0), Some(0.25)] {
                let route = RouteSpec {
                    normalize,
                    scale: if normalize.is_none() { 1.0 } else { 2.5 },
                    ..route(k, scoring)
                };
                case(&scores, 3, None, route);
            }
        }
    }
}

#[test]
fn route_by_a_bias_that_weighs_nothing() {
    let mut random = Random(2);
    for (experts, k) in [(32, 4), (7, 7), (64, 6)] {
        // Spread out, so that in f32 no two experts are almost as good.
        let scores = distinct(2, experts, &mut random);
        let bias: Vec<f32> = (0..experts)
            .map(|expert| ((expert * 37) % experts) as f32 * 3.0)
            .collect();
        for scoring in [Scoring::SoftmaxChosen, Scoring::SoftmaxAll, Scoring::Sigmoid] {
            for normalize in [None, Some(1e-6)] {
                let route = RouteSpec {
                    normalize,
                    ..route(k, scoring)
                };
                case(&scores, 2, Some(&bias), route);
            }
        }
    }
}

#[test]
fn of_equal_scores_the_lowest_number_wins() {
    for scoring in [Scoring::SoftmaxChosen, Scoring::SoftmaxAll, Scoring::Sigmoid] {
        for experts in [1, 8, 100, 512] {
            let k = 8.min(experts);
            case(&vec![0.5; experts], 1, None, route(k as u32, scoring));
            case(
                &vec![0.5; experts],
                1,
                Some(&vec![0.25; experts]),
                route(k as u32, scoring),
            );
            // Signs of zero are no difference, and a few values many times over.
            let few: Vec<f32> = (0..experts).map(|i| [0.0, 1.0, -0.0, -1.0][i % 4]).collect();
            case(&few, 1, None, route(k as u32, scoring));
        }
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let scores = [300.0, -1e30, 299.0, 1e-30, 298.5, -300.0];
    for scoring in [Scoring::SoftmaxChosen, Scoring::SoftmaxAll, Scoring::Sigmoid] {
        case(&scores, 1, None, route(3, scoring));
    }
    // Saturated sigmoids: the scores still say which is better.
    case(&[60.0, 80.0, 70.0, 90.0], 1, None, route(2, Scoring::Sigmoid));
}

#[test]
fn whatever_the_scores_are_the_experts_exist_and_differ() {
    const EXPERTS: usize = 40;
    const K: usize = 8;
    let cases: [fn(usize) -> f32; 5] = [
        |_| f32::NAN,
        |i| if i % 3 == 0 { f32::NAN } else { i as f32 },
        |_| f32::INFINITY,
        |_| f32::NEG_INFINITY,
        |i| [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY][i % 4],
    ];
    for score in cases {
        let scores: Vec<f32> = (0..EXPERTS).map(score).collect();
        for scoring in [Scoring::SoftmaxChosen, Scoring::SoftmaxAll, Scoring::Sigmoid] {
            for biased in [false, true] {
                let spec = KernelSpec::Route(RouteKernelSpec {
                    experts: EXPERTS as u32,
                    route: route(K as u32, scoring),
                    scores: Strided {
                        stride: EXPERTS as u32,
                        offset: 0,
                    },
                    selection_bias: biased,
                });
                let mut buffers: Vec<Data> = vec![(&scores).into()];
                if biased {
                    buffers.push((&vec![1f32; EXPERTS]).into());
                }
                buffers.push((&vec![u32::MAX; 2 * K]).into());
                run_each(&spec, &buffers, 1, |kernel, variant, found: Vec<u32>| {
                    let mut experts: Vec<u32> = found.chunks(2).map(|route| route[0]).collect();
                    experts.sort_unstable();
                    experts.dedup();
                    let valid = experts.len() == K && experts.iter().all(|&expert| expert < EXPERTS as u32);
                    assert!(valid, "{} {variant:?}: {found:?}", kernel.name);
                });
            }
        }
    }
}
