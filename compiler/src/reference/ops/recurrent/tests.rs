//! Expected numbers were computed in double precision from the formulas, by hand-written Python loops.

use super::*;
use crate::reference::ops::tests::assert_close;

#[test]
fn a_convolution_sees_zeros_before_the_first_token() {
    // Four positions of two channels, three taps.
    let inputs = [1.0, 2.0, -1.0, 0.5, 3.0, -2.0, 0.25, 4.0];
    let weight = [0.5, -1.0, 2.0, 1.0, 0.1, -0.3];
    assert_close(
        &convolution(&inputs, 0, &weight, None, 2),
        &[2.0, -0.6, -3.0, 0.05, 7.5, 2.65, -3.0, -0.9],
    );
    assert_close(
        &convolution(&inputs, 2, &weight, Some(&[0.1, -0.2]), 2),
        &[7.6, 2.45, -2.9, -1.1],
    );
}

const Q: [f32; 9] = [1.0, -0.5, 2.0, 0.3, 0.7, -1.0, -2.0, 0.1, 0.4];
const K: [f32; 9] = [0.5, 1.0, -1.0, 2.0, -0.3, 0.2, 0.0, 1.5, 1.0];
const V: [f32; 12] = [1.0, -1.0, 0.5, 2.0, 0.2, 0.3, -0.7, 1.0, 3.0, -2.0, 1.0, 0.4];
const A: [f32; 6] = [0.3, -1.0, 2.0, 0.0, -0.5, 30.0];
const B: [f32; 6] = [0.5, -0.5, 3.0, 0.0, -2.0, 1.0];

/// Tokens `from .. to` of three; one key head of 3, two value heads of 2.
fn delta(from: usize, to: usize, states: &mut Vec<f32>) -> Vec<f32> {
    let shape = DeltaShape {
        key_heads: 1,
        value_heads: 2,
        key_width: 3,
        value_width: 2,
    };
    let inputs = DeltaInputs {
        q: &Q[3 * from..3 * to],
        k: &K[3 * from..3 * to],
        v: &V[4 * from..4 * to],
        a: &A[2 * from..2 * to],
        b: &B[2 * from..2 * to],
        a_log: &[0.2, -1.5],
        dt_bias: &[0.1, -0.4],
    };
    gated_delta(&inputs, shape, states)
}

#[test]
fn the_delta_rule_replaces_what_a_key_stood_for() {
    let mut states = Vec::new();
    assert_close(
        &delta(0, 3, &mut states),
        &[
            -0.2091266,
            0.2091266,
            -0.06342085,
            -0.2536834,
            0.03145723,
            -0.01100418,
            0.07974709,
            0.4005795,
            -0.02861329,
            -0.1007991,
            0.06326869,
            0.02466102,
        ],
    );
    assert_eq!(states.len(), 3 * 12);
    assert_close(
        &states[24..],
        &[
            0.1041874,
            0.1463056,
            0.2981034,
            -0.2347719,
            0.1934017,
            -0.1010821,
            -0.0004088126,
            0.0008966365,
            0.608456,
            0.2437524,
            0.4052871,
            0.161607,
        ],
    );
}

#[test]
fn a_state_carries_over_and_can_be_cut_back() {
    let mut states = Vec::new();
    let whole = delta(0, 3, &mut states);
    states.truncate(12);
    assert_eq!(delta(1, 3, &mut states), whole[4..]);
}
