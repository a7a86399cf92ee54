//! What the kernels should compute, in f64.

use half::f16;
use kiln_bundle::StepWord;
use kiln_codegen_tests::Data;
use kiln_compiler::kernels::{AttentionShape, CacheSpec, CacheType};

/// A step buffer for `tokens` tokens from `position` on.
pub fn step_at(position: u32, tokens: u32) -> Data {
    let mut words = [0u32; StepWord::COUNT];
    words[StepWord::Position as usize] = position;
    words[StepWord::Tokens as usize] = tokens;
    (&words).into()
}

/// `base^(-2i / rotary)`.
pub fn inv_freq(rotary: u32, base: f64) -> Vec<f32> {
    (0..rotary / 2)
        .map(|i| base.powf(f64::from(2 * i) / -f64::from(rotary)) as f32)
        .collect()
}

/// A head turned by rotary embedding. The angle is a product in f32, as in transformers; all else is f64.
pub fn rotated(mut head: Vec<f64>, position: u32, inv_freq: &[f32], attention_factor: f32) -> Vec<f64> {
    let half = inv_freq.len();
    for (i, frequency) in inv_freq.iter().enumerate() {
        let (sine, cosine) = f64::from(position as f32 * frequency).sin_cos();
        let factor = f64::from(attention_factor);
        let (a, b) = (head[i], head[i + half]);
        head[i] = (a * cosine - b * sine) * factor;
        head[i + half] = (b * cosine + a * sine) * factor;
    }
    head
}

/// `x / sqrt(mean(x²) + eps) · weight`.
pub fn normed(head: &[f64], weight: &[f32], eps: f32, unit_offset: bool) -> Vec<f64> {
    let mean = head.iter().map(|x| x * x).sum::<f64>() / head.len() as f64;
    let scale = 1.0 / (mean + f64::from(eps)).sqrt();
    let one = if unit_offset { 1.0 } else { 0.0 };
    head.iter()
        .zip(weight)
        .map(|(x, &w)| x * scale * (f64::from(w) + one))
        .collect()
}

/// Where a row of the cache starts: `plane` 0 keys, 1 values.
pub fn cache_row(cache: &CacheSpec, position: u32, plane: u32, kv_head: u32) -> usize {
    let slot = cache.ring.map_or(position, |ring| position % ring);
    (((slot * 2 + plane) * cache.kv_heads + kv_head) * cache.width) as usize
}

/// Numbers as a cache holds them.
pub fn cache_data(cache: &CacheSpec, numbers: &[f32]) -> Data {
    match cache.element {
        CacheType::F32 => numbers.into(),
        CacheType::F16 => numbers
            .iter()
            .map(|&x| f16::from_f32(x).to_bits())
            .collect::<Vec<_>>()
            .as_slice()
            .into(),
    }
}

/// `x` rounded as the cache rounds.
pub fn cache_rounded(cache: &CacheSpec, x: f32) -> f32 {
    match cache.element {
        CacheType::F32 => x,
        CacheType::F16 => f16::from_f32(x).to_f32(),
    }
}

/// The numbers of a cache's bytes.
pub fn cache_numbers(cache: &CacheSpec, bytes: &[u8]) -> Vec<f32> {
    match cache.element {
        CacheType::F32 => bytemuck::pod_collect_to_vec(bytes),
        CacheType::F16 => {
            let bits: Vec<u16> = bytemuck::pod_collect_to_vec(bytes);
            bits.into_iter().map(|bits| f16::from_bits(bits).to_f32()).collect()
        }
    }
}

/// Sinks of `heads` heads: from some that weigh nothing to some that take almost all.
pub fn sinks(heads: u32) -> Vec<f32> {
    (0..heads)
        .map(|head| [2.0, -40.0, 0.5, 12.0, -1.5][head as usize % 5])
        .collect()
}

/// Attention of one head of one token at `position`: softmax over the visible positions of scaled, capped products, and
/// over the head's of [`sinks`], if the shape has them.
pub fn attention(shape: &AttentionShape, q: &[f32], cache: &[f32], position: u32, head: u32) -> Vec<f64> {
    let layout = &shape.cache;
    let width = layout.width as usize;
    let kv_head = head / (shape.heads / layout.kv_heads);
    let first = shape.window.map_or(0, |window| (position + 1).saturating_sub(window));
    let row = |position: u32, plane: u32| &cache[cache_row(layout, position, plane, kv_head)..][..width];
    let scores: Vec<f64> = (first..=position)
        .map(|past| {
            let dot: f64 = q
                .iter()
                .zip(row(past, 0))
                .map(|(&q, &k)| f64::from(q) * f64::from(k))
                .sum();
            let score = dot * f64::from(shape.scale);
            shape
                .softcap
                .map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
        })
        .collect();
    let sink = shape.sinks.then(|| f64::from(sinks(shape.heads)[head as usize]));
    let largest = scores.iter().copied().chain(sink).fold(f64::MIN, f64::max);
    let sum: f64 = scores
        .iter()
        .copied()
        .chain(sink)
        .map(|score| (score - largest).exp())
        .sum();
    let mut out = vec![0.0; width];
    for (past, score) in (first..=position).zip(scores) {
        let probability = (score - largest).exp() / sum;
        for (out, &v) in out.iter_mut().zip(row(past, 1)) {
            *out += probability * f64::from(v);
        }
    }
    out
}
