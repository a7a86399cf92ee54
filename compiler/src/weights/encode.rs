//! One row at a time into a bundle's formats: repacked without loss, or rounded from f32.

use half::{bf16, f16};
use thiserror::Error;

use super::WeightFormat;
use crate::checkpoint::{Run, SourceType, decode, for_each_run};

/// What a format cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadValue {
    #[error("a value is infinite or not a number")]
    NotFinite,
    #[error("a value or scale is too large for f16")]
    TooLarge,
    #[error("the scale of a block is not a number or too large")]
    Scale,
    /// Nothing asks for it: see [`super::format_for`].
    #[error("values that are not MXFP4 already are not rounded to it")]
    NoMxfp4,
}

/// Encodes a row of `from`; `data` and `scales` are the row's slices, zeroed. `scratch` only saves
/// allocations.
pub(super) fn encode_row(
    source: SourceType,
    from: &[u8],
    format: WeightFormat,
    data: &mut [u8],
    scales: &mut [u8],
    scratch: &mut Vec<f32>,
) -> Result<(), BadValue> {
    match (source, format) {
        (SourceType::Q8_0 | SourceType::Q5_0 | SourceType::Q4_0, WeightFormat::Q8 { block: 32 })
        | (SourceType::Q6K, WeightFormat::Q8 { block: 16 }) => repack(source, from, scales, 2, |run, block| {
            let length = run.q.len();
            let bytes = &mut data[block * length..(block + 1) * length];
            bytes.copy_from_slice(bytemuck::cast_slice(run.q));
        }),
        (SourceType::Q4_0, WeightFormat::Q4 { min: false }) => repack(source, from, scales, 2, |run, block| {
            write_nibbles(run.q.iter().map(|q| (q + 8) as u8), &mut data[block * 16..]);
        }),
        (SourceType::Q4_1 | SourceType::Q4K, WeightFormat::Q4 { min: true }) => {
            repack(source, from, scales, 4, |run, block| {
                write_nibbles(run.q.iter().map(|&q| q as u8), &mut data[block * 16..]);
            })
        }
        (SourceType::Mxfp4, WeightFormat::Mxfp4) => repack_mxfp4(from, data, scales),
        (SourceType::Bf16, WeightFormat::Bf16) => copy_halves(from, data, 0x7f80),
        (SourceType::F16, WeightFormat::F16) => copy_halves(from, data, 0x7c00),
        _ => {
            scratch.clear();
            decode(source, from, scratch);
            encode_values(scratch, format, data, scales)
        }
    }
}

/// Copies 16-bit floats whose exponent has these bits.
fn copy_halves(from: &[u8], data: &mut [u8], exponent: u16) -> Result<(), BadValue> {
    let halves = from.as_chunks::<2>().0.iter();
    // Without a branch for each.
    let special = halves.fold(false, |special, half| {
        special | (u16::from_le_bytes(*half) & exponent == exponent)
    });
    if special {
        return Err(BadValue::NotFinite);
    }
    data[..from.len()].copy_from_slice(from);
    Ok(())
}

/// Blocks as [`SourceType::Mxfp4`] has them into those of [`WeightFormat::Mxfp4`].
fn repack_mxfp4(from: &[u8], data: &mut [u8], scales: &mut [u8]) -> Result<(), BadValue> {
    const LOW: u32 = 0x0f0f_0f0f;
    let blocks = from.as_chunks::<17>().0.iter();
    for ((block, data), slot) in blocks.zip(data.as_chunks_mut::<16>().0).zip(scales) {
        let [scale, codes @ ..] = block;
        let word = |at: usize| u32::from_le_bytes([codes[at], codes[at + 1], codes[at + 2], codes[at + 3]]);
        let words = [word(0), word(4), word(8), word(12)];
        // Low nibbles are elements 0 to 15, high nibbles 16 to 31.
        let packed = [
            words[0] & LOW | (words[1] & LOW) << 4,
            words[2] & LOW | (words[3] & LOW) << 4,
            words[0] >> 4 & LOW | words[1] & !LOW,
            words[2] >> 4 & LOW | words[3] & !LOW,
        ];
        for (slot, word) in data.as_chunks_mut::<4>().0.iter_mut().zip(packed) {
            *slot = positive_zeros(word).to_le_bytes();
        }
        if *scale > MXFP4_LARGEST_SCALE {
            return Err(BadValue::Scale);
        }
        *slot = *scale;
    }
    Ok(())
}

/// Beyond it, the largest code (6) is infinite in f32; 255 means "not a number".
const MXFP4_LARGEST_SCALE: u8 = 252;

/// Eight E2M1 codes with minus zero (8) as zero.
fn positive_zeros(codes: u32) -> u32 {
    let magnitudes = codes & 0x7777_7777;
    // The top bit of each nibble, if its other bits are not all zero.
    let not_zero = (magnitudes + 0x7777_7777) & 0x8888_8888;
    magnitudes | codes & not_zero
}

