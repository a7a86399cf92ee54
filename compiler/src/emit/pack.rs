//! From a planned weight to the bytes of its tensors.

use bytemuck::cast_slice;

use crate::checkpoint::{CheckpointError, TensorSource};
use crate::graph::ModelGraph;
use crate::plan::{PackedPart, PackedWeight, Portion};
use crate::term::Arrangement;
use crate::weights::{PackError, PackedMatrix, WeightFormat, pack, pack_rows};

/// Packs weights one after the other. Of stacked matrices and banks, whose tensors are asked for one by one, the last one
/// is kept.
pub struct Packer<'a> {
    graph: &'a ModelGraph,
    source: &'a dyn TensorSource,
    last: Option<(Vec<String>, Arrangement, PackedMatrix)>,
}

impl<'a> Packer<'a> {
    pub fn new(graph: &'a ModelGraph, source: &'a dyn TensorSource) -> Self {
        Packer {
            graph,
            source,
            last: None,
        }
    }

    /// The tensors of a weight, in the order of [`PackedWeight::tensors`].
    ///
    /// # Errors
    /// The checkpoint cannot be read, or holds a value that the format cannot.
    pub fn pack(&mut self, weight: &PackedWeight) -> Result<Vec<Vec<u8>>, PackError> {
        match &weight.part {
            PackedPart::Rope(rope) => Ok(vec![cast_slice(&self.graph.ropes[rope.0].inv_freq).to_vec()]),
            PackedPart::Vector {
                sources, arrangement, ..
            } => {
                let parts = sources.iter().map(|name| self.source.read_f32(name));
                let parts = parts.collect::<Result<Vec<_>, CheckpointError>>()?;
                let values: Vec<f32> = match arrangement {
                    Arrangement::Concat => parts.concat(),
                    Arrangement::Interleave => (0..parts[0].len())
                        .flat_map(|row| parts.iter().map(move |part| part[row]))
                        .collect(),
                };
                Ok(vec![cast_slice(&values).to_vec()])
            }
            PackedPart::Matrix {
                sources,
                arrangement,
                format,
                rows,
                portion,
                ..
            } => {
                let rows = rows.start as usize..rows.end as usize;
                let part = match (&sources[..], portion) {
                    // Part by part: an embedding may be a large share of the model.
                    ([source], Portion::All) => pack_rows(self.source, source, *format, rows)?,
                    _ => {
                        let whole = self.whole(sources, *arrangement, *format)?;
                        match rows == (0..whole.rows) && *portion == Portion::All {
                            true => whole,
                            false => self.keep(sources, *arrangement, whole).rows(rows)?,
                        }
                    }
                };
                let (data, scales) = part.into_tensors();
                Ok(match portion {
                    Portion::All => std::iter::once(data).chain(scales).collect(),
                    Portion::Elements => vec![data],
                    Portion::Scales => scales.into_iter().collect(),
                })
            }
        }
    }

    fn whole(
        &mut self,
        sources: &[String],
        arrangement: Arrangement,
        format: WeightFormat,
    ) -> Result<PackedMatrix, PackError> {
        if let Some((known, how, matrix)) = self.last.take()
            && known == sources
            && how == arrangement
        {
            return Ok(matrix);
        }
        let parts = sources
            .iter()
            .map(|name| pack(self.source, name, format))
            .collect::<Result<Vec<_>, _>>()?;
        match (&parts[..], arrangement) {
            ([_], _) => Ok(parts.into_iter().next().expect("there is one")),
            ([a, b], Arrangement::Interleave) => PackedMatrix::interleave(a, b),
            _ => PackedMatrix::concat(&parts.iter().collect::<Vec<_>>()),
        }
    }

    /// Remembers a matrix whose parts are asked for one by one.
    fn keep(&mut self, sources: &[String], arrangement: Arrangement, matrix: PackedMatrix) -> &PackedMatrix {
        let (_, _, matrix) = self.last.insert((sources.to_vec(), arrangement, matrix));
        matrix
    }
}
