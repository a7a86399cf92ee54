//! Which packed tensors a bundle holds: stacked, and split where a binding limit demands it.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::graph::{ModelGraph, RopeId, WeightId};
use crate::term::{Arrangement, MatrixLeaf};
use crate::weights::WeightFormat;

/// The packed tensors of a bundle, each once.
#[derive(Clone, Debug, Default)]
pub struct WeightTable {
    pub weights: Vec<PackedWeight>,
    by_name: BTreeMap<String, usize>,
}

/// Something to pack: one or two tensors in the bundle.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedWeight {
    pub name: String,
    pub part: PackedPart,
    /// Position of its first tensor among all tensors of the bundle.
    pub first_tensor: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PackedPart {
    /// Rows `rows` of the matrix that stacks `sources` (checkpoint names).
    Matrix {
        sources: Vec<String>,
        arrangement: Arrangement,
        format: WeightFormat,
        rows: Range<u32>,
        cols: u32,
        portion: Portion,
    },
    /// Vectors one after the other, or element by element, f32.
    Vector {
        sources: Vec<String>,
        arrangement: Arrangement,
        len: u32,
    },
    /// Inverse frequencies, f32.
    Rope(RopeId),
}

/// Which of the two tensors of a packed matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Portion {
    /// Elements, then scales where the format has them.
    All,
    Elements,
    Scales,
}

impl PackedWeight {
    /// Names and sizes in bytes of its tensors: elements, then scales where the format has them.
    pub fn tensors(&self, graph: &ModelGraph) -> Vec<(String, u64)> {
        match &self.part {
            PackedPart::Matrix {
                format,
                rows,
                cols,
                portion,
                ..
            } => {
                let (rows, cols) = (u64::from(rows.end - rows.start), u64::from(*cols));
                let elements = || (self.name.clone(), format.data_bytes(rows, cols));
                match (portion, format.block()) {
                    (Portion::Scales, _) => vec![(self.name.clone(), format.scale_bytes(rows, cols))],
                    (Portion::All, Some(_)) => {
                        let scales = (format!("{}.scales", self.name), format.scale_bytes(rows, cols));
                        vec![elements(), scales]
                    }
                    _ => vec![elements()],
                }
            }
            PackedPart::Vector { len, .. } => vec![(self.name.clone(), u64::from(*len) * 4)],
            PackedPart::Rope(rope) => vec![(self.name.clone(), graph.ropes[rope.0].inv_freq.len() as u64 * 4)],
        }
    }

    fn tensor_count(&self) -> u32 {
        match &self.part {
            PackedPart::Matrix {
                format,
                portion: Portion::All,
                ..
            } if format.block().is_some() => 2,
            _ => 1,
        }
    }
}

impl WeightTable {
    /// The tensors (numbers within the bundle) of rows `rows` of a matrix in a layer.
    pub fn matrix(
        &mut self,
        graph: &ModelGraph,
        layer: usize,
        matrix: &MatrixLeaf,
        rows: Range<u32>,
        portion: Portion,
    ) -> Vec<u32> {
        let sources = names(graph, layer, &matrix.parts);
        let mut name = stacked_name(&sources);
        if rows != (0..matrix.rows) {
            name += &format!(".rows{}-{}", rows.start, rows.end);
        }
        if portion == Portion::Scales {
            name += ".scales";
        }
        self.intern(
            name,
            PackedPart::Matrix {
                sources,
                arrangement: matrix.arrangement,
                format: matrix.format,
                rows,
                cols: matrix.cols,
                portion,
            },
        )
    }

    /// The tensor of a vector in a layer.
    pub fn vector(&mut self, graph: &ModelGraph, layer: usize, parts: &[WeightId], arrangement: Arrangement) -> u32 {
        let sources = names(graph, layer, parts);
        let len = parts.iter().map(|part| graph.weights[part.0].elements() as u32).sum();
        self.intern(
            stacked_name(&sources),
            PackedPart::Vector {
                sources,
                arrangement,
                len,
            },
        )[0]
    }

    pub fn rope(&mut self, graph: &ModelGraph, rope: RopeId) -> u32 {
        self.intern(format!("{}.inv_freq", graph.ropes[rope.0].name), PackedPart::Rope(rope))[0]
    }

    /// Numbers of the tensors of a part. What is packed in two ways, the same matrices stacked in rows and row by row, has
    /// two names.
    fn intern(&mut self, name: String, part: PackedPart) -> Vec<u32> {
        let mut unique = name.clone();
        let mut number = 1;
        let index = loop {
            match self.by_name.get(&unique) {
                Some(&index) if self.weights[index].part == part => break index,
                Some(_) => {
                    number += 1;
                    unique = format!("{name}.{number}");
                }
                None => {
                    let last = self.weights.last();
                    let first_tensor = last.map_or(0, |last| last.first_tensor + last.tensor_count());
                    self.by_name.insert(unique.clone(), self.weights.len());
                    self.weights.push(PackedWeight {
                        name: unique,
                        part,
                        first_tensor,
                    });
                    break self.weights.len() - 1;
                }
            }
        };
        let weight = &self.weights[index];
        (weight.first_tensor..weight.first_tensor + weight.tensor_count()).collect()
    }
}

/// Row ranges of a matrix so that neither elements nor scales of a part exceed `limit` bytes.
pub fn split_rows(rows: u32, cols: u32, format: WeightFormat, limit: u64) -> Vec<Range<u32>> {
    // Parts begin at a multiple of this, so that a workgroup's rows never straddle two.
    const GRANULE: u32 = 64;
    if format.data_bytes(rows.into(), cols.into()) <= limit {
        return std::iter::once(0..rows).collect();
    }
    let row_bytes = format.data_bytes(1, cols.into());
    let most = ((limit / row_bytes) as u32 / GRANULE * GRANULE).max(GRANULE);
    (0..rows.div_ceil(most))
        .map(|part| part * most..rows.min((part + 1) * most))
        .collect()
}

fn names(graph: &ModelGraph, layer: usize, parts: &[WeightId]) -> Vec<String> {
    parts.iter().map(|part| graph.weights[part.0].name_in(layer)).collect()
}

/// `a.q_proj.weight` and `a.k_proj.weight` become `a.q_proj+k_proj.weight`.
fn stacked_name(sources: &[String]) -> String {
    let [first, rest @ ..] = sources else {
        return String::new();
    };
    let (stem, ending) = first.rsplit_once('.').unwrap_or((first, ""));
    let mut name = stem.to_string();
    for source in rest {
        let stem = source.rsplit_once('.').map_or(source.as_str(), |(stem, _)| stem);
        name += &format!("+{}", stem.rsplit('.').next().unwrap_or(stem));
    }
    format!("{name}.{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_in_two_ways_is_two_weights() {
        let part = |arrangement| PackedPart::Vector {
            sources: vec!["a".to_string(), "b".to_string()],
            arrangement,
            len: 8,
        };
        let mut table = WeightTable::default();
        let mut intern = |arrangement| table.intern("a+b".to_string(), part(arrangement));
        assert_eq!(intern(Arrangement::Concat), [0]);
        assert_eq!(intern(Arrangement::Interleave), [1]);
        assert_eq!(intern(Arrangement::Concat), [0]);
        let names: Vec<&str> = table.weights.iter().map(|weight| weight.name.as_str()).collect();
        assert_eq!(names, ["a+b", "a+b.2"]);
    }
}
