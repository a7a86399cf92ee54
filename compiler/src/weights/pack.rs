use std::ops::Range;

use rayon::prelude::*;
use thiserror::Error;

use super::encode::{BadValue, encode_row};
use super::format::padded;
use super::{PackedMatrix, WeightFormat};
use crate::checkpoint::{CheckpointError, TensorSource};

/// Elements that one task converts: enough to be worth a thread, little enough to stay in cache.
const TASK_ELEMENTS: usize = 1 << 16;

/// Why a matrix cannot be packed, or packed matrices not put together.
#[derive(Debug, Error)]
pub enum PackError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("tensor {name}, row {row}: {problem}; the checkpoint is damaged or needs --quant f32")]
    Value {
        name: String,
        row: usize,
        problem: BadValue,
    },
    #[error("no matrices to put together")]
    Nothing,
    #[error("matrices differ and cannot be put together: {a} and {b}")]
    Unlike { a: String, b: String },
    #[error("rows {}..{} of a packed matrix with {rows} rows", wanted.start, wanted.end)]
    Rows { wanted: Range<usize>, rows: usize },
}

/// Reads a tensor as a matrix (see [`crate::checkpoint::TensorInfo::matrix`]) and packs it.
///
/// A source with the integers and scales that `format` has is repacked without loss (see
/// [`super::format_for`]); any other goes through f32 and is rounded or quantized.
///
/// # Errors
/// The source cannot be read, or holds values that `format` cannot: infinite, not a number, or
/// too large for f16.
pub fn pack(source: &dyn TensorSource, name: &str, format: WeightFormat) -> Result<PackedMatrix, PackError> {
    let (rows, _) = source.expect(name)?.matrix();
    pack_rows(source, name, format, 0..rows)
}

/// As [`pack`], but only some of the rows.
///
/// # Errors
/// As [`pack`], or there are fewer rows.
pub fn pack_rows(
    source: &dyn TensorSource,
    name: &str,
    format: WeightFormat,
    wanted: Range<usize>,
) -> Result<PackedMatrix, PackError> {
    let info = source.expect(name)?;
    let (_, cols) = info.matrix();
    let mut matrix = PackedMatrix::zeroed(format, wanted.len(), cols);
    let (data_row, scale_row) = (matrix.data_row_bytes(), matrix.scale_row_bytes());
    let rows_per_task = (TASK_ELEMENTS / (padded(cols as u64) as usize).max(1)).max(1);

    // Scales are absent in some formats, so they are cut by hand, in step with the elements.
    let mut tasks = Vec::new();
    let mut scales_left = matrix.scales.as_mut_slice();
    for (task, data) in matrix.data.chunks_mut((rows_per_task * data_row).max(1)).enumerate() {
        let start = task * rows_per_task;
        let end = (start + rows_per_task).min(wanted.len());
        let (scales, rest) = scales_left.split_at_mut((end - start) * scale_row);
        scales_left = rest;
        tasks.push((wanted.start + start..wanted.start + end, data, scales));
    }
    let encode = |(rows, data, scales): (Range<usize>, &mut [u8], &mut [u8])| -> Result<(), PackError> {
        let bytes = source.read_rows(name, rows.clone())?;
        let row_bytes = bytes.len() / rows.len().max(1);
        let mut scratch = Vec::new();
        for (i, row) in rows.enumerate() {
            let from = &bytes[i * row_bytes..(i + 1) * row_bytes];
            let data = &mut data[i * data_row..(i + 1) * data_row];
            let scales = &mut scales[i * scale_row..(i + 1) * scale_row];
            encode_row(info.source, from, format, data, scales, &mut scratch).map_err(|problem| PackError::Value {
                name: name.to_string(),
                row,
                problem,
            })?;
        }
        Ok(())
    };
    tasks.into_par_iter().try_for_each(encode)?;
    Ok(matrix)
}
