//! Operators that sum up the tokens before: short convolutions, and the gated delta rule.

use rayon::prelude::*;

use super::{dot, sigmoid};

/// Causal depthwise convolution: `out[t, c] = Σ_j weight[c, j] · inputs[t - taps + 1 + j, c] + bias[c]`.
///
/// `inputs [positions, channels]` holds what came in at all positions from 0 on (zeros before), `weight` is
/// `[channels, taps]`; the results are those of the positions from `first_position` on.
pub fn convolution(
    inputs: &[f32],
    first_position: usize,
    weight: &[f32],
    bias: Option<&[f32]>,
    channels: usize,
) -> Vec<f32> {
    let (positions, taps) = (inputs.len() / channels, weight.len() / channels);
    let mut output = Vec::with_capacity((positions - first_position) * channels);
    for position in first_position..positions {
        for channel in 0..channels {
            let mut sum = bias.map_or(0.0, |bias| bias[channel]);
            for tap in (taps - 1).saturating_sub(position)..taps {
                sum += weight[channel * taps + tap] * inputs[(position + tap + 1 - taps) * channels + channel];
            }
            output.push(sum);
        }
    }
    output
}

/// Sizes of a gated delta rule.
#[derive(Clone, Copy, Debug)]
pub struct DeltaShape {
    /// Divides `value_heads`: each serves `value_heads / key_heads` consecutive value heads.
    pub key_heads: usize,
    pub value_heads: usize,
    pub key_width: usize,
    pub value_width: usize,
}

/// What the gated delta rule takes for a step of `T` tokens.
#[derive(Clone, Copy, Debug)]
pub struct DeltaInputs<'v> {
    /// `[T, key_heads, key_width]`
    pub q: &'v [f32],
    /// `[T, key_heads, key_width]`
    pub k: &'v [f32],
    /// `[T, value_heads, value_width]`
    pub v: &'v [f32],
    /// `[T, value_heads]`, how fast a head forgets.
    pub a: &'v [f32],
    /// `[T, value_heads]`, how much a head learns.
    pub b: &'v [f32],
    /// `[value_heads]`
    pub a_log: &'v [f32],
    /// `[value_heads]`
    pub dt_bias: &'v [f32],
}

/// The gated delta rule, see [`Op::GatedDelta`](crate::graph::Op::GatedDelta): `[T, value_heads, value_width]`.
///
/// `states` holds the state `[value_heads, key_width, value_width]` as it was after each token so far; one for each
/// token of the step is added.
pub fn gated_delta(inputs: &DeltaInputs, shape: DeltaShape, states: &mut Vec<f32>) -> Vec<f32> {
    let DeltaShape {
        key_heads,
        value_heads,
        key_width,
        value_width,
    } = shape;
    let of_head = key_width * value_width;
    let mut output = vec![0.0; inputs.v.len()];
    for (token, output) in output.chunks_mut(value_heads * value_width).enumerate() {
        let before = states.len();
        match before.checked_sub(value_heads * of_head) {
            Some(last) => states.extend_from_within(last..),
            None => states.resize(value_heads * of_head, 0.0),
        }
        let heads = states[before..]
            .par_chunks_mut(of_head)
            .zip(output.par_chunks_mut(value_width));
        heads.enumerate().for_each(|(head, (state, output))| {
            let key_head = token * key_heads + head / (value_heads / key_heads);
            let value_head = token * value_heads + head;
            let scale = 1.0 / (key_width as f32).sqrt();
            let q: Vec<f32> = l2(&inputs.q[key_head * key_width..][..key_width])
                .map(|q| q * scale)
                .collect();
            let k: Vec<f32> = l2(&inputs.k[key_head * key_width..][..key_width]).collect();
            let v = &inputs.v[value_head * value_width..][..value_width];
            let forgets = inputs.a_log[head].exp() * softplus(inputs.a[value_head] + inputs.dt_bias[head]);
            let learns = sigmoid(inputs.b[value_head]);

            let decay = (-forgets).exp();
            state.iter_mut().for_each(|s| *s *= decay);
            let remembered = combine(&k, state, value_width);
            let rows = state.chunks_mut(value_width).zip(&k);
            for (row, k) in rows {
                for ((s, v), r) in row.iter_mut().zip(v).zip(&remembered) {
                    *s += k * learns * (v - r);
                }
            }
            output.copy_from_slice(&combine(&q, state, value_width));
        });
    }
    output
}

/// `x / sqrt(Σ x² + 1e-6)`
fn l2(x: &[f32]) -> impl Iterator<Item = f32> {
    let inverse = 1.0 / (dot(x, x) + 1e-6).sqrt();
    x.iter().map(move |x| x * inverse)
}

/// `Sᵀ x` of `state [x.len(), width]`.
fn combine(x: &[f32], state: &[f32], width: usize) -> Vec<f32> {
    let mut sums = vec![0.0; width];
    for (x, row) in x.iter().zip(state.chunks(width)) {
        for (sum, s) in sums.iter_mut().zip(row) {
            *sum += x * s;
        }
    }
    sums
}

/// `ln(1 + e^x)`, without overflow.
fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests;
