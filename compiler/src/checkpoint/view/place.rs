//! Where a weight lies among the tensors of a checkpoint.

use super::rows::RowMap;
use crate::checkpoint::{ExpectedTensor, SourceType, TensorSource};
use crate::graph::{DeclaredWeight, RowBlocks, Stored, WeightRole};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a tensor of the weight's name and shape.
    Own(ExpectedTensor),
    Within(Within),
}

/// Rows of one tensor, or of one for each expert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Within {
    pub tensors: TensorNames,
    /// Shape of each of them.
    shape: Vec<usize>,
    pub unit: Unit,
    pub map: RowMap,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TensorNames {
    /// The experts' one after the other, if the weight has experts.
    One(String),
    /// One for each expert.
    ByExpert {
        /// The name of them all, for messages.
        all: String,
        names: Vec<String>,
    },
}

/// What the rows of a weight are in the tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Rows of a matrix.
    Row,
    /// Columns of a matrix with this many rows.
    Column { rows: usize },
    /// Elements of a vector.
    Element,
}

impl Place {
    /// The first way to store the weight whose tensors `source`, which holds `count`, has; the first of all if it has
    /// none.
    pub fn find(source: &dyn TensorSource, count: usize, weight: &DeclaredWeight) -> Self {
        let ways = match &weight.stored {
            Stored::OneOf(ways) => ways.as_slice(),
            way => std::slice::from_ref(way),
        };
        // A tensor of the weight's name is the weight itself, unless it is said to be something else.
        let means_other = |way: &Stored| matches!(way, Stored::Within { tensor, .. } if *tensor == weight.name);
        if source.info(&weight.name).is_some() && !ways.iter().any(means_other) {
            return Place::own(weight);
        }
        let mut places = ways.iter().map(|way| match way {
            Stored::AsDeclared | Stored::OneOf(_) => Place::own(weight),
            Stored::Within {
                tensor,
                rows,
                transposed,
            } => {
                let tensors = TensorNames::find(source, count, tensor, experts(weight));
                Place::Within(Within::find(source, weight, tensors, rows, *transposed))
            }
        });
        let there = |place: &Place| place.tensors().iter().any(|name| source.info(name).is_some());
        let found = places.clone().find(there);
        found.or_else(|| places.next()).unwrap_or_else(|| Place::own(weight))
    }

    fn own(weight: &DeclaredWeight) -> Self {
        Place::Own(ExpectedTensor {
            name: weight.name.clone(),
            shape: weight.shape.clone(),
        })
    }

    /// The tensors that must be there.
    pub fn expected(&self, source: &dyn TensorSource) -> Vec<ExpectedTensor> {
        let Within { tensors, shape, .. } = match self {
            Place::Own(tensor) => return vec![tensor.clone()],
            Place::Within(within) => within,
        };
        let expected = |name: &String| ExpectedTensor {
            name: name.clone(),
            shape: shape.clone(),
        };
        match tensors {
            // Where all experts are missing, that is one problem and not a hundred.
            TensorNames::ByExpert { all, names } if !names.iter().any(|name| source.info(name).is_some()) => {
                vec![expected(all)]
            }
            tensors => tensors.names().iter().map(expected).collect(),
        }
    }

    pub fn tensors(&self) -> &[String] {
        match self {
            Place::Own(tensor) => std::slice::from_ref(&tensor.name),
            Place::Within(within) => within.tensors.names(),
        }
    }

    /// Whether elements are read one by one, which those of blocks cannot be.
    pub fn reads_elements(&self) -> bool {
        match self {
            Place::Own(_) => false,
            Place::Within(within) => within.unit != Unit::Row,
        }
    }
}

impl Within {
    fn find(
        source: &dyn TensorSource,
        weight: &DeclaredWeight,
        tensors: TensorNames,
        rows: &[RowBlocks],
        transposed: bool,
    ) -> Self {
        let (experts, unit) = split(weight);
        let map = RowMap::new(unit.first().copied().unwrap_or(1), rows);
        let experts = match &tensors {
            TensorNames::One(_) => experts,
            TensorNames::ByExpert { .. } => &[],
        };
        let with = |dims: &[usize]| [experts, dims].concat();
        let (unit, shape) = match *unit {
            [_, columns] => {
                let (plain, turned) = (with(&[map.stored, columns]), with(&[columns, map.stored]));
                let found = tensors.names().first().and_then(|name| source.info(name));
                // Blocks lie along rows; and a shape that is only that of the weight says that it is not turned.
                let not_turned = found
                    .is_some_and(|info| info.source == SourceType::Mxfp4 || (info.shape == plain && plain != turned));
                match transposed && !not_turned {
                    true => (Unit::Column { rows: columns }, turned),
                    false => (Unit::Row, plain),
                }
            }
            _ => (Unit::Element, with(&[map.stored])),
        };
        Within {
            tensors,
            shape,
            unit,
            map,
        }
    }
}

/// The dimensions of a bank's experts, and those of the matrix or vector of each.
fn split(weight: &DeclaredWeight) -> (&[usize], &[usize]) {
    let unit = if weight.role == WeightRole::Vector { 1 } else { 2 };
    weight.shape.split_at(weight.shape.len().saturating_sub(unit))
}

fn experts(weight: &DeclaredWeight) -> usize {
    split(weight)
        .0
        .iter()
        .fold(1, |experts, &dim| experts.saturating_mul(dim))
}

impl TensorNames {
    fn find(source: &dyn TensorSource, count: usize, tensor: &str, experts: usize) -> Self {
        let stacked = tensor.replacen(".{expert}", "", 1);
        if stacked == tensor || source.info(&stacked).is_some() {
            return TensorNames::One(stacked);
        }
        let name = |expert: &str| tensor.replacen("{expert}", expert, 1);
        // A config may ask for billions; one more than there can be is enough to find that one is missing.
        let looked_for = 0..experts.min(count + 1);
        TensorNames::ByExpert {
            all: name(&format!("{{0..{experts}}}")),
            names: looked_for.map(|expert| name(&expert.to_string())).collect(),
        }
    }

    pub fn names(&self) -> &[String] {
        match self {
            TensorNames::One(name) => std::slice::from_ref(name),
            TensorNames::ByExpert { names, .. } => names,
        }
    }
}
