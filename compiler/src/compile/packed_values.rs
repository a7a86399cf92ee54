use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use crate::checkpoint::TensorSource;
use crate::graph::{DeclaredWeight, WeightRole};
use crate::reference::{WeightError, WeightValues};
use crate::weights::{WeightFormat, pack_rows, unpack};

/// The weights as a bundle holds them, packed and unpacked again: what the evaluator computes with them is what a device
/// should.
pub(super) struct PackedValues<'a> {
    source: &'a dyn TensorSource,
    vectors: BTreeSet<&'a str>,
    format_of: &'a dyn Fn(&str) -> WeightFormat,
}

impl<'a> PackedValues<'a> {
    /// `declared`: every weight; `format_of`: how a matrix is stored.
    pub(super) fn new(
        source: &'a dyn TensorSource,
        declared: &'a [DeclaredWeight],
        format_of: &'a dyn Fn(&str) -> WeightFormat,
    ) -> Self {
        let vectors = declared.iter().filter(|weight| weight.role == WeightRole::Vector);
        PackedValues {
            source,
            vectors: vectors.map(|weight| weight.name.as_str()).collect(),
            format_of,
        }
    }
}

impl WeightValues for PackedValues<'_> {
    fn values(&self, name: &str) -> Result<Cow<'_, [f32]>, WeightError> {
        let (rows, columns) = self.source.expect(name)?.matrix();
        self.rows(name, 0..rows, columns)
    }

    fn rows(&self, name: &str, rows: Range<usize>, _columns: usize) -> Result<Cow<'_, [f32]>, WeightError> {
        let format = match self.vectors.contains(name) {
            true => WeightFormat::F32,
            false => (self.format_of)(name),
        };
        Ok(Cow::Owned(unpack(&pack_rows(self.source, name, format, rows)?)))
    }
}