/// Writes the scale of each run (and its minimum, with 4 bytes a block) and leaves the integers to
/// `write`.
fn repack(
    source: SourceType,
    from: &[u8],
    scales: &mut [u8],
    scale_bytes: usize,
    mut write: impl FnMut(&Run<'_>, usize),
) -> Result<(), BadValue> {
    let mut block = 0;
    let mut result = Ok(());
    for_each_run(source, from, |run| {
        write(&run, block);
        let slot = &mut scales[block * scale_bytes..(block + 1) * scale_bytes];
        block += 1;
        result = result.and(write_scale(slot, run.scale, run.min));
    });
    result
}

fn encode_values(values: &[f32], format: WeightFormat, data: &mut [u8], scales: &mut [u8]) -> Result<(), BadValue> {
    if !values.iter().all(|value| value.is_finite()) {
        return Err(BadValue::NotFinite);
    }
    match format {
        WeightFormat::F32 => {
            for (slot, value) in data.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                *slot = value.to_le_bytes();
            }
        }
        WeightFormat::F16 => {
            for (slot, &value) in data.as_chunks_mut::<2>().0.iter_mut().zip(values) {
                *slot = finite_half(value)?.to_le_bytes();
            }
        }
        WeightFormat::Bf16 => {
            for (slot, &value) in data.as_chunks_mut::<2>().0.iter_mut().zip(values) {
                *slot = bf16::from_f32(value).to_le_bytes();
            }
        }
        WeightFormat::Q8 { block } => {
            let block = block as usize;
            for (i, values) in values.chunks(block).enumerate() {
                let bytes = &mut data[i * block..(i + 1) * block];
                quantize_q8(values, bytes, &mut scales[i * 2..i * 2 + 2])?;
            }
        }
        WeightFormat::Mxfp4 => return Err(BadValue::NoMxfp4),
        WeightFormat::Q4 { min } => {
            let scale_bytes = if min { 4 } else { 2 };
            for (i, values) in values.chunks(32).enumerate() {
                let bytes = &mut data[i * 16..(i + 1) * 16];
                let scale = &mut scales[i * scale_bytes..(i + 1) * scale_bytes];
                // Padding must decode to zero, which a scale and a minimum of their own hardly
                // allow: a block that ends in padding gets the symmetric range.
                if min && values.len() == 32 {
                    quantize_q4_range(values, bytes, scale)?;
                } else {
                    quantize_q4(values, bytes, scale)?;
                }
            }
        }
    }
    Ok(())
}

/// ggml's Q8_0: `d = max|x| / 127`.
fn quantize_q8(values: &[f32], data: &mut [u8], scale: &mut [u8]) -> Result<(), BadValue> {
    let largest = values.iter().fold(0f32, |most, value| most.max(value.abs()));
    write_scale(scale, largest / 127.0, 0.0)?;
    let inverse = inverse(scale);
    for (slot, value) in data.iter_mut().zip(values) {
        *slot = round(value * inverse + 128.0).wrapping_sub(128);
    }
    Ok(())
}

/// ggml's Q4_0: the value of largest magnitude becomes -8, its sign goes to the scale. With room
/// for a minimum that is `-8 · scale`.
fn quantize_q4(values: &[f32], data: &mut [u8], scale: &mut [u8]) -> Result<(), BadValue> {
    let largest = values.iter().fold(
        0f32,
        |most: f32, &value| {
            if value.abs() > most.abs() { value } else { most }
        },
    );
    let d = finite_half(largest / -8.0)?.to_f32();
    write_scale(scale, d, d * -8.0)?;
    let inverse = inverse(scale);
    // Short values are followed by padding: q = 8 is zero.
    let padding = std::iter::repeat_n(8, 32 - values.len());
    let q = |value: &f32| round(value * inverse + 8.0).min(15);
    write_nibbles(values.iter().map(q).chain(padding), data);
    Ok(())
}

/// ggml's Q4_1: 16 steps from the smallest to the largest value.
fn quantize_q4_range(values: &[f32], data: &mut [u8], scale: &mut [u8]) -> Result<(), BadValue> {
    let smallest = values.iter().copied().fold(f32::INFINITY, f32::min);
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // Halved first: the difference of two large values may be infinite.
    let step = (largest / 15.0) - (smallest / 15.0);
    write_scale(scale, step, smallest)?;
    let inverse = inverse(scale);
    let min = finite_half(smallest)?.to_f32();
    let q = |value: &f32| round((value - min) * inverse).min(15);
    write_nibbles(values.iter().map(q), data);
    Ok(())
}

/// To the nearest integer of a byte; much faster than `f32::round` for what is not negative.
fn round(value: f32) -> u8 {
    (value + 0.5) as u8
}

/// Words of eight nibbles: in each byte `b` of word `w`, element `8w + b` low and `8w + 4 + b` high.
fn write_nibbles(q: impl Iterator<Item = u8>, data: &mut [u8]) {
    for (i, q) in q.take(32).enumerate() {
        data[i / 8 * 4 + i % 4] |= q << (i / 4 % 2 * 4);
    }
}

/// Writes an f16 scale, and the minimum behind it if there is room for one.
fn write_scale(slot: &mut [u8], scale: f32, min: f32) -> Result<(), BadValue> {
    slot[..2].copy_from_slice(&finite_half(scale)?.to_le_bytes());
    if let [_, _, rest @ ..] = slot
        && rest.len() == 2
    {
        rest.copy_from_slice(&finite_half(min)?.to_le_bytes());
    }
    Ok(())
}

/// `1 / scale` of the scale as stored, so that quantizing corrects for its rounding; 0 for 0.
fn inverse(scale: &[u8]) -> f32 {
    let scale = f16::from_le_bytes([scale[0], scale[1]]).to_f32();
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

fn finite_half(value: f32) -> Result<f16, BadValue> {
    let half = f16::from_f32(value);
    if half.is_finite() {
        Ok(half)
    } else if value.is_finite() {
        Err(BadValue::TooLarge)
    } else {
        Err(BadValue::NotFinite)
    }
}
