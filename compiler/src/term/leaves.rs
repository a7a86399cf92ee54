//! What the leaves of a term stand for.

use crate::graph::{AttentionSpec, Gate, RopeId, RouteSpec, StateId, Unary, WeightId};
use crate::weights::WeightFormat;

use super::Leaf;

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
    Matrix(MatrixLeaf),
    /// An expert bank; gate and up are one bank, their rows interleaved.
    Bank(BankLeaf),
    /// An operand that is not there.
    Nothing,
    /// Norm weight, bias or convolution.
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
    /// State of a convolution.
    Taps {
        id: StateId,
        channels: u32,
        taps: u32,
    },
    /// State of a gated delta rule.
    Delta {
        id: StateId,
        heads: u32,
        key_dim: u32,
        value_dim: u32,
    },
    Route {
        spec: RouteSpec,
        experts: u32,
    },
    Mixture {
        experts: u32,
        /// Experts of a token.
        k: u32,
        gate: Gate,
    },
    /// With the numbers of query and of key/value heads.
    Attention {
        spec: AttentionSpec,
        heads: u32,
        kv_heads: u32,
    },
}

/// A weight matrix as kernels see it: one checkpoint tensor or several stacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatrixLeaf {
    pub parts: Vec<WeightId>,
    pub arrangement: Arrangement,
    pub rows: u32,
    pub cols: u32,
    pub format: WeightFormat,
}

/// A matrix for each of `experts`, as one matrix of all their rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BankLeaf {
    pub matrix: MatrixLeaf,
    pub experts: u32,
}

impl BankLeaf {
    /// Rows of one expert.
    pub fn rows(&self) -> u32 {
        self.matrix.rows / self.experts.max(1)
    }
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
