use super::memory::Array;
use super::value::{F32, IntoValue};
use super::{Builder, U32};
use crate::kernels::Capability;

/// How values of the threads are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    Sum,
    Max,
}

/// The fewest threads that a WebGPU subgroup may have.
const SMALLEST_SUBGROUP: u32 = 4;

/// Values joined over a workgroup, see [`Builder::reduce`].
#[derive(Clone, Copy)]
pub struct Totals<'b> {
    builder: &'b Builder,
    reduction: Reduction,
    /// `[value][part]`.
    parts: Array<'b, f32>,
    parts_per_value: u32,
}

impl Builder {
    /// Joins each of `values` over all threads of the workgroup; any thread may then read any total.
    ///
    /// Base: a tree in workgroup memory. With subgroups: one operation each, then one part for each subgroup,
    /// of whatever size, joined by [`Totals::total`]. Has barriers: uniform control flow only. Inside a loop,
    /// put a [`Builder::barrier`] after the last use of the totals. The workgroup must be a power of two.
    pub fn reduce<'b>(&'b self, name: &str, reduction: Reduction, values: &[F32<'b>]) -> Totals<'b> {
        let subgroups = self.capability() >= Capability::Subgroups;
        let parts_per_value = match subgroups {
            true => self.workgroup().div_ceil(SMALLEST_SUBGROUP),
            false => self.workgroup(),
        };
        let parts = self.shared::<f32>(name, parts_per_value * values.len() as u32);
        let totals = Totals {
            builder: self,
            reduction,
            parts,
            parts_per_value,
        };
        if subgroups {
            let joined: Vec<F32> = values.iter().map(|&value| totals.subgroup(value)).collect();
            self.if_(self.lane().eq(0), || totals.store(self.subgroup(), &joined));
            self.barrier();
        } else {
            totals.store(self.thread(), values);
            self.barrier();
            totals.tree(values.len() as u32);
        }
        totals
    }

    /// The largest over the workgroup of each thread's `value`, in every thread. See [`Builder::reduce`].
    pub fn reduce_one<'b>(&'b self, name: &str, reduction: Reduction, value: F32<'b>) -> F32<'b> {
        self.reduce(name, reduction, &[value]).total(0)
    }
}

impl<'b> Totals<'b> {
    /// Total number `index`, in every thread that asks.
    pub fn total(self, index: impl IntoValue<'b, u32>) -> F32<'b> {
        let b = self.builder;
        let first = (index.value(b) * self.parts_per_value).named("first_part");
        if b.capability() < Capability::Subgroups {
            return self.parts.load(first);
        }
        let total = b.variable("total", self.parts.load(first));
        b.range("part", 1, b.subgroup_count(), 1, |part| {
            let joined = self.join(total.load(), self.parts.load(first + part));
            total.store(joined);
        });
        total.load()
    }

    fn join(self, left: F32<'b>, right: F32<'b>) -> F32<'b> {
        match self.reduction {
            Reduction::Sum => left + right,
            Reduction::Max => left.max(right),
        }
    }

    fn subgroup(self, value: F32<'b>) -> F32<'b> {
        match self.reduction {
            Reduction::Sum => self.builder.subgroup_add(value),
            Reduction::Max => self.builder.subgroup_max(value),
        }
    }

    fn store(self, part: U32<'b>, values: &[F32<'b>]) {
        for (index, &value) in (0u32..).zip(values) {
            self.parts.store(part + index * self.parts_per_value, value);
        }
    }

    /// Halves the number of parts until one is left.
    fn tree(self, values: u32) {
        let b = self.builder;
        let half = b.variable("half", self.parts_per_value / 2);
        b.repeat(|| {
            let gap = half.load().named("gap");
            b.break_if(gap.eq(0));
            b.if_(b.thread().lt(gap), || {
                for index in 0..values {
                    let mine = (b.thread() + index * self.parts_per_value).named("mine");
                    let joined = self.join(self.parts.load(mine), self.parts.load(mine + gap));
                    self.parts.store(mine, joined);
                }
            });
            b.barrier();
            half.store(gap >> 1);
        });
    }
}
