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

    pub(super) fn within(self, path: &str) -> Self {
        Source {
            path: format!("{path}.{}", self.path),
            ..self
        }
    }

    /// The weight's name and how it is stored, for a weight of so many rows (of each expert, in a bank); or why there is
    /// no such part.
    pub(super) fn declare(&self, rows: usize, bias: bool) -> Result<Declared, String> {
        let ending = match (self.suffixed, bias) {
            (true, false) => ".weight",
            (true, true) => ".bias",
            (false, false) => "",
            (false, true) => "_bias",
        };
        let tensor = format!("{}{ending}", self.path);
        let whole = tensor.replacen(EACH_EXPERT, "", 1);
        let Some(part) = &self.part else {
            let as_declared = whole == tensor && !(self.transposed && !bias);
            return Ok(Declared {
                name: whole,
                stored: match as_declared {
                    true => Stored::AsDeclared,
                    false => self.stored(tensor, Vec::new(), bias),
                },
            });
        };
        let blocks = part.blocks(rows).map_err(|problem| format!("`{tensor}`: {problem}"))?;
        let base = if bias {
            &whole
        } else {
            whole.trim_end_matches(".weight")
        };
        Ok(Declared {
            name: format!("{base}.{}", part.name),
            stored: self.stored(tensor, blocks, bias),
        })
    }

    fn stored(&self, tensor: String, rows: Vec<RowBlocks>, bias: bool) -> Stored {
        Stored::Within {
            tensor,
            rows,
            transposed: self.transposed && !bias,
        }
    }
}

impl Part {
    fn blocks(&self, rows: usize) -> Result<Vec<RowBlocks>, String> {
        let wanted = self.pieces.get(self.wanted.clone()).unwrap_or_default();
        let each: usize = wanted.iter().sum();
        if each == 0 || !rows.is_multiple_of(each) {
            let (name, pieces, wanted) = (&self.name, &self.pieces, &self.wanted);
            return Err(format!(
                "`{name}` has {rows} rows, which are not pieces {wanted:?} of groups of {pieces:?}"
            ));
        }
        let group: usize = self.pieces.iter().sum();
        // Rows that take turns are one run through the whole tensor.
        if self.pieces.iter().all(|piece| *piece == 1) && self.wanted.len() == 1 {
            return Ok(vec![RowBlocks {
                group: group * rows,
                start: self.wanted.start,
                len: rows,
                step: group,
            }]);
        }
        let start = |piece: usize| self.pieces[..piece].iter().sum();
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
