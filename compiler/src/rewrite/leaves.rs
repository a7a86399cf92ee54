//! What the leaves of a term stand for.

use crate::graph::{AttentionSpec, RopeId, StateId, Unary, WeightId};
use crate::weights::WeightFormat;

use super::term::Leaf;

/// The leaves of one section, by number. Equal definitions share a number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Leaves(Vec<LeafDef>);

#[derive(Clone, Debug, PartialEq)]
pub enum LeafDef {
    /// What enters the section: hidden states.
    Input {
        width: u32,
    },
    /// Token ids.
    Tokens,
    Matrix(Matrix),
    /// Norm weight or bias.
    Vector {
        parts: Vec<WeightId>,
        len: u32,
    },
    Number(f32),
    Count(u32),
    Flag(bool),
    Activation(Unary),
    State {
        id: StateId,
        kv_heads: u32,
        width: u32,
    },
    Rope(RopeId),
    /// With the numbers of query and of key/value heads.
    Attention {
        spec: AttentionSpec,
        heads: u32,
        kv_heads: u32,
    },
}

/// A weight matrix as kernels see it: one checkpoint tensor or several stacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    pub parts: Vec<WeightId>,
    pub arrangement: Arrangement,
    pub rows: u32,
    pub cols: u32,
    pub format: WeightFormat,
}

/// How the rows of stacked matrices follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arrangement {
    /// All rows of the first, then all of the second ... (or a single matrix).
    Concat,
    /// Row 0 of each, then row 1 of each ...
    Interleave,
}

impl Leaves {
    pub fn add(&mut self, def: LeafDef) -> Leaf {
        let found = self.0.iter().position(|known| *known == def);
        Leaf(found.unwrap_or_else(|| {
            self.0.push(def);
            self.0.len() - 1
        }) as u32)
    }

    pub fn get(&self, leaf: Leaf) -> &LeafDef {
        &self.0[leaf.0 as usize]
    }
}
