//! The gated delta rule (Yang, Kautz & Hatamizadeh 2024): a matrix for each head, which every token lets fade,
//! corrects and reads.
//!
//! A workgroup keeps 32 columns of the state in registers for the whole step; the threads of a column share its rows.
//! Tokens are taken in blocks (the WY form, Yang et al. 2024), so that the products of a block's keys and queries with
//! the state are sums that do not wait for each other. With `S` the state before the block, `G(t)` the product of the
//! decays up to token `t` of the block, `D(t, j)` that of those after `j` up to `t`, and `β`, normed `k` and `q` as the
//! operator has them:
//!
//! ```text
//! u(t) = β(t) · (v(t) - G(t) · Sᵀk(t) - Σ_{j<t} D(t, j) · k(t)·k(j) · u(j))     what token t writes
//! o(t) = G(t) · Sᵀq(t) + Σ_{j<=t} D(t, j) · q(t)·k(j) · u(j)
//! S'   = G(last) · S + Σ_t k(t) ⊗ D(last, t) · u(t)
//! ```
//!
//! What does not depend on the state, [`stage`] prepares. Keys and queries are not normed
//! themselves; their norms are in the factors.

mod stage;
mod state;

use super::builder::{Builder, KernelError, KernelSource};
use super::names::{flag, strided};
use super::{Capability, GatedDeltaSpec};
use state::DeltaRule;

const COLUMNS: u32 = GatedDeltaSpec::COLUMNS;
/// Rows of a quad: keys, queries and rows of the state are taken by fours.
const QUAD: u32 = 4;

impl GatedDeltaSpec {
    pub const MOST_KEY_DIM: u32 = 256;

    fn name(&self) -> String {
        let GatedDeltaSpec {
            key_heads,
            value_heads,
            key_dim,
            value_dim,
            ..
        } = *self;
        let lies = [self.q, self.k, self.v].map(|x| format!("_at{}of{}", x.offset, x.stride));
        format!(
            "gated_delta{}_{value_heads}of{key_heads}h_{key_dim}x{value_dim}{}_a{}_b{}",
            flag(self.single, "_single"),
            lies.concat(),
            strided(self.a, value_heads),
            strided(self.b, value_heads),
        )
    }

    fn check(&self, kernel: &str) -> Result<(), KernelError> {
        let what = if self.key_dim == 0 || self.key_dim > Self::MOST_KEY_DIM {
            format!(
                "keys of 1 to {} elements are supported, not {}",
                Self::MOST_KEY_DIM,
                self.key_dim
            )
        } else if self.key_heads == 0 || !self.value_heads.is_multiple_of(self.key_heads) {
            format!(
                "{} value heads cannot share {} key heads evenly",
                self.value_heads, self.key_heads
            )
        } else {
            return Ok(());
        };
        Err(KernelError::Unsupported {
            kernel: kernel.to_string(),
            what,
        })
    }
}

/// How the work is divided.
#[derive(Clone, Copy)]
struct DeltaDivision {
    /// Threads of a column; each has every `parts`th quad of its rows.
    parts: u32,
    /// Quads of a thread.
    quads: u32,
    /// Tokens of a block.
    block: u32,
    /// Tokens in workgroup memory at a time, some blocks.
    staged: u32,
    /// The threads of a column are neighbours and join their sums by subgroup operations, else through workgroup
    /// memory.
    neighbours: bool,
}

impl DeltaDivision {
    fn new(spec: &GatedDeltaSpec, capability: Capability) -> Self {
        let all = spec.key_dim.div_ceil(QUAD);
        if spec.single {
            let parts = 8;
            return DeltaDivision {
                parts,
                quads: all.div_ceil(parts),
                block: 1,
                staged: 1,
                neighbours: false,
            };
        }
        // As many as the smallest subgroup has.
        let parts = 4;
        DeltaDivision {
            parts,
            quads: all.div_ceil(parts),
            block: 4,
            // What fits in workgroup memory.
            staged: if all <= 32 { 8 } else { 4 },
            neighbours: capability >= Capability::Subgroups,
        }
    }

    fn threads(self) -> u32 {
        COLUMNS * self.parts
    }

    /// Distance of tokens in workgroup memory, in quads.
    fn pitch(self) -> u32 {
        self.quads * self.parts
    }
}

pub fn build(spec: &GatedDeltaSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    let name = spec.name();
    spec.check(&name)?;
    let division = DeltaDivision::new(spec, capability);
    let b = Builder::new(name, division.threads(), capability);
    DeltaRule::new(&b, spec, division).body();
    b.finish()
}
