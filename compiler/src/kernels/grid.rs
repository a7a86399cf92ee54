//! How many workgroups each kernel takes.

use kiln_bundle::Grid;

use super::*;

/// What every WebGPU device allows in one dimension of a grid.
const MAX_GROUPS: u32 = 65_535;

const ONE: Grid = Grid::Fixed(1);

/// One workgroup for each `per` tokens of the step.
fn tokens(per: u32) -> Grid {
    Grid::Tokens { per, times: 1 }
}

impl KernelSpec {
    /// Workgroups in each dimension, as documented at the spec.
    pub fn grid(&self) -> [Grid; 3] {
        use Grid::Fixed;
        match self {
            KernelSpec::Gather(_) => [tokens(1), ONE, ONE],
            KernelSpec::Norm(spec) => [Fixed(spec.per_token), tokens(1), ONE],
            KernelSpec::Matvec(spec) => {
                let [x, y] = spec.workgroups();
                [Fixed(x), Fixed(y), ONE]
            }
            KernelSpec::Gemm(spec) => [
                Fixed(spec.rows.div_ceil(GemmSpec::TILE_ROWS)),
                tokens(GemmSpec::TILE_TOKENS),
                ONE,
            ],
            KernelSpec::Pointwise(spec) => [Fixed(spec.width.div_ceil(PointwiseSpec::WORKGROUP)), tokens(1), ONE],
            KernelSpec::SelectRow(spec) => [Fixed(spec.width.div_ceil(SelectRowSpec::WORKGROUP)), ONE, ONE],
            KernelSpec::Rope(spec) => [Fixed(spec.heads), tokens(1), ONE],
            KernelSpec::CacheWrite(spec) => [Fixed(spec.cache.kv_heads), tokens(1), ONE],
            KernelSpec::RopeCache(spec) => [Fixed(spec.heads + 2 * spec.cache.kv_heads), tokens(1), ONE],
            KernelSpec::AttentionPrefill(spec) => {
                [tokens(AttentionPrefillSpec::QUERIES), Fixed(spec.attention.heads), ONE]
            }
            KernelSpec::AttentionSplit(spec) => [
                Fixed(spec.splits),
                Fixed(spec.attention.cache.kv_heads * AttentionSplitSpec::groups_of(spec.sharing())),
                ONE,
            ],
            KernelSpec::AttentionReduce(spec) => [Fixed(spec.heads), ONE, ONE],
            KernelSpec::Convolution(spec) => [Fixed(spec.channels.div_ceil(256)), tokens(1), ONE],
            KernelSpec::ConvolutionState(spec) => [Fixed(spec.channels.div_ceil(256)), Fixed(spec.ring), ONE],
            KernelSpec::GatedDelta(spec) => spec.groups().map(Fixed),
            KernelSpec::Route(_) => [tokens(1), ONE, ONE],
            KernelSpec::Router(_) | KernelSpec::Group(_) => [ONE, ONE, ONE],
            KernelSpec::ExpertUp(spec) => [
                Fixed(spec.bank.rows.div_ceil(spec.rows_per_workgroup)),
                tokens(1),
                Fixed(spec.k),
            ],
            KernelSpec::ExpertDown(spec) => [Fixed(spec.bank.rows.div_ceil(spec.rows_per_workgroup)), tokens(1), ONE],
            KernelSpec::GroupedUp(GroupedUpSpec { bank, group, .. })
            | KernelSpec::GroupedDown(GroupedDownSpec { bank, group, .. }) => [
                Fixed(bank.rows.div_ceil(GemmSpec::TILE_ROWS)),
                Fixed(group.tiles_bound()),
                ONE,
            ],
            KernelSpec::Combine(spec) => [Fixed(spec.width.div_ceil(256)), tokens(1), ONE],
            KernelSpec::DenseDown(spec) => [
                Fixed(spec.bank.rows.div_ceil(GemmSpec::TILE_ROWS)),
                tokens(GemmSpec::TILE_TOKENS),
                ONE,
            ],
            KernelSpec::Penalties { groups }
            | KernelSpec::RepeatBan { groups }
            | KernelSpec::SamplePartial { groups, .. } => [Fixed(*groups), ONE, ONE],
            KernelSpec::TokenRules | KernelSpec::SampleThreshold { .. } | KernelSpec::SampleFinal { .. } => {
                [ONE, ONE, ONE]
            }
        }
    }
}

impl MatvecSpec {
    /// Workgroups in x and y: enough for all rows, folded where one dimension would not hold them.
    pub fn workgroups(&self) -> [u32; 2] {
        let groups = self.rows.div_ceil(self.rows_per_workgroup);
        let y = groups.div_ceil(MAX_GROUPS);
        [groups.div_ceil(y), y]
    }
}

impl AttentionSplitSpec {
    /// Most query heads of one workgroup: what its memory holds.
    const MOST_HEADS: u32 = 4;

    /// Workgroups for the query heads that share a key/value head, each of which reads its rows once: as few as can be.
    pub fn groups_of(sharing: u32) -> u32 {
        sharing.div_ceil(Self::MOST_HEADS).max(1)
    }

    /// Query heads that share a key/value head.
    pub fn sharing(&self) -> u32 {
        self.attention.heads / self.attention.cache.kv_heads.max(1)
    }

    /// Query heads of one workgroup. Where they do not divide those that share a key/value head, the last workgroup takes
    /// some that the one before has as well.
    pub fn heads_together(&self) -> u32 {
        self.sharing().div_ceil(Self::groups_of(self.sharing()))
    }
}

impl GatedDeltaSpec {
    /// Value columns of one workgroup.
    pub const COLUMNS: u32 = 32;

    /// Workgroups: parts of the value columns, and value heads.
    pub fn groups(&self) -> [u32; 3] {
        [self.value_dim.div_ceil(Self::COLUMNS), self.value_heads, 1]
    }
}

impl GroupSpec {
    /// Most tiles that a step can have: every expert's last one may be almost empty.
    pub fn tiles_bound(&self) -> u32 {
        let assignments = self.tokens * self.k;
        assignments / self.tile + self.experts.min(assignments)
    }

    /// The word of groups where the assignments in order begin.
    pub fn order_at(&self) -> u32 {
        1 + 3 * self.tiles_bound()
    }

    /// Words of groups.
    pub fn words(&self) -> u32 {
        self.order_at() + self.tokens * self.k
    }
}

impl AttentionPrefillSpec {
    /// Queries (tokens) of one workgroup.
    pub const QUERIES: u32 = 32;
}

impl SelectRowSpec {
    /// Columns of one workgroup.
    pub const WORKGROUP: u32 = 256;
}

impl PointwiseSpec {
    /// Threads, and elements, of one workgroup.
    pub const WORKGROUP: u32 = 256;
}
