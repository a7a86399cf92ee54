use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use super::{CheckpointError, decode};

/// How a checkpoint encodes the elements of a tensor.
///
/// The block types are ggml's: <https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceType {
    F32,
    F16,
    Bf16,
    /// 32 elements `d · (q - 8)`, 4 bits each.
    Q4_0,
    /// 32 elements `d · q + m`, 4 bits each.
    Q4_1,
    /// 32 elements `d · (q - 16)`, 5 bits each.
    Q5_0,
    /// 32 elements `d · q`, 8 bits each.
    Q8_0,
    /// 256 elements in runs of 32, `d · sc · q - dmin · m`, 4 bits each.
    Q4K,
    /// 256 elements in runs of 16, `d · sc · (q - 32)`, 6 bits each.
    Q6K,
    /// 32 elements `code · 2^(e - 127)`: a byte `e`, then 16 bytes of E2M1 codes (a sign, then 0, 0.5, 1, 1.5, 2, 3, 4, 6
    /// by the other three bits), elements 0 to 15 in the low nibbles, 16 to 31 in the high ones.
    Mxfp4,
    /// Present in a checkpoint but not readable as weights; the file's name for it.
    Other(&'static str),
}

/// What a checkpoint says of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Row-major, as in Hugging Face checkpoints: `[out, in]` for a linear map.
    pub shape: Vec<usize>,
    pub source: SourceType,
    /// Size in the file.
    pub bytes: u64,
    /// Name of the file that holds it, without folders.
    pub file: String,
}

/// Named tensors that can be read a few rows at a time.
pub trait TensorSource: Sync {
    /// All names, in alphabetical order.
    fn names(&self) -> Vec<String>;

    fn info(&self, name: &str) -> Option<&TensorInfo>;

    /// The encoded bytes of some rows of a tensor's matrix (see [`TensorInfo::matrix`]).
    ///
    /// # Errors
    /// Unknown tensor or rows, or a tensor whose type is [`SourceType::Other`].
    fn read_rows(&self, name: &str, rows: Range<usize>) -> Result<Cow<'_, [u8]>, CheckpointError>;

    /// What the file has for a name, for messages.
    fn name_in_file<'n>(&'n self, name: &'n str) -> &'n str {
        name
    }

    /// A whole tensor as f32.
    ///
    /// # Errors
    /// As for [`TensorSource::read_rows`].
    fn read_f32(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        let info = self.expect(name)?;
        let (rows, cols) = info.matrix();
        let bytes = self.read_rows(name, 0..rows)?;
        let mut values = Vec::with_capacity(rows * cols);
        decode(info.source, &bytes, &mut values);
        Ok(values)
    }

    /// As [`TensorSource::info`], with an error for an unknown name.
    ///
    /// # Errors
    /// There is no such tensor.
    fn expect(&self, name: &str) -> Result<&TensorInfo, CheckpointError> {
        self.info(name)
            .ok_or_else(|| CheckpointError::NoTensor { name: name.to_string() })
    }
}

impl TensorInfo {
    /// The tensor as a matrix `(rows, cols)`: the last dimension is the columns, a vector one row.
    pub fn matrix(&self) -> (usize, usize) {
        match self.shape.split_last() {
            Some((&cols, rest)) => (rest.iter().product(), cols),
            None => (1, 1),
        }
    }
}

impl SourceType {
    /// Elements and bytes of one block; `None` for [`SourceType::Other`].
    pub fn block(self) -> Option<(usize, usize)> {
        match self {
            SourceType::F32 => Some((1, 4)),
            SourceType::F16 | SourceType::Bf16 => Some((1, 2)),
            SourceType::Q4_0 => Some((32, 18)),
            SourceType::Q4_1 => Some((32, 20)),
            SourceType::Q5_0 => Some((32, 22)),
            SourceType::Q8_0 => Some((32, 34)),
            SourceType::Q4K => Some((256, 144)),
            SourceType::Q6K => Some((256, 210)),
            SourceType::Mxfp4 => Some((32, 17)),
            SourceType::Other(_) => None,
        }
    }

    /// Bytes of `elements`; `None` if they are no whole number of blocks or too many to count.
    pub fn bytes(self, elements: usize) -> Option<usize> {
        let (per_block, bytes) = self.block()?;
        if elements.is_multiple_of(per_block) {
            (elements / per_block).checked_mul(bytes)
        } else {
            None
        }
    }
}

impl fmt::Display for SourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SourceType::F32 => "f32",
            SourceType::F16 => "f16",
            SourceType::Bf16 => "bf16",
            SourceType::Q4_0 => "q4_0",
            SourceType::Q4_1 => "q4_1",
            SourceType::Q5_0 => "q5_0",
            SourceType::Q8_0 => "q8_0",
            SourceType::Q4K => "q4_k",
            SourceType::Q6K => "q6_k",
            SourceType::Mxfp4 => "mxfp4",
            SourceType::Other(name) => name,
        })
    }
}
