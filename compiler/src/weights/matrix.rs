use std::ops::Range;

use rayon::prelude::*;

use super::format::padded;
use super::{PackError, WeightFormat};

/// A weight matrix `[rows, cols]` in a bundle's layout (see [`WeightFormat`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedMatrix {
    pub format: WeightFormat,
    pub rows: usize,
    /// Without padding.
    pub cols: usize,
    /// Elements, row after row.
    pub data: Vec<u8>,
    /// Scales, row after row (see [`WeightFormat::block_scale_bytes`]), not yet padded to whole words.
    pub scales: Vec<u8>,
}

impl PackedMatrix {
    /// A matrix that reads as zeros, to be filled.
    pub(super) fn zeroed(format: WeightFormat, rows: usize, cols: usize) -> Self {
        let mut matrix = PackedMatrix {
            format,
            rows,
            cols,
            data: Vec::new(),
            scales: Vec::new(),
        };
        matrix.data = vec![0; rows * matrix.data_row_bytes()];
        matrix.scales = vec![0; rows * matrix.scale_row_bytes()];
        matrix
    }

    /// Bytes of one row's elements.
    pub fn data_row_bytes(&self) -> usize {
        self.format.data_bytes(1, self.cols as u64) as usize
    }

    /// Bytes of one row's scales; 0 without scales.
    pub fn scale_row_bytes(&self) -> usize {
        let per_block = u64::from(self.format.block_scale_bytes());
        self.format.block().map_or(0, |block| {
            (padded(self.cols as u64) / u64::from(block) * per_block) as usize
        })
    }

    /// Some of the rows.
    ///
    /// # Errors
    /// There are fewer rows.
    pub fn rows(&self, rows: Range<usize>) -> Result<Self, PackError> {
        let part = |bytes: &[u8], row_bytes: usize| {
            let range = rows.start.checked_mul(row_bytes)?..rows.end.checked_mul(row_bytes)?;
            bytes.get(range).map(<[u8]>::to_vec)
        };
        let data = part(&self.data, self.data_row_bytes());
        let scales = part(&self.scales, self.scale_row_bytes());
        match (data, scales) {
            (Some(data), Some(scales)) if rows.end <= self.rows => Ok(PackedMatrix {
                rows: rows.len(),
                data,
                scales,
                ..*self
            }),
            _ => Err(PackError::Rows {
                wanted: rows,
                rows: self.rows,
            }),
        }
    }

    /// The rows of all parts, one part after the other.
    ///
    /// # Errors
    /// No parts, or parts of different formats or widths.
    pub fn concat(parts: &[&PackedMatrix]) -> Result<Self, PackError> {
        let Some((first, rest)) = parts.split_first() else {
            return Err(PackError::Nothing);
        };
        let mut whole = (*first).clone();
        for part in rest {
            first.check_alike(part)?;
            whole.rows += part.rows;
            whole.data.extend_from_slice(&part.data);
            whole.scales.extend_from_slice(&part.scales);
        }
        Ok(whole)
    }

    /// Rows `a0, b0, a1, b1, ...`.
    ///
    /// # Errors
    /// Matrices of different formats or sizes.
    pub fn interleave(a: &PackedMatrix, b: &PackedMatrix) -> Result<Self, PackError> {
        a.check_alike(b)?;
        if a.rows != b.rows {
            return Err(a.unlike(b));
        }
        Ok(PackedMatrix {
            rows: a.rows * 2,
            data: interleave_chunks(&a.data, &b.data, a.data_row_bytes()),
            scales: interleave_chunks(&a.scales, &b.scales, a.scale_row_bytes()),
            ..*a
        })
    }

    /// The tensors of a bundle, padded to whole words: elements, and scales where the format has
    /// them. Their sizes are [`WeightFormat::data_bytes`] and [`WeightFormat::scale_bytes`].
    pub fn into_tensors(mut self) -> (Vec<u8>, Option<Vec<u8>>) {
        self.scales.resize(self.scales.len().next_multiple_of(4), 0);
        let scales = self.format.block().map(|_| self.scales);
        (self.data, scales)
    }

    fn check_alike(&self, other: &PackedMatrix) -> Result<(), PackError> {
        if (self.format, self.cols) == (other.format, other.cols) {
            Ok(())
        } else {
            Err(self.unlike(other))
        }
    }

    fn unlike(&self, other: &PackedMatrix) -> PackError {
        let describe = |m: &PackedMatrix| format!("{} [{}, {}]", m.format, m.rows, m.cols);
        PackError::Unlike {
            a: describe(self),
            b: describe(other),
        }
    }
}

fn interleave_chunks(a: &[u8], b: &[u8], chunk: usize) -> Vec<u8> {
    let chunk = chunk.max(1);
    let mut bytes = vec![0; a.len() + b.len()];
    let pairs = bytes.par_chunks_mut(2 * chunk);
    pairs
        .zip(a.par_chunks(chunk).zip(b.par_chunks(chunk)))
        .for_each(|(pair, (a, b))| {
            let (first, second) = pair.split_at_mut(a.len());
            first.copy_from_slice(a);
            second.copy_from_slice(b);
        });
    bytes
}
