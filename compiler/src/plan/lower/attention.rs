//! Rope, cache and attention.

use egg::Id;

use super::{Columns, Lowering};
use crate::cost::Costs;
use crate::graph::{RopeId, StateId};
use crate::kernels::{
    AttentionPrefillSpec, AttentionReduceSpec, AttentionShape, AttentionSplitSpec, CacheSpec, CacheWriteSpec,
    KernelSpec, RopeCacheSpec, RopeKernelSpec,
};
use crate::plan::calls::{Extent, Operand};
use crate::term::{Arrangement, LeafDef, Phase, Term};

impl Lowering<'_> {
    pub(super) fn rope(&mut self, rope: Id, heads: Id, x: Id) -> Columns {
        let from = self.columns(x);
        let rope = self.rope_id(rope);
        let heads = self.count(heads);
        let table = &self.graph.ropes[rope.0];
        let spec = RopeKernelSpec {
            heads,
            width: from.width / heads,
            rotary: table.rotary() as u32,
            attention_factor: table.attention_factor,
            x: from.layout,
        };
        let out = self.plan.value(self.like(from.value, from.width));
        let operands = vec![
            Operand::Read(from.value),
            Operand::Rope(rope),
            Operand::Step,
            Operand::Write(out),
        ];
        self.call(KernelSpec::Rope(spec), operands, "rope", None);
        self.all_columns(out, from.width)
    }

    /// The state of a cache class, making the call that writes it.
    fn cache_state(&mut self, id: Id) -> StateId {
        let id = self.rewritten.egraph.find(id);
        if let Some(&known) = self.caches.get(&id) {
            return known;
        }
        let state = match self.rewritten.term(id).clone() {
            Term::CacheWrite([state, k, v]) => {
                let (k, v) = (self.columns(k), self.columns(v));
                let state = self.state_id(state);
                let spec = CacheWriteSpec {
                    cache: self.cache_spec(state),
                    k: k.layout,
                    v: v.layout,
                };
                let operands = vec![
                    Operand::Read(k.value),
                    Operand::Read(v.value),
                    Operand::Step,
                    Operand::WriteState(state),
                ];
                self.call(KernelSpec::CacheWrite(spec), operands, "cache write", None);
                state
            }
            Term::CacheOf([both]) => self.rope_cache(both).1,
            other => unreachable!("{other} is no cache"),
        };
        self.caches.insert(id, state);
        state
    }

    /// The rotated queries and the cache that one kernel makes of stacked q/k/v.
    pub(super) fn rope_cache(&mut self, id: Id) -> (Columns, StateId) {
        let id = self.rewritten.egraph.find(id);
        if let (Some(&queries), Some(&state)) = (self.lowered.get(&id), self.caches.get(&id)) {
            return (queries, state);
        }
        let (state, rope, heads, qkv, norm) = match self.rewritten.term(id).clone() {
            Term::RopeCache([state, rope, heads, _, qkv]) => (state, rope, heads, qkv, None),
            Term::RopeCacheNorm([state, rope, heads, _, qkv, gq, gk, eps, unit]) => (
                state,
                rope,
                heads,
                qkv,
                Some((gq, gk, self.number(eps), self.flag(unit))),
            ),
            other => unreachable!("{other} writes no cache"),
        };
        let mut qkv = self.columns(qkv);
        if qkv.layout.offset != 0 {
            // The kernel begins at the first column.
            let value = self.copy(qkv);
            qkv = self.all_columns(value, qkv.width);
        }
        let (state, rope, heads) = (self.state_id(state), self.rope_id(rope), self.count(heads));
        let cache = self.cache_spec(state);
        let table = &self.graph.ropes[rope.0];
        let spec = RopeCacheSpec {
            heads,
            cache,
            stride: qkv.layout.stride,
            rotary: table.rotary() as u32,
            attention_factor: table.attention_factor,
            norm: norm.map(|(_, _, eps, unit_offset)| (eps, unit_offset)),
        };
        let width = heads * cache.width;
        let out = self.plan.value(self.like(qkv.value, width));
        let mut operands = vec![Operand::Read(qkv.value)];
        for g in norm.iter().flat_map(|(gq, gk, ..)| [gq, gk]) {
            let LeafDef::Vector { parts, .. } = self.rewritten.leaf(*g).clone() else {
                unreachable!("a norm weight is a vector")
            };
            operands.push(Operand::Vector(parts, Arrangement::Concat));
        }
        operands.extend([
            Operand::Rope(rope),
            Operand::Step,
            Operand::Write(out),
            Operand::WriteState(state),
        ]);
        self.call(KernelSpec::RopeCache(spec), operands, "rope, cache write", None);
        let queries = self.all_columns(out, width);
        self.lowered.insert(id, queries);
        self.caches.insert(id, state);
        (queries, state)
    }

    pub(super) fn attention(&mut self, spec: Id, q: Id, cache: Id, sinks: Id) -> Columns {
        let q = self.whole(q);
        let state = self.cache_state(cache);
        let sinks = self.vector(sinks, Arrangement::Concat);
        let mut attention = self.attention_shape(spec, state);
        attention.sinks = sinks.is_some();
        let width = attention.heads * attention.cache.width;
        let out = self.plan.value(self.like(q, width));
        let mut operands = vec![Operand::Read(q), Operand::ReadState(state)];
        operands.extend(sinks);
        operands.extend([Operand::Step, Operand::Write(out)]);
        self.call(
            KernelSpec::AttentionPrefill(AttentionPrefillSpec { attention }),
            operands,
            "attention",
            None,
        );
        self.all_columns(out, width)
    }

    pub(super) fn attention_reduce(&mut self, partials: Id, sinks: Id) -> Columns {
        let Term::AttentionSplit([spec, q, cache]) = self.rewritten.term(partials).clone() else {
            unreachable!("partial results come from a split attention")
        };
        let q = self.whole(q);
        let state = self.cache_state(cache);
        let attention = self.attention_shape(spec, state);
        let (heads, width) = (attention.heads, attention.cache.width);
        let splits = self.splits(heads, attention.cache.kv_heads);
        let parts = self.plan.value(Extent::Fixed(heads * splits * (width + 2)));
        let operands = vec![
            Operand::Read(q),
            Operand::ReadState(state),
            Operand::Step,
            Operand::Write(parts),
        ];
        let spec = KernelSpec::AttentionSplit(AttentionSplitSpec { attention, splits });
        self.call(spec, operands, "attention", None);
        let out = self.plan.value(Extent::PerToken(heads * width));
        let sinks = self.vector(sinks, Arrangement::Concat);
        let spec = KernelSpec::AttentionReduce(AttentionReduceSpec {
            heads,
            width,
            splits,
            sinks: sinks.is_some(),
        });
        let mut operands = vec![Operand::Read(parts)];
        operands.extend(sinks);
        operands.push(Operand::Write(out));
        self.call(spec, operands, "attention, joined", None);
        self.all_columns(out, heads * width)
    }

    fn splits(&self, heads: u32, kv_heads: u32) -> u32 {
        let costs = Costs {
            profile: &self.options.profile,
            phase: Phase::Decode,
            chunk: u64::from(self.options.chunk),
            context: u64::from(self.options.context),
        };
        costs.attention_splits(heads, kv_heads)
    }

    fn attention_shape(&self, spec: Id, state: StateId) -> AttentionShape {
        let LeafDef::Attention { spec, heads, .. } = self.rewritten.leaf(spec) else {
            unreachable!("attention has a spec")
        };
        AttentionShape {
            heads: *heads,
            cache: self.cache_spec(state),
            scale: spec.scale,
            window: spec.window.map(|window| window as u32),
            softcap: spec.softcap,
            sinks: false,
        }
    }

    fn cache_spec(&self, state: StateId) -> CacheSpec {
        let decl = &self.graph.states[state.0];
        CacheSpec {
            kv_heads: decl.shape[0].value() as u32,
            width: decl.shape[1].value() as u32,
            ring: crate::plan::ring_slots(decl, self.options.chunk),
            element: self.cache,
        }
    }

    fn state_id(&self, id: Id) -> StateId {
        match self.rewritten.leaf(id) {
            LeafDef::State { id, .. } => *id,
            other => unreachable!("a state, found {other:?}"),
        }
    }

    fn rope_id(&self, id: Id) -> RopeId {
        match self.rewritten.leaf(id) {
            LeafDef::Rope(rope) => *rope,
            other => unreachable!("a rope, found {other:?}"),
        }
    }
}
