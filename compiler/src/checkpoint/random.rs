use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use half::bf16;

use super::{CheckpointError, SourceType, TensorInfo, TensorSource};
use crate::graph::{DeclaredWeight, WeightRole};

/// Invented weights for compiling a config without its checkpoint.
///
/// Values depend on the seed, the tensor's name and the row alone. Matrices are about normal with variance
/// `1 / columns`, so that activations keep their size from layer to layer: in bfloat16, banks in MXFP4 where the config
/// says that they are released so. Vectors are f32: norm weights around 1, biases and attention sinks around 0,
/// convolutions with variance `1 / taps`; and of recurrent states the logarithms of decays of 1 to 16 (`A_log`) and time
/// steps around 1 (`dt_bias`).
#[derive(Debug)]
pub struct RandomWeights {
    seed: u64,
    tensors: BTreeMap<String, TensorInfo>,
}

impl RandomWeights {
    /// The weights of a model with this `config.json`.
    pub fn new(weights: &[DeclaredWeight], config: &serde_json::Value, seed: u64) -> Self {
        let tensor = |weight: &DeclaredWeight| {
            let source = Self::source_type(weight, config);
            let (per_block, bytes) = source.block().unwrap_or((1, 0));
            let elements = weight
                .shape
                .iter()
                .fold(1, |elements: u64, &dim| elements.saturating_mul(dim as u64));
            let info = TensorInfo {
                shape: weight.shape.clone(),
                source,
                bytes: (elements / per_block as u64).saturating_mul(bytes as u64),
                file: "random weights".to_string(),
            };
            (weight.name.clone(), info)
        };
        RandomWeights {
            seed,
            tensors: weights.iter().map(tensor).collect(),
        }
    }

    /// How this weight of a model with this `config.json` is released, as far as the config tells.
    pub fn source_type(weight: &DeclaredWeight, config: &serde_json::Value) -> SourceType {
        let mxfp4 = config["quantization_config"]["quant_method"] == "mxfp4";
        let in_blocks = weight.shape.last().is_some_and(|columns| columns.is_multiple_of(32));
        match weight.role {
            WeightRole::Bank if mxfp4 && in_blocks => SourceType::Mxfp4,
            WeightRole::Matrix | WeightRole::Exact | WeightRole::Bank => SourceType::Bf16,
            WeightRole::Vector => SourceType::F32,
        }
    }
}

impl TensorSource for RandomWeights {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    fn read_rows(&self, name: &str, rows: Range<usize>) -> Result<Cow<'_, [u8]>, CheckpointError> {
        let info = self.expect(name)?;
        let (total, cols) = info.matrix();
        if rows.end > total || rows.start > rows.end {
            return Err(CheckpointError::NoRows {
                name: name.to_string(),
                wanted: rows,
                rows: total,
            });
        }
        let name_seed = mix(self.seed ^ fnv1a(name.as_bytes()));
        let row_bytes = info.source.bytes(cols).unwrap_or(0);
        let mut bytes = vec![0; rows.len() * row_bytes];
        for (row, bytes) in rows.zip(bytes.chunks_mut(row_bytes.max(1))) {
            let mut stream = Stream::new(name_seed.wrapping_add(mix(row as u64)));
            match info.source {
                SourceType::Bf16 => {
                    let deviation = 1.0 / (cols as f32).sqrt();
                    for slot in bytes.as_chunks_mut::<2>().0 {
                        *slot = bf16::from_f32(deviation * stream.normal()).to_le_bytes();
                    }
                }
                SourceType::Mxfp4 => mxfp4_row(bytes, cols, &mut stream),
                _ => {
                    let draw = vector_values(name, &info.shape);
                    for slot in bytes.as_chunks_mut::<4>().0 {
                        *slot = draw(&mut stream).to_le_bytes();
                    }
                }
            }
        }
        Ok(Cow::Owned(bytes))
    }
}

/// How the values of a vector are spread, by its name.
fn vector_values(name: &str, shape: &[usize]) -> impl Fn(&mut Stream) -> f32 + use<> {
    // Of Mamba and Gated DeltaNet: decays `-exp(A_log)`, their time steps `softplus(a + dt_bias)`.
    let decay = name.ends_with("A_log");
    let (mean, deviation) = match shape {
        [_, .., taps] if name.contains("conv") => (0.0, 1.0 / (*taps as f32).sqrt()),
        _ if name.ends_with("dt_bias") => (1.0, 0.05),
        _ if name.contains("bias") || name.ends_with("sinks") => (0.0, 0.05),
        _ => (1.0, 0.05),
    };
    move |stream| match decay {
        true => (1.0 + 15.0 * stream.uniform()).ln(),
        false => mean + deviation * stream.normal(),
    }
}

/// Blocks of arbitrary codes, with one of two scales so that the variance is `1 / cols`.
fn mxfp4_row(bytes: &mut [u8], cols: usize, stream: &mut Stream) {
    /// Mean square of the codes 0, 0.5, 1, 1.5, 2, 3, 4 and 6.
    const VARIANCE: f64 = 8.5625;
    let scale = (1.0 / (cols as f64 * VARIANCE)).sqrt();
    // Between two powers of two; the larger has four times the variance.
    let exponent = scale.log2().floor();
    let excess = (scale / exponent.exp2()).powi(2);
    let share_of_larger = ((excess - 1.0) / 3.0 * f64::from(u32::MAX)) as u64;
    let smaller = (127.0 + exponent) as u8;
    for block in bytes.as_chunks_mut::<17>().0 {
        let [scale, codes @ ..] = block;
        *scale = smaller + u8::from((stream.bits() >> 32) < share_of_larger);
        for codes in codes.as_chunks_mut::<8>().0 {
            *codes = stream.bits().to_le_bytes();
        }
    }
}

/// Random numbers: SplitMix64.
struct Stream {
    state: u64,
}

impl Stream {
    fn new(seed: u64) -> Self {
        Stream { state: seed }
    }

    fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.state)
    }

    /// In 0 to 1.
    fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 24) as f32
    }

    /// Mean 0 and variance 1, the sum of four uniform values: close enough to normal, bounded (±3.5), and fast enough
    /// for a billion of them.
    fn normal(&mut self) -> f32 {
        // Standard deviation of the sum of four uniform integers in 0..65536.
        const DEVIATION: f32 = 37_837.227;
        let bits = self.bits();
        let sum = (bits & 0xFFFF) + (bits >> 16 & 0xFFFF) + (bits >> 32 & 0xFFFF) + (bits >> 48);
        (sum as f32 - 131_070.0) / DEVIATION
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The 64-bit FNV-1a hash: the same on every machine and in every release.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}
