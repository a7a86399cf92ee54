//! Which rows of a tensor are the rows of a weight.

use std::ops::Range;

use crate::graph::RowBlocks;

/// The rows of one matrix (of one expert's, in a bank), or the elements of one vector, within those of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RowMap {
    /// Rows of the weight.
    pub rows: usize,
    /// Rows of the tensor.
    pub stored: usize,
    blocks: Vec<RowBlocks>,
}

impl RowMap {
    /// `rows` rows of a weight, which are `blocks` of the tensor's: all of them if there are none.
    pub fn new(rows: usize, blocks: &[RowBlocks]) -> Self {
        // Of every `group` rows of the tensor, `taken` are rows of the weight.
        let group = blocks.iter().fold(1, |group, block| lcm(group, block.group.max(1)));
        let taken = blocks
            .iter()
            .map(|block| (group / block.group.max(1)).saturating_mul(block.len));
        let taken = taken.fold(0usize, usize::saturating_add);
        RowMap {
            rows,
            stored: match blocks {
                [] => rows,
                _ => rows.saturating_mul(group).checked_div(taken).unwrap_or(0),
            },
            blocks: blocks.to_vec(),
        }
    }

    /// The tensor's rows for rows `wanted` of the weight, in order, as runs of consecutive ones.
    pub fn runs(&self, wanted: Range<usize>) -> Vec<Range<usize>> {
        if self.blocks.is_empty() {
            return vec![wanted];
        }
        let mut runs: Vec<Range<usize>> = Vec::new();
        let mut begin = 0;
        for block in &self.blocks {
            let end = begin + self.stored / block.group.max(1) * block.len;
            let mut row = wanted.start.max(begin);
            while row < wanted.end.min(end) {
                let (group, within) = ((row - begin) / block.len, (row - begin) % block.len);
                let start = group * block.group + block.start + within * block.step;
                let left = (block.len - within).min(wanted.end - row);
                let len = if block.step == 1 { left } else { 1 };
                match runs.last_mut() {
                    Some(last) if last.end == start => last.end += len,
                    _ => runs.push(start..start + len),
                }
                row += len;
            }
            begin = end;
        }
        runs
    }
}

fn lcm(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x).saturating_mul(b)
}
