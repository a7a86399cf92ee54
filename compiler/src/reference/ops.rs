//! One plain function for each operator, on row-major f32 slices.
//!
//! `x` is `tokens` rows of some width, one behind the other. Sizes must fit each other: the evaluator
//! checks weights before it calls, and shapes come from the graph.

mod mixture;
mod recurrent;

use rayon::prelude::*;

pub use mixture::{Choice, ExpertWeights, experts, gated, route};
pub use recurrent::{DeltaInputs, DeltaShape, convolution, gated_delta};

use crate::graph::{AttentionSpec, Binary, RopeSpec, Unary};

/// `Σ aᵢ bᵢ`, in eight partial sums so that the loop runs on vector registers.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_lanes, a_rest) = a.as_chunks::<8>();
    let (b_lanes, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0_f32; 8];
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// Row `id` of `table [vocab, columns]` for each id. Every id must be below `vocab`.
pub fn gather(table: &[f32], columns: usize, ids: &[u32]) -> Vec<f32> {
    ids.iter()
        .flat_map(|&id| &table[id as usize * columns..][..columns])
        .copied()
        .collect()
}

/// `y[t, o] = Σᵢ x[t, i] · weight[o, i] + bias[o]`, with `x [T, inputs]` and `weight [out, inputs]`.
pub fn linear(x: &[f32], weight: &[f32], bias: Option<&[f32]>, inputs: usize) -> Vec<f32> {
    let (tokens, outputs) = (x.len() / inputs, weight.len() / inputs);
    // By weight row, so that each row is read once for all tokens: [out, T].
    let mut by_output = vec![0.0; outputs * tokens];
    by_output
        .par_chunks_mut(tokens.max(1))
        .zip(weight.par_chunks(inputs))
        .enumerate()
        .with_min_len(16)
        .for_each(|(output, (sums, row))| {
            let bias = bias.map_or(0.0, |bias| bias[output]);
            for (sum, x) in sums.iter_mut().zip(x.chunks(inputs)) {
                *sum = dot(x, row) + bias;
            }
        });
    (0..tokens * outputs)
        .map(|i| by_output[i % outputs * tokens + i / outputs])
        .collect()
}

/// `x / sqrt(mean(x²) + eps) · w` over each row of `weight.len()`; `1 + w` for `w` with `unit_offset`.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, unit_offset: bool) -> Vec<f32> {
    let offset = if unit_offset { 1.0 } else { 0.0 };
    let mut normed = Vec::with_capacity(x.len());
    for row in x.chunks(weight.len()) {
        let mean_square = dot(row, row) / row.len() as f32;
        let inverse = 1.0 / (mean_square + eps).sqrt();
        normed.extend(row.iter().zip(weight).map(|(x, w)| x * inverse * (offset + w)));
    }
    normed
}

/// The function itself, of one element.
pub fn unary(function: Unary, x: f32) -> f32 {
    match function {
        Unary::Silu => x * sigmoid(x),
        Unary::GeluTanh => {
            let sqrt_2_over_pi = (2.0 / std::f32::consts::PI).sqrt();
            0.5 * x * (1.0 + (sqrt_2_over_pi * (x + 0.044715 * x * x * x)).tanh())
        }
        Unary::GeluErf => 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)),
        Unary::Sigmoid => sigmoid(x),
        Unary::Relu => x.max(0.0),
        Unary::Tanh => x.tanh(),
    }
}

