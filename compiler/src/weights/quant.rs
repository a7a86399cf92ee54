use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::WeightFormat;
use crate::checkpoint::SourceType;

/// What `--quant` asks of weight matrices. Vectors (norms, biases) are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Quant {
    /// As the checkpoint has it.
    #[default]
    Keep,
    F32,
    F16,
    /// 8 bits, a scale for each 32 elements.
    Q8,
    /// 4 bits, a scale for each 32 elements.
    Q4,
}

/// The format for a matrix that the checkpoint holds as `source`.
///
/// `Keep` is lossless, but for the scales of the K types: Q4_K and Q6_K have scales of two levels,
/// whose product is rounded to f16 (relative error at most 2^-11). Sources already quantized with
/// the asked number of bits are kept as they are (Q5_0 and Q6_K count as 8 bits); MXFP4 always is.
pub fn format_for(source: SourceType, quant: Quant) -> WeightFormat {
    match (quant, source) {
        (_, SourceType::Mxfp4) => WeightFormat::Mxfp4,
        (Quant::F32, _) => WeightFormat::F32,
        (Quant::F16, _) => WeightFormat::F16,
        (Quant::Keep, SourceType::F32 | SourceType::Other(_)) => WeightFormat::F32,
        (Quant::Keep, SourceType::F16) => WeightFormat::F16,
        (Quant::Keep, SourceType::Bf16) => WeightFormat::Bf16,
        (Quant::Keep | Quant::Q8, SourceType::Q8_0 | SourceType::Q5_0) => WeightFormat::Q8 { block: 32 },
        (Quant::Keep | Quant::Q8, SourceType::Q6K) => WeightFormat::Q8 { block: 16 },
        (Quant::Keep | Quant::Q4, SourceType::Q4_0) => WeightFormat::Q4 { min: false },
        (Quant::Keep | Quant::Q4, SourceType::Q4_1 | SourceType::Q4K) => WeightFormat::Q4 { min: true },
        (Quant::Q8, _) => WeightFormat::Q8 { block: 32 },
        (Quant::Q4, _) => WeightFormat::Q4 { min: false },
    }
}

/// A name that `--quant` does not take.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown quantization {0:?}; choose keep, f32, f16, q8 or q4")]
pub struct QuantNameError(String);

impl FromStr for Quant {
    type Err = QuantNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "keep" => Ok(Quant::Keep),
            "f32" => Ok(Quant::F32),
            "f16" => Ok(Quant::F16),
            "q8" => Ok(Quant::Q8),
            "q4" => Ok(Quant::Q4),
            other => Err(QuantNameError(other.to_string())),
        }
    }
}

impl fmt::Display for Quant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Quant::Keep => "keep",
            Quant::F32 => "f32",
            Quant::F16 => "f16",
            Quant::Q8 => "q8",
            Quant::Q4 => "q4",
        })
    }
}
