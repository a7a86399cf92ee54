//! Prices of mixtures of experts and of states.

use egg::Id;

use super::{Costs, Work};
use crate::term::{Facts, LeafDef, TermGraph, leaf_def};
use crate::weights::WeightFormat;

/// Time to sort one assignment of a token to an expert, in one workgroup.
const SORT_PS: u64 = 1_000;

/// Assignments in a tile of a product over sorted tokens: a tile costs the same however many of its places are filled,
/// and an expert's last one is filled in part.
pub fn tile_height(assignments: u64, experts: u64) -> u64 {
    match assignments / experts.max(1) {
        0..=16 => 16,
        17..=47 => 32,
        _ => 64,
    }
}

/// A bank of experts.
struct BankSize {
    experts: u64,
    rows: u64,
    cols: u64,
    format: WeightFormat,
}

impl BankSize {
    fn read(facts: Facts) -> Option<Self> {
        match facts {
            Facts::Bank {
                experts,
                rows,
                cols,
                format,
            } => Some(BankSize {
                experts: experts.into(),
                rows: rows.into(),
                cols: cols.into(),
                format,
            }),
            _ => None,
        }
    }

    /// Bytes of one expert.
    fn bytes(&self) -> u64 {
        self.format.data_bytes(self.rows, self.cols) + self.format.scale_bytes(self.rows, self.cols)
    }

    /// Bytes and operations of the product of one expert with so many tokens.
    fn product(&self, tokens: u64) -> (u64, u64) {
        let activations = tokens * (self.rows + self.cols) * 4;
        (self.bytes() + activations, 2 * self.rows * self.cols * tokens)
    }
}

impl Costs<'_> {
    /// Experts of a token.
    pub(super) fn experts_per_token(&self, egraph: &TermGraph, mixture: Id) -> Option<u64> {
        match leaf_def(egraph, mixture) {
            Some(LeafDef::Mixture { k, .. }) => Some(u64::from(*k)),
            _ => None,
        }
    }

    pub(super) fn experts(&self, egraph: &TermGraph, route: Id) -> u32 {
        match leaf_def(egraph, route) {
            Some(LeafDef::Route { experts, .. }) => *experts,
            _ => 1,
        }
    }

    /// Scores and choice in one workgroup, which cannot draw the whole bandwidth.
    pub(super) fn router(&self, experts: u32, weight: Facts) -> Option<u64> {
        let Facts::Matrix { cols, format, .. } = weight else {
            return None;
        };
        let bytes = format.data_bytes(experts.into(), cols.into());
        Some(self.profile.launch_ns * 1000 + bytes * 1000 / self.profile.workgroup_gb_s.max(1))
    }

    /// Half a mixture, token by token: an expert is read again for each of its tokens.
    pub(super) fn gathered(&self, egraph: &TermGraph, mixture: Id, bank: Facts) -> Option<Work> {
        let (bank, k) = (BankSize::read(bank)?, self.experts_per_token(egraph, mixture)?);
        let (bytes, operations) = bank.product(1);
        let products = self.tokens() * k;
        Some(Work {
            bytes: products * bytes,
            operations: products * operations,
            workgroups: products * bank.rows.div_ceil(4),
        })
    }

    pub(super) fn sorting(&self, egraph: &TermGraph, mixture: Id) -> Option<u64> {
        let assignments = self.tokens() * self.experts_per_token(egraph, mixture)?;
        Some(self.profile.launch_ns * 1000 + assignments * SORT_PS)
    }

    /// Half a mixture with sorted tokens: each expert's tokens fill tiles, the last one only in part.
    pub(super) fn grouped(&self, egraph: &TermGraph, mixture: Id, bank: Facts) -> Option<Work> {
        let (bank, k) = (BankSize::read(bank)?, self.experts_per_token(egraph, mixture)?);
        let assignments = self.tokens() * k;
        let used = bank.experts.min(assignments);
        let tile = tile_height(assignments, bank.experts);
        let tiles = used * assignments.div_ceil(used).div_ceil(tile);
        let (bytes, operations) = bank.product(tile);
        Some(Work {
            bytes: tiles * bytes,
            operations: tiles * operations,
            workgroups: tiles * bank.rows.div_ceil(64),
        })
    }

    /// Half a mixture with every token at every expert.
    pub(super) fn all_experts(&self, bank: Facts) -> Option<Work> {
        let bank = BankSize::read(bank)?;
        let (bytes, operations) = bank.product(self.tokens());
        Some(Work {
            bytes: bank.experts * bytes,
            operations: bank.experts * operations,
            workgroups: match self.tokens() {
                1 => bank.experts * bank.rows.div_ceil(4),
                tokens => bank.experts * bank.rows.div_ceil(64) * tokens.div_ceil(64),
            },
        })
    }

    /// Steps of several tokens write the state of a convolution in a dispatch of its own.
    pub(super) fn state_write(&self) -> u64 {
        match self.tokens() {
            1 => 0,
            _ => self.profile.launch_ns * 1000,
        }
    }

    pub(super) fn gated_delta(&self, egraph: &TermGraph, state: Id) -> Option<Work> {
        let Some(LeafDef::Delta {
            heads,
            key_dim,
            value_dim,
            ..
        }) = leaf_def(egraph, state)
        else {
            return None;
        };
        let elements = u64::from(*heads) * u64::from(*key_dim) * u64::from(*value_dim);
        Some(Work {
            bytes: 8 * elements,
            operations: 8 * elements * self.tokens(),
            workgroups: u64::from(*heads) * u64::from(value_dim.div_ceil(32)),
        })
    }
}
