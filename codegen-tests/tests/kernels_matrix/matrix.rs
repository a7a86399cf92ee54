//! Random weight matrices in every stored format, and their values, read as the format's documentation says.

use half::{bf16, f16};
use kiln_codegen_tests::Data;
use kiln_compiler::weights::WeightFormat;

use crate::support::Random;

pub const FORMATS: [WeightFormat; 8] = [
    WeightFormat::F32,
    WeightFormat::F16,
    WeightFormat::Bf16,
    WeightFormat::Q8 { block: 32 },
    WeightFormat::Q8 { block: 16 },
    WeightFormat::Q4 { min: false },
    WeightFormat::Q4 { min: true },
    WeightFormat::Mxfp4,
];

/// The E2M1 codes' values, from the OCP Microscaling Formats specification, section 5.3.3.
const E2M1: [f64; 16] = [
    0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0,
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
            WeightFormat::Mxfp4 => {
                // Exponents around -6 keep sums of the same size as those of the other formats.
                let scales: Vec<u8> = (0..count / 32).map(|_| 118 + (random.bits() % 6) as u8).collect();
                return Matrix::mxfp4(rows, cols, scales, |_| random.bits() as u8);
            }
        };
        let values = all.chunks(padded).flat_map(|row| &row[..cols]).copied().collect();
        Matrix { bindings, values }
    }

    /// MXFP4 with these scales (of whole rows, one for each block of 32), and the codes that `code` gives for each
    /// element.
    pub fn mxfp4(rows: usize, cols: usize, scales: Vec<u8>, mut code: impl FnMut(usize) -> u8) -> Self {
        let padded = cols.div_ceil(32) * 32;
        let mut bytes = vec![0u8; rows * padded / 2];
        let mut all = Vec::new();
        for i in 0..rows * padded {
            // Minus zero is stored as zero.
            let code = match code(i) & 15 {
                8 => 0,
                code => code,
            };
            let (word, within) = (i / 8, i % 8);
            bytes[word * 4 + within % 4] |= if within < 4 { code } else { code << 4 };
            all.push(E2M1[usize::from(code)] * 2f64.powi(i32::from(scales[i / 32]) - 127));
        }
        let mut words = scales;
        words.resize(words.len().next_multiple_of(4), 0);
        let values = all.chunks(padded).flat_map(|row| &row[..cols]).copied().collect();
        Matrix {
            bindings: vec![(&bytes).into(), (&words).into()],
            values,
        }
    }
}
