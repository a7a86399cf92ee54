//! Short convolutions and recurrences.

use egg::Id;

use super::{Columns, Lowering};
use crate::kernels::{
    ConvolutionSpec, ConvolutionStateSpec, GatedDeltaSpec, KernelSpec, PointwiseExpr, PointwiseSpec, Strided,
};
use crate::plan::calls::Operand;
use crate::plan::ring_slots;
use crate::term::{Arrangement, LeafDef, Phase};

impl Lowering<'_> {
    pub(super) fn convolution(&mut self, [state, w, b, gate_in, x, gate_out, act]: [Id; 7]) -> Columns {
        let LeafDef::Taps { id, channels, taps } = *self.rewritten.leaf(state) else {
            unreachable!("a convolution has a state")
        };
        let ring = ring_slots(&self.graph.states[id.0], self.options.chunk).expect("a convolution's state is a ring");
        let x = self.columns(x);
        let [gate_in, gate_out] = [gate_in, gate_out].map(|gate| self.optional_columns(gate));
        let bias = self.vector(b, Arrangement::Concat);
        let activation = match self.rewritten.leaf_or_none(act) {
            Some(LeafDef::Activation(kind)) => Some(*kind),
            _ => None,
        };
        let writes_state = self.phase == Phase::Decode;
        let layout = |part: &Option<Columns>| part.map(|part| part.layout);
        let spec = ConvolutionSpec {
            channels,
            taps,
            ring,
            x: x.layout,
            gate_in: layout(&gate_in),
            gate_out: layout(&gate_out),
            bias: bias.is_some(),
            activation,
            writes_state,
        };
        let read = |part: &Option<Columns>| part.map(|part| Operand::Read(part.value));
        let out = self.plan.value(self.like(x.value, channels));
        let mut operands = vec![Operand::Read(x.value)];
        operands.extend(self.vector(w, Arrangement::Concat));
        operands.extend(bias);
        operands.extend(read(&gate_in));
        operands.extend(read(&gate_out));
        operands.push(Operand::Step);
        operands.push(match writes_state {
            true => Operand::WriteState(id),
            false => Operand::ReadState(id),
        });
        operands.push(Operand::Write(out));
        self.call(KernelSpec::Convolution(spec), operands, "convolution", None);
        if !writes_state {
            let spec = ConvolutionStateSpec {
                channels,
                ring,
                x: x.layout,
                gate_in: layout(&gate_in),
            };
            let mut operands = vec![Operand::Read(x.value)];
            operands.extend(read(&gate_in));
            operands.extend([Operand::Step, Operand::WriteState(id)]);
            self.call(
                KernelSpec::ConvolutionState(spec),
                operands,
                "convolution's inputs kept",
                None,
            );
        }
        self.all_columns(out, channels)
    }

    pub(super) fn gated_delta(&mut self, [state, q, k, v, a, b, parameters]: [Id; 7]) -> Columns {
        let LeafDef::Delta {
            id,
            heads,
            key_dim,
            value_dim,
        } = *self.rewritten.leaf(state)
        else {
            unreachable!("a delta rule has a state")
        };
        let qkv = [q, k, v].map(|id| self.columns(id));
        let [q, k, v] = self.together(qkv);
        let [a, b] = [a, b].map(|id| self.columns(id));
        let spec = GatedDeltaSpec {
            key_heads: q.width / key_dim,
            value_heads: heads,
            key_dim,
            value_dim,
            q: q.layout,
            k: k.layout,
            v: v.layout,
            a: a.layout,
            b: b.layout,
            single: self.phase == Phase::Decode,
        };
        let step = (!spec.single).then_some(Operand::Step);
        let width = heads * value_dim;
        let out = self.plan.value(self.like(q.value, width));
        let mut operands = vec![Operand::Read(q.value), Operand::Read(a.value), Operand::Read(b.value)];
        operands.extend(self.vector(parameters, Arrangement::Concat));
        operands.extend(step);
        operands.extend([Operand::WriteState(id), Operand::Write(out)]);
        self.call(KernelSpec::GatedDelta(spec), operands, "gated delta rule", None);
        self.all_columns(out, width)
    }

    fn optional_columns(&mut self, id: Id) -> Option<Columns> {
        match self.rewritten.leaf_or_none(id) {
            Some(LeafDef::Nothing) => None,
            _ => Some(self.columns(id)),
        }
    }

    /// Three values as parts of one: as they are if they are so, else copied.
    fn together(&mut self, parts: [Columns; 3]) -> [Columns; 3] {
        let [first, ..] = parts;
        if parts.iter().all(|part| part.value == first.value) {
            return parts;
        }
        let stride = parts.iter().map(|part| part.width).sum();
        let whole = self.plan.value(self.like(first.value, stride));
        let mut offset = 0;
        parts.map(|part| {
            let layout = Strided { stride, offset };
            offset += part.width;
            let spec = PointwiseSpec {
                width: part.width,
                inputs: vec![part.layout, layout],
                expression: PointwiseExpr::Input(0),
                in_place: true,
            };
            let operands = vec![Operand::Read(part.value), Operand::Write(whole)];
            self.call(KernelSpec::Pointwise(spec), operands, "copy", None);
            Columns {
                value: whole,
                layout,
                width: part.width,
            }
        })
    }
}
