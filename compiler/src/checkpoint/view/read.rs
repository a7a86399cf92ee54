//! Reads rows of a weight out of the tensors that hold them.

use std::borrow::Cow;
use std::ops::Range;

use super::place::{TensorNames, Unit, Within};
use crate::checkpoint::{CheckpointError, TensorSource};

/// The encoded bytes of rows of a weight, as [`TensorSource::read_rows`] gives them. A row of a vector is all of it.
pub(super) fn rows<'a>(
    source: &'a dyn TensorSource,
    within: &'a Within,
    wanted: Range<usize>,
) -> Result<Cow<'a, [u8]>, CheckpointError> {
    if within.unit == Unit::Element {
        return elements(source, within, wanted).map(Cow::Owned);
    }
    let each = within.map.rows.max(1);
    let mut parts = Parts::default();
    let mut row = wanted.start;
    while row < wanted.end {
        let (expert, first) = (row / each, row % each);
        let last = (first + wanted.end - row).min(each);
        let runs = within.map.runs(first..last);
        match within.unit {
            Unit::Column { rows } => {
                let matrix = matrix(source, &within.tensors, expert, rows)?;
                parts.push(Cow::Owned(columns(&matrix, within.map.stored, rows, &runs)));
            }
            Unit::Row | Unit::Element => {
                let (tensor, start) = at(&within.tensors, expert, within.map.stored);
                for run in runs {
                    parts.push(source.read_rows(tensor, start + run.start..start + run.end)?);
                }
            }
        }
        row += last - first;
    }
    Ok(parts.bytes)
}

/// Copies only where there is more than one part.
#[derive(Default)]
struct Parts<'a> {
    bytes: Cow<'a, [u8]>,
}

impl<'a> Parts<'a> {
    fn push(&mut self, part: Cow<'a, [u8]>) {
        if self.bytes.is_empty() {
            self.bytes = part;
        } else {
            self.bytes.to_mut().extend_from_slice(&part);
        }
    }
}

/// The tensor with an expert's matrix, and its first row there if a matrix has `rows`.
fn at(tensors: &TensorNames, expert: usize, rows: usize) -> (&str, usize) {
    match tensors {
        TensorNames::One(name) => (name, expert * rows),
        TensorNames::ByExpert { names, .. } => (names.get(expert).map_or("", String::as_str), 0),
    }
}

fn matrix<'a>(
    source: &'a dyn TensorSource,
    tensors: &'a TensorNames,
    expert: usize,
    rows: usize,
) -> Result<Cow<'a, [u8]>, CheckpointError> {
    let (tensor, start) = at(tensors, expert, rows);
    source.read_rows(tensor, start..start + rows)
}

/// The columns `wanted` of a matrix as rows.
fn columns(matrix: &[u8], columns: usize, rows: usize, wanted: &[Range<usize>]) -> Vec<u8> {
    match matrix.len() / (columns * rows).max(1) {
        2 => columns_of::<2>(matrix, columns, rows, wanted),
        _ => columns_of::<4>(matrix, columns, rows, wanted),
    }
}

fn columns_of<const WIDTH: usize>(matrix: &[u8], columns: usize, rows: usize, wanted: &[Range<usize>]) -> Vec<u8> {
    let elements = matrix.as_chunks::<WIDTH>().0;
    let picked: Vec<usize> = wanted.iter().cloned().flatten().collect();
    let mut bytes = vec![0; picked.len() * rows * WIDTH];
    let turned = bytes.as_chunks_mut::<WIDTH>().0;
    // Row after row of the matrix: a few neighbouring columns are a cache line of each.
    for (row, from) in elements.chunks_exact(columns.max(1)).enumerate() {
        for (i, &column) in picked.iter().enumerate() {
            turned[i * rows + row] = from[column];
        }
    }
    bytes
}

/// Whole vectors `wanted`, element by element.
fn elements(source: &dyn TensorSource, within: &Within, wanted: Range<usize>) -> Result<Vec<u8>, CheckpointError> {
    let mut bytes = Vec::new();
    let runs = within.map.runs(0..within.map.rows);
    for vector in wanted {
        let whole = matrix(source, &within.tensors, vector, 1)?;
        let width = whole.len() / within.map.stored.max(1);
        for run in &runs {
            bytes.extend_from_slice(&whole[run.start * width..run.end * width]);
        }
    }
    Ok(bytes)
}
