//! What the attention kernels have in common.
//!
//! Scores are kept in base 2: `log2(e) · capped(scale · q·k)`, so that a weight is `exp2(score - maximum)`.

use kiln_bundle::Access;

use super::builder::{Array, Bool, Builder, F32, KernelError, U32};
use super::math::tanh;
use super::names::{flag, number};
use super::{AttentionShape, Capability};

impl AttentionShape {
    /// Elements of a head.
    pub const MOST_WIDTH: u32 = 256;

    /// As in kernel names.
    pub(super) fn name(&self) -> String {
        let window = self.window.map(|window| format!("_window{window}")).unwrap_or_default();
        let softcap = self
            .softcap
            .map(|cap| format!("_cap{}", number(cap)))
            .unwrap_or_default();
        format!(
            "{}h_{}_scale{}{window}{softcap}{}",
            self.heads,
            self.cache.name(),
            number(self.scale),
            flag(self.sinks, "_sinks")
        )
    }

    pub(super) fn check(&self, kernel: &str, capability: Capability) -> Result<(), KernelError> {
        let unsupported = |what: String| {
            Err(KernelError::Unsupported {
                kernel: kernel.into(),
                what,
            })
        };
        if self.cache.width == 0 || self.cache.width > Self::MOST_WIDTH {
            return unsupported(format!(
                "heads of 1 to {} elements are supported, not {}",
                Self::MOST_WIDTH,
                self.cache.width
            ));
        }
        if self.cache.kv_heads == 0 || !self.heads.is_multiple_of(self.cache.kv_heads) {
            return unsupported(format!(
                "{} heads cannot share {} key/value heads evenly",
                self.heads, self.cache.kv_heads
            ));
        }
        self.cache.check(kernel, capability)
    }

    /// Query heads that share a key/value head.
    pub(super) fn heads_per_kv(&self) -> u32 {
        self.heads / self.cache.kv_heads
    }

    /// The score of a product of query and key.
    pub(super) fn score<'b>(&self, product: F32<'b>) -> F32<'b> {
        match self.softcap {
            None => product * (self.scale * std::f32::consts::LOG2_E),
            Some(cap) => tanh((product * (self.scale / cap)).named("capped")) * (cap * std::f32::consts::LOG2_E),
        }
    }

    /// The first position that a query at `position` sees; the last is its own.
    pub(super) fn first_visible<'b>(&self, b: &'b Builder, position: U32<'b>) -> U32<'b> {
        match self.window {
            None => b.literal(0),
            Some(window) => (position + 1).max(window) - window,
        }
    }

    /// Whether the query at `position` sees `past`.
    pub(super) fn visible<'b>(&self, past: U32<'b>, position: U32<'b>) -> Bool<'b> {
        let causal = past.le(position);
        match self.window {
            None => causal,
            Some(window) => causal & (past + window).gt(position),
        }
    }
}

/// One more logit for each head, which attends to nothing.
#[derive(Clone, Copy)]
pub(super) struct Sinks<'b>(Array<'b, f32>);

impl<'b> Sinks<'b> {
    /// Makes them the next binding.
    pub(super) fn bind(b: &'b Builder) -> Self {
        Sinks(b.storage::<f32>("sinks", Access::Read))
    }

    /// The sink of a head, as scores are kept.
    pub(super) fn score(self, head: U32<'b>) -> F32<'b> {
        (self.0.load(head) * std::f32::consts::LOG2_E).named("sink")
    }
}

/// What stands for a score that is not there: the least number.
pub fn lowest(b: &Builder) -> F32<'_> {
    b.literal(f32::MIN).named("lowest")
}

/// Numbers that one part of the cache gives a head: a row of `width` sums, the largest score, and the sum of the weights.
pub const fn partial_width(width: u32) -> u32 {
    width + 2
}
