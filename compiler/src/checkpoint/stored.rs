use std::ops::Range;

use super::TensorInfo;

/// What was done to a tensor when its file was written, to be undone when it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Conversion {
    None,
    /// Rows of each head lie as rotary pairs (0, 1), (2, 3) ...; Hugging Face has all first
    /// halves of the pairs, then all second halves.
    RotaryPairs {
        heads: usize,
    },
    /// f32, one more than meant (GGUF's Gemma norms).
    PlusOne,
    /// The codes of MXFP4 here, the scales elsewhere (see [`super::mxfp4`]).
    Mxfp4 {
        scales_file: usize,
        scales: Range<usize>,
    },
}

/// A tensor as it lies in its file.
#[derive(Debug)]
pub(super) struct StoredTensor {
    /// What the checkpoint means: name of the file, and shape and type once the conversion is undone.
    pub info: TensorInfo,
    /// Index into the store's files.
    pub file: usize,
    pub bytes: Range<usize>,
    pub conversion: Conversion,
}
