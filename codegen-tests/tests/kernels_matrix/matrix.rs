//! Random weight matrices in every stored format, and their values, read as the format's documentation says.

use half::{bf16, f16};
use kiln_codegen_tests::Data;
use kiln_compiler::weights::WeightFormat;

use crate::support::Random;

pub const FORMATS: [WeightFormat; 7] = [
    WeightFormat::F32,
    WeightFormat::F16,
    WeightFormat::Bf16,
    WeightFormat::Q8 { block: 32 },
    WeightFormat::Q8 { block: 16 },
    WeightFormat::Q4 { min: false },
    WeightFormat::Q4 { min: true },
];

pub struct Matrix {
    /// The bindings: elements, then scales.
    pub bindings: Vec<Data>,
    /// `[rows][cols]`, without padding.
    pub values: Vec<f64>,
}

impl Matrix {
    /// Any bits that a matrix may have; what lies in the padding is random too, kernels may not look at it.
    pub fn random(format: WeightFormat, rows: usize, cols: usize, random: &mut Random) -> Self {
        let padded = cols.div_ceil(32) * 32;
        let count = rows * padded;
        let mut half = |scale: f32| f16::from_f32(random.number() * scale);
        let halves = |values: &[f16]| values.iter().map(|value| value.to_bits()).collect::<Vec<u16>>();
        let (bindings, all): (Vec<Data>, Vec<f64>) = match format {
            WeightFormat::F32 => {
                let values = random.numbers(count);
                (
                    vec![(&values).into()],
                    values.iter().map(|&value| value.into()).collect(),
                )
            }
            WeightFormat::F16 => {
                let values: Vec<f16> = (0..count).map(|_| half(1.0)).collect();
                (
                    vec![(&halves(&values)).into()],
                    values.iter().map(|&value| value.into()).collect(),
                )
            }
            WeightFormat::Bf16 => {
                let values: Vec<bf16> = random.numbers(count).into_iter().map(bf16::from_f32).collect();
                let bits: Vec<u16> = values.iter().map(|value| value.to_bits()).collect();
                (vec![(&bits).into()], values.iter().map(|&value| value.into()).collect())
            }
            WeightFormat::Q8 { block } => {
                let scales: Vec<f16> = (0..count / block as usize).map(|_| half(0.02)).collect();
                let bytes: Vec<u8> = (0..count).map(|_| random.bits() as u8).collect();
                let value = |i: usize| f64::from(scales[i / block as usize]) * f64::from(bytes[i] as i8);
                (
                    vec![(&bytes).into(), (&halves(&scales)).into()],
                    (0..count).map(value).collect(),
                )
            }
            WeightFormat::Q4 { min } => {
                let per_block = if min { 2 } else { 1 };
                let scales: Vec<f16> = (0..count / 32 * per_block).map(|_| half(0.2)).collect();
                let bytes: Vec<u8> = (0..count / 2).map(|_| random.bits() as u8).collect();
                let value = |i: usize| {
                    // Eight elements a word: the low nibbles of its four bytes, then the high ones.
                    let (word, within) = (i / 8, i % 8);
                    let byte = bytes[word * 4 + within % 4];
                    let q = f64::from(if within < 4 { byte & 15 } else { byte >> 4 });
                    let scale = |n: usize| f64::from(scales[i / 32 * per_block + n]);
                    if min {
                        scale(0) * q + scale(1)
                    } else {
                        scale(0) * (q - 8.0)
                    }
                };
                (
                    vec![(&bytes).into(), (&halves(&scales)).into()],
                    (0..count).map(value).collect(),
                )
            }
        };
        let values = all.chunks(padded).flat_map(|row| &row[..cols]).copied().collect();
        Matrix { bindings, values }
    }
}