/// The function itself, of two elements.
pub fn binary(function: Binary, a: f32, b: f32) -> f32 {
    match function {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// `2/√π · e^(-x²) · Σₙ 2ⁿ x^(2n+1) / (1·3·5 ... (2n+1))`, in f64: all terms have one sign, so nothing
/// cancels (Abramowitz & Stegun 7.1.6). Beyond 6 the result is ±1 in f32.
fn erf(x: f32) -> f32 {
    let x = f64::from(x);
    if x.is_nan() || x.abs() > 6.0 {
        return x.clamp(-1.0, 1.0) as f32;
    }
    let (mut term, mut sum, mut odd) = (x, 0.0, 1.0);
    while sum + term != sum {
        sum += term;
        odd += 2.0;
        term *= 2.0 * x * x / odd;
    }
    (std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum) as f32
}

/// `cap · tanh(x / cap)`.
pub fn softcap(x: f32, cap: f32) -> f32 {
    cap * (x / cap).tanh()
}

/// `min(max(x, -limit), limit)`
pub fn clamp(x: f32, limit: f32) -> f32 {
    x.max(-limit).min(limit)
}

/// Each row of `columns` times its number: `x [T, columns]`, `factors [T, 1]`.
pub fn scale_rows(x: &[f32], factors: &[f32], columns: usize) -> Vec<f32> {
    let rows = x.chunks(columns).zip(factors);
    rows.flat_map(|(row, factor)| row.iter().map(move |x| x * factor))
        .collect()
}

/// Turns each head of `x [T, heads, width]` by its token's position; row 0 stands at `first_position`.
///
/// With `r` rotated elements, `a = position · inv_freq[i]` and `f` the attention factor, the pair
/// `(x[i], x[i + r/2])` becomes `(x[i]·f·cos a - x[i + r/2]·f·sin a, x[i + r/2]·f·cos a + x[i]·f·sin a)`.
pub fn rope(x: &[f32], heads: usize, width: usize, first_position: usize, spec: &RopeSpec) -> Vec<f32> {
    let half = spec.inv_freq.len();
    let mut turned = x.to_vec();
    for (token, row) in turned.chunks_mut(heads * width).enumerate() {
        let position = (first_position + token) as f32;
        for (i, inv_freq) in spec.inv_freq.iter().enumerate() {
            let (sin, cos) = (position * inv_freq).sin_cos();
            let (sin, cos) = (sin * spec.attention_factor, cos * spec.attention_factor);
            for head in row.chunks_mut(width) {
                let (a, b) = (head[i], head[i + half]);
                head[i] = a * cos - b * sin;
                head[i + half] = b * cos + a * sin;
            }
        }
    }
    turned
}

/// Sizes of an attention.
#[derive(Clone, Copy, Debug)]
pub struct AttentionSizes {
    /// Query heads.
    pub heads: usize,
    /// Divides `heads`: each serves `heads / kv_heads` consecutive query heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub width: usize,
}

/// Causal attention of `q [T, heads, width]`, whose row 0 stands at `first_position`, over `keys` and
/// `values [positions, kv_heads, width]`, which hold all positions from 0 on.
///
/// `o[t, h] = Σⱼ softmaxⱼ(s[j]) · v[j, h / group]`, `s[j] = cap(q[t, h] · k[j, h / group] · scale)`, over
/// the positions `j` that the token at `p` sees: `j <= p`, and `j > p - window` where there is a window. `sinks [heads]`
/// are one more score each in the softmax, with no value behind it.
pub fn attention(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    sinks: Option<&[f32]>,
    first_position: usize,
    shape: AttentionSizes,
    spec: &AttentionSpec,
) -> Vec<f32> {
    let AttentionSizes { heads, kv_heads, width } = shape;
    let mut output = vec![0.0; q.len()];
    for (row, (q, output)) in q.chunks(width).zip(output.chunks_mut(width)).enumerate() {
        let position = first_position + row / heads;
        let kv_head = row % heads / (heads / kv_heads);
        let first_seen = spec.window.map_or(0, |window| (position + 1).saturating_sub(window));
        let entry = |j: usize| (j * kv_heads + kv_head) * width..(j * kv_heads + kv_head + 1) * width;

        let scores: Vec<f32> = (first_seen..=position)
            .map(|j| dot(q, &keys[entry(j)]) * spec.scale)
            .map(|score| spec.softcap.map_or(score, |cap| softcap(score, cap)))
            .collect();
        let sink = sinks.map(|sinks| sinks[row % heads]);
        let largest = scores.iter().copied().chain(sink).fold(f32::NEG_INFINITY, f32::max);
        let exponentials: Vec<f32> = scores.iter().map(|score| (score - largest).exp()).collect();
        let total: f32 = exponentials.iter().sum::<f32>() + sink.map_or(0.0, |sink| (sink - largest).exp());
        for (j, exponential) in (first_seen..=position).zip(exponentials) {
            let probability = exponential / total;
            for (o, v) in output.iter_mut().zip(&values[entry(j)]) {
                *o += probability * v;
            }
        }
    }
    output
}

/// Columns `start .. start + len` of each row of `columns`.
pub fn slice(x: &[f32], columns: usize, start: usize, len: usize) -> Vec<f32> {
    x.chunks(columns)
        .flat_map(|row| &row[start..start + len])
        .copied()
        .collect()
}

#[cfg(test)]
mod tests;
