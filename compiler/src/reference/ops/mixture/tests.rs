//! Expected numbers were computed in double precision from the formulas, by hand-written Python loops.

use super::*;
use crate::graph::Unary;
use crate::reference::ops::tests::assert_close;

const SCORES: [f32; 10] = [0.5, -1.0, 2.0, 1.0, 0.0, 3.0, 3.0, -2.0, 3.0, 0.25];
const BIAS: [f32; 5] = [0.0, 4.0, -2.0, 0.1, 0.0];

/// Routes two tokens among five experts; checks whom they go to, and the weights.
fn check(bias: Option<&[f32]>, spec: RouteSpec, experts: [&[usize]; 2], weights: [&[f32]; 2]) {
    let routing = route(&SCORES, 5, bias, &spec);
    assert_eq!(routing.len(), 2);
    for (token, choices) in routing.iter().enumerate() {
        let chosen: Vec<usize> = choices.iter().map(|choice| choice.expert).collect();
        let found: Vec<f32> = choices.iter().map(|choice| choice.weight).collect();
        assert_eq!(chosen, experts[token], "token {token}");
        assert_close(&found, weights[token]);
    }
}

fn spec(experts_per_token: u32, scoring: Scoring) -> RouteSpec {
    RouteSpec {
        experts_per_token,
        scoring,
        normalize: None,
        scale: 1.0,
    }
}

#[test]
fn softmax_after_and_before_choosing() {
    let chosen: [&[usize]; 2] = [&[2, 3], &[0, 1]];
    check(
        None,
        spec(2, Scoring::SoftmaxChosen),
        chosen,
        [&[0.7310586, 0.2689414], &[0.5, 0.5]],
    );
    check(
        None,
        spec(2, Scoring::SoftmaxAll),
        chosen,
        [&[0.5630212, 0.2071239], &[0.3256623, 0.3256623]],
    );
    let normalized = RouteSpec {
        normalize: Some(0.0),
        ..spec(2, Scoring::SoftmaxAll)
    };
    check(None, normalized, chosen, [&[0.7310586, 0.2689414], &[0.5, 0.5]]);
}

#[test]
fn of_equal_scores_the_lowest_number_wins() {
    check(
        None,
        spec(5, Scoring::SoftmaxAll),
        [&[2, 3, 0, 4, 1], &[0, 1, 3, 4, 2]],
        [
            &[0.5630212, 0.2071239, 0.125627, 0.07619664, 0.02803118],
            &[0.3256623, 0.3256623, 0.3256623, 0.02081889, 0.002194295],
        ],
    );
    // As of a router of zeros, whose products may be zeros of either sign.
    let choices = route(&[0.0, -0.0, 0.0, -0.0], 4, None, &spec(3, Scoring::SoftmaxChosen));
    let experts: Vec<usize> = choices[0].iter().map(|choice| choice.expert).collect();
    assert_eq!(experts, [0, 1, 2]);
}

#[test]
fn a_bias_chooses_and_does_not_weigh() {
    check(
        None,
        spec(3, Scoring::Sigmoid),
        [&[2, 3, 0], &[0, 1, 3]],
        [&[0.8807971, 0.7310586, 0.6224593], &[0.9525741; 3]],
    );
    let lfm2 = RouteSpec {
        normalize: Some(1e-6),
        scale: 2.5,
        ..spec(3, Scoring::Sigmoid)
    };
    check(
        Some(&BIAS),
        lfm2,
        [&[1, 3, 0]; 2],
        [&[0.4144037, 1.126466, 0.9591287], &[0.833333; 3]],
    );
    check(
        Some(&BIAS),
        spec(2, Scoring::SoftmaxChosen),
        [&[1, 3]; 2],
        [&[0.1192029, 0.8807971], &[0.5, 0.5]],
    );
}

#[test]
fn large_scores_do_not_overflow() {
    for scoring in [Scoring::SoftmaxChosen, Scoring::SoftmaxAll, Scoring::Sigmoid] {
        let choices = route(&[300.0, -300.0, 200.0], 3, None, &spec(1, scoring));
        assert_eq!(choices, [[Choice { expert: 0, weight: 1.0 }]], "{scoring:?}");
    }
}

#[test]
fn a_clamped_gate_limits_both_and_adds_one() {
    let gate = Gate::Clamped {
        alpha: 1.702,
        limit: 7.0,
    };
    let found = [(1.0, 0.5), (9.0, -8.5), (-3.0, 8.0), (-20.0, 1.0)].map(|(g, u)| gated(gate, g, u));
    // The gate has no lower limit.
    assert_close(&found, &[1.268694, -41.99972, -0.1445705, -6.58682e-14]);
}

const ROUTING: [[(usize, f32); 2]; 3] = [[(2, 0.75), (0, 0.25)], [(0, 1.5), (2, -0.5)], [(2, 1.0), (0, 0.0)]];

/// A mixture of three experts `[3, 2]`, of which the tokens go to the first and the last.
fn mixture(function: Gate, biased: bool) -> Vec<f32> {
    let x = [1.0, -2.0, 0.5, 3.0, -1.0, 1.0];
    let routing = ROUTING.map(|token| token.map(|(expert, weight)| Choice { expert, weight }).to_vec());
    let matrix = |rows: usize, columns: usize, value: &dyn Fn(f32, f32) -> f32| -> Cow<'static, [f32]> {
        let places = (0..rows * columns).map(|i| ((i / columns) as f32, (i % columns) as f32));
        places.map(|(row, column)| value(row, column)).collect()
    };
    let weights_of = |expert: usize| {
        assert_ne!(expert, 1, "no token goes there");
        let e = expert as f32;
        let bias = |len: usize, value: &dyn Fn(f32) -> f32| biased.then(|| matrix(len, 1, &|row, _| value(row)));
        Ok::<_, ()>(ExpertWeights {
            gate: matrix(3, 2, &|r, c| (e + 1.0) * 0.3 * (r - 1.0) + 0.2 * c),
            up: matrix(3, 2, &|r, c| 0.5 * e - 0.4 * r + 0.7 * c),
            down: matrix(2, 3, &|r, c| 0.1 * (e + 1.0) * (r + 1.0) - 0.3 * c),
            gate_bias: bias(3, &|r| 0.1 * e + 0.2 * r),
            up_bias: bias(3, &|r| 0.3 * e - 0.1 * r),
            down_bias: bias(2, &|r| e - 0.5 * r),
        })
    };
    experts(&x, 2, &routing, function, weights_of).unwrap()
}

#[test]
fn a_mixture_sums_up_the_experts_of_each_token() {
    assert_close(
        &mixture(Gate::Activated(Unary::Silu), false),
        &[-0.2920771, -0.2785159, 2.284093, 0.4965084, 0.0, 0.06927908],
    );
    let clamped = Gate::Clamped {
        alpha: 1.702,
        limit: 0.5,
    };
    assert_close(
        &mixture(clamped, true),
        &[1.566307, 1.084359, -1.232853, -1.808032, 1.96183, 1.896685],
    );
}

#[test]
fn an_error_of_the_weights_is_handed_on() {
    let routing = [vec![Choice { expert: 3, weight: 1.0 }]];
    let found = experts(&[1.0], 1, &routing, Gate::Activated(Unary::Silu), Err);
    assert_eq!(found, Err(3));
}
