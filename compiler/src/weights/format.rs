use std::fmt;

/// How a weight matrix `[rows, cols]` is stored in a bundle.
///
/// Columns are padded with zeros to a multiple of 32 (`padded`), rows are contiguous. All formats are read
/// as `array<vec4<u32>>` (`array<vec4<f32>>` for `F32`); blocked formats have a second tensor of scales, `array<u32>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WeightFormat {
    /// 4 elements a vec4.
    F32,
    /// 8 elements a vec4; word `w` holds elements `2w` (low half) and `2w + 1` (high half).
    F16,
    /// As `F16`, but bfloat16 halves.
    Bf16,
    /// 16 elements a vec4, one signed byte each, lowest byte first. Value: `scale · q`.
    /// One f16 scale for each `block` (16 or 32) elements; scales are numbered `row · padded / block + b`
    /// and packed two to a word, even numbers in the low half.
    Q8 { block: u32 },
    /// 32 elements a vec4 (one block), `q` in 0..16. Word `w` holds elements `8w .. 8w + 8`: the low nibbles
    /// of its bytes 0 to 3 are elements `8w .. 8w + 4`, the high nibbles elements `8w + 4 .. 8w + 8`.
    /// Without `min`: value `scale · (q - 8)`, scales packed as in `Q8`. With `min`: value `scale · q + min`,
    /// one word a block, scale in the low half (f16), min in the high half (f16).
    Q4 { min: bool },
    /// MXFP4 of the Open Compute Project: 32 elements a vec4 (one block), 4-bit E2M1 codes: a sign, then 0, 0.5, 1,
    /// 1.5, 2, 3, 4, 6 by the other bits. Nibbles lie as in `Q4`; minus zero is stored as zero. One scale byte `e` for
    /// each block: value `code · 2^(e - 127)`; scales are numbered `row · padded / 32 + b` and packed four to a word,
    /// lowest byte first. Values of scale 0 read as zero, those of scale 1 may: they are less than 1e-37.
    Mxfp4,
}

impl WeightFormat {
    /// Elements in one vec4 of 16 bytes.
    pub fn elements_per_vec4(self) -> u32 {
        match self {
            WeightFormat::F32 => 4,
            WeightFormat::F16 | WeightFormat::Bf16 => 8,
            WeightFormat::Q8 { .. } => 16,
            WeightFormat::Q4 { .. } | WeightFormat::Mxfp4 => 32,
        }
    }

    /// Elements that share a scale; `None` without scales.
    pub fn block(self) -> Option<u32> {
        match self {
            WeightFormat::F32 | WeightFormat::F16 | WeightFormat::Bf16 => None,
            WeightFormat::Q8 { block } => Some(block),
            WeightFormat::Q4 { .. } | WeightFormat::Mxfp4 => Some(32),
        }
    }

    /// Bytes of the elements of `[rows, cols]`.
    pub fn data_bytes(self, rows: u64, cols: u64) -> u64 {
        rows * padded(cols) / u64::from(self.elements_per_vec4()) * 16
    }

    /// Bytes of a block's scale, and of its minimum if it has one: 1, 2 or 4; 0 without scales.
    pub fn block_scale_bytes(self) -> u32 {
        match self {
            WeightFormat::F32 | WeightFormat::F16 | WeightFormat::Bf16 => 0,
            WeightFormat::Q8 { .. } | WeightFormat::Q4 { min: false } => 2,
            WeightFormat::Q4 { min: true } => 4,
            WeightFormat::Mxfp4 => 1,
        }
    }

    /// Bytes of the scales of `[rows, cols]`, in whole words; 0 without scales.
    pub fn scale_bytes(self, rows: u64, cols: u64) -> u64 {
        let blocks = self.block().map_or(0, |block| rows * padded(cols) / u64::from(block));
        (blocks * u64::from(self.block_scale_bytes())).next_multiple_of(4)
    }
}

/// Columns as stored: the next multiple of 32.
pub fn padded(cols: u64) -> u64 {
    cols.next_multiple_of(32)
}

impl fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WeightFormat::F32 => f.write_str("f32"),
            WeightFormat::F16 => f.write_str("f16"),
            WeightFormat::Bf16 => f.write_str("bf16"),
            WeightFormat::Q8 { block: 32 } => f.write_str("q8"),
            WeightFormat::Q8 { block } => write!(f, "q8b{block}"),
            WeightFormat::Q4 { min: false } => f.write_str("q4"),
            WeightFormat::Q4 { min: true } => f.write_str("q4m"),
            WeightFormat::Mxfp4 => f.write_str("mxfp4"),
        }
    }
}
