use std::ops::Range;

use crate::graph::{Dim, RowBlocks, Stored};

/// Where the checkpoint has a weight. A plain path `"self_attn.q_proj"` is the tensor `self_attn.q_proj.weight`; the
/// rest is said like this:
///
/// ```
/// # use kiln_compiler::dsl::*;
/// # let (heads, width) = (Dim::symbol("heads", 4), Dim::symbol("width", 8));
/// let sinks = Source::tensor("self_attn.sinks"); // no `.weight`
/// let experts = Source::path("mlp.experts.{expert}.up_proj"); // one tensor for each expert of a bank
/// // Of a matrix whose rows are, for each head, `width` rows of query and `width` rows of gate, the latter.
/// let gate = Source::path("self_attn.q_proj").part("gate", &[width, width], 1..2);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    path: String,
    /// Whether `.weight` follows the path, and `.bias` in the bias's name; otherwise nothing and `_bias`.
    suffixed: bool,
    transposed: bool,
    part: Option<Part>,
    /// Where else it may be.
    otherwise: Option<Box<Source>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    name: String,
    /// How many rows each piece of a group has.
    pieces: Vec<usize>,
    wanted: Range<usize>,
}

/// Which tensor of the layer a source is, for [`WeightDecl`](crate::graph::WeightDecl).
pub(super) struct Declared {
    pub name: String,
    pub stored: Stored,
}

impl Declared {
    /// Stands for a source that is wrong.
    pub fn unknown(source: &Source) -> Self {
        Declared {
            name: source.path.clone(),
            stored: Stored::AsDeclared,
        }
    }
}

const EACH_EXPERT: &str = ".{expert}";

impl Source {
    /// The tensor `{path}.weight`, and `{path}.bias` for a bias.
    pub fn path(path: &str) -> Self {
        Source {
            path: path.to_string(),
            suffixed: true,
            transposed: false,
            part: None,
            otherwise: None,
        }
    }

    /// The tensor `{name}`, and `{name}_bias` for a bias.
    pub fn tensor(name: &str) -> Self {
        Source {
            suffixed: false,
            ..Source::path(name)
        }
    }

    /// Each expert's matrix is stored `[columns, rows]`.
    pub fn transposed(self) -> Self {
        Source {
            transposed: true,
            ..self
        }
    }

    /// Some of the tensor's rows. They come in groups, each of which consists of `pieces`, so many rows each; the
    /// weight is the `wanted` pieces: all groups' first, then all groups' second, and so on. `name` takes the place
    /// of `.weight` in the weight's own name. In a bank, each expert has such rows.
    pub fn part(self, name: &str, pieces: &[Dim], wanted: Range<usize>) -> Self {
        let part = Part {
            name: name.to_string(),
            pieces: pieces.iter().map(|piece| piece.value()).collect(),
            wanted,
        };
        Source {
            part: Some(part),
            ..self
        }
    }

    /// Or there, in a checkpoint that has it there. The weight's own name stays.
    pub fn or(self, other: Source) -> Self {
        let otherwise = match self.otherwise {
            Some(known) => known.or(other),
            None => other,
        };
        Source {
            otherwise: Some(Box::new(otherwise)),
            ..self
        }
    }

    pub(super) fn within(self, path: &str) -> Self {
        Source {
            path: format!("{path}.{}", self.path),
            otherwise: self.otherwise.map(|other| Box::new(other.within(path))),
            ..self
        }
    }

    /// The weight's name and how it is stored, for a weight of so many rows (of each expert, in a bank); or why there is
    /// no such part.
    pub(super) fn declare(&self, rows: usize, bias: bool) -> Result<Declared, String> {
        let (name, way) = self.declare_here(rows, bias)?;
        let mut ways = vec![way];
        let mut otherwise = &self.otherwise;
        while let Some(other) = otherwise {
            ways.push(other.declare_here(rows, bias)?.1);
            otherwise = &other.otherwise;
        }
        let plain = Stored::Within {
            tensor: name.clone(),
            rows: Vec::new(),
            transposed: false,
        };
        let stored = match ways.len() {
            1 if ways[0] == plain => Stored::AsDeclared,
            1 => ways.remove(0),
            _ => Stored::OneOf(ways),
        };
        Ok(Declared { name, stored })
    }

    fn declare_here(&self, rows: usize, bias: bool) -> Result<(String, Stored), String> {
        let ending = match (self.suffixed, bias) {
            (true, false) => ".weight",
            (true, true) => ".bias",
            (false, false) => "",
            (false, true) => "_bias",
        };
        let tensor = format!("{}{ending}", self.path);
        let whole = tensor.replacen(EACH_EXPERT, "", 1);
        let (name, rows) = match &self.part {
            None => (whole, Vec::new()),
            Some(part) => {
                let blocks = part.blocks(rows).map_err(|problem| format!("`{tensor}`: {problem}"))?;
                let base = if bias {
                    &whole
                } else {
                    whole.trim_end_matches(".weight")
                };
                (format!("{base}.{}", part.name), blocks)
            }
        };
        let stored = Stored::Within {
            tensor,
            rows,
            transposed: self.transposed && !bias,
        };
        Ok((name, stored))
    }
}

impl Part {
    fn blocks(&self, rows: usize) -> Result<Vec<RowBlocks>, String> {
        let wanted = self.pieces.get(self.wanted.clone()).unwrap_or_default();
        // A damaged config's pieces may be of any size.
        let total = |pieces: &[usize]| pieces.iter().fold(0, |sum: usize, piece| sum.saturating_add(*piece));
        let each = total(wanted);
        if each == 0 || !rows.is_multiple_of(each) {
            let (name, pieces, wanted) = (&self.name, &self.pieces, &self.wanted);
            return Err(format!(
                "`{name}` has {rows} rows, which are not pieces {wanted:?} of groups of {pieces:?}"
            ));
        }
        let group = total(&self.pieces);
        // Rows that take turns are one run through the whole tensor.
        if self.pieces.iter().all(|piece| *piece == 1) && self.wanted.len() == 1 {
            return Ok(vec![RowBlocks {
                group: group.saturating_mul(rows),
                start: self.wanted.start,
                len: rows,
                step: group,
            }]);
        }
        let start = |piece: usize| total(&self.pieces[..piece]);
        let block = |piece: usize| RowBlocks {
            group,
            start: start(piece),
            len: self.pieces[piece],
            step: 1,
        };
        Ok(self.wanted.clone().map(block).collect())
    }
}

impl From<&str> for Source {
    fn from(path: &str) -> Self {
        Source::path(path)
    }
}
