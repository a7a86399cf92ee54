use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use half::bf16;

use super::{CheckpointError, SourceType, TensorInfo, TensorSource};
use crate::graph::WeightRole;

/// Invented weights for compiling a config without its checkpoint.
///
/// Values depend on the seed, the tensor's name and the row alone. Matrices are bfloat16, about
/// normal with variance `1 / columns`, so that activations keep their size from layer to layer;
/// norm weights are f32 around 1, biases f32 around 0.
#[derive(Debug)]
pub struct RandomWeights {
    seed: u64,
    tensors: BTreeMap<String, TensorInfo>,
}

impl RandomWeights {
    /// Tensors of the given names, shapes and roles.
    pub fn new(weights: &[(String, Vec<usize>, WeightRole)], seed: u64) -> Self {
        let tensor = |(name, shape, role): &(String, Vec<usize>, WeightRole)| {
            let (source, width) = match role {
                WeightRole::Matrix | WeightRole::Exact | WeightRole::Bank => (SourceType::Bf16, 2),
                WeightRole::Vector => (SourceType::F32, 4),
            };
            let bytes = shape
                .iter()
                .fold(width, |bytes: u64, &dim| bytes.saturating_mul(dim as u64));
            let info = TensorInfo {
                shape: shape.clone(),
                source,
                bytes,
                file: "random weights".to_string(),
            };
            (name.clone(), info)
        };
        RandomWeights {
            seed,
            tensors: weights.iter().map(tensor).collect(),
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
        let width = if info.source == SourceType::Bf16 { 2 } else { 4 };
        let mut bytes = vec![0; rows.len() * cols * width];
        let row_bytes = (cols * width).max(1);
        for (row, bytes) in rows.zip(bytes.chunks_mut(row_bytes)) {
            let mut normal = NormalStream::new(name_seed.wrapping_add(mix(row as u64)));
            if info.source == SourceType::Bf16 {
                let deviation = 1.0 / (cols as f32).sqrt();
                for slot in bytes.as_chunks_mut::<2>().0 {
                    *slot = bf16::from_f32(deviation * normal.next()).to_le_bytes();
                }
            } else {
                let mean = if name.ends_with("bias") { 0.0 } else { 1.0 };
                for slot in bytes.as_chunks_mut::<4>().0 {
                    *slot = (mean + 0.05 * normal.next()).to_le_bytes();
                }
            }
        }
        Ok(Cow::Owned(bytes))
    }
}

/// Values with mean 0 and variance 1, each the sum of four uniform ones: close enough to normal,
/// bounded (±3.5), and fast enough for a billion of them.
struct NormalStream {
    state: u64,
}

impl NormalStream {
    fn new(seed: u64) -> Self {
        NormalStream { state: seed }
    }

    fn next(&mut self) -> f32 {
        // Standard deviation of the sum of four uniform integers in 0..65536.
        const DEVIATION: f32 = 37_837.227;
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let bits = mix(self.state);
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
