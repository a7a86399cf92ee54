//! From an operator of the graph to its function in [`ops`].

use super::operands::{Operands, Value, heads};
use super::{EvalError, Evaluator, SectionInput};
use crate::graph::Op;
use crate::reference::ops::{self, AttentionSizes, DeltaInputs, DeltaShape, ExpertWeights};

impl Evaluator<'_> {
    pub(super) fn node(&mut self, operands: &Operands, input: &SectionInput) -> Result<Value, EvalError> {
        let node = operands.node;
        let result = match &node.op {
            Op::Tokens => return Ok(Value::Tokens),
            Op::LayerInput => input.hidden.to_vec(),
            Op::Weight(id) => return Ok(Value::Weight(*id)),
            Op::Gather => {
                let table = self.weight(operands.weight(0)?, input.layer)?;
                let columns = operands.columns(0)?;
                let vocab = table.len() / columns;
                if let Some(&id) = input.ids.iter().find(|&&id| id as usize >= vocab) {
                    return Err(EvalError::Token { id, vocab });
                }
                ops::gather(&table, columns, input.ids)
            }
            Op::Linear => {
                let weight = self.weight(operands.weight(1)?, input.layer)?;
                let bias = self.optional(operands, 2, input)?;
                ops::linear(operands.floats(0)?, &weight, bias.as_deref(), operands.columns(1)?)
            }
            Op::RmsNorm { eps, unit_offset } => {
                let weight = self.weight(operands.weight(1)?, input.layer)?;
                ops::rms_norm(operands.floats(0)?, &weight, *eps, *unit_offset)
            }
            Op::Unary(function) => {
                let x = operands.floats(0)?.iter();
                x.map(|&x| ops::unary(*function, x)).collect()
            }
            Op::Binary(function) => {
                let pairs = operands.floats(0)?.iter().zip(operands.floats(1)?);
                pairs.map(|(&a, &b)| ops::binary(*function, a, b)).collect()
            }
            Op::Scale(factor) => operands.floats(0)?.iter().map(|x| x * factor).collect(),
            Op::Softcap(cap) => {
                let x = operands.floats(0)?.iter();
                x.map(|&x| ops::softcap(x, *cap)).collect()
            }
            Op::Clamp(limit) => {
                let x = operands.floats(0)?.iter();
                x.map(|&x| ops::clamp(x, *limit)).collect()
            }
            Op::ScaleRows => ops::scale_rows(operands.floats(0)?, operands.floats(1)?, operands.columns(0)?),
            Op::SplitHeads { .. } | Op::MergeHeads => operands.floats(0)?.to_vec(),
            Op::Rope(rope) => {
                let (heads, width) = heads(node)?;
                let spec = &self.graph.ropes[rope.0];
                ops::rope(operands.floats(0)?, heads, width, self.position, spec)
            }
            Op::CacheWrite(state) => {
                let cache = self.state(operands, *state, input)?;
                cache.resize(operands.count(), Vec::new());
                for (plane, values) in cache.iter_mut().enumerate() {
                    values.extend_from_slice(operands.floats(plane)?);
                }
                return Ok(Value::Cache(*state));
            }
            Op::Attention(spec) => {
                let state = operands.cache(1)?;
                let (heads, width) = heads(node)?;
                let shape = AttentionSizes {
                    heads,
                    kv_heads: self.graph.states[state.0].shape[0].value(),
                    width,
                };
                let sinks = self.optional(operands, 2, input)?;
                let first_position = self.position;
                let [keys, values] = self.state(operands, state, input)?.as_slice() else {
                    return Err(operands.broken("reads a cache that does not hold keys and values"));
                };
                let q = operands.floats(0)?;
                ops::attention(q, keys, values, sinks.as_deref(), first_position, shape, spec)
            }
            Op::Slice { start, len } => {
                let columns = operands.columns(0)?;
                ops::slice(operands.floats(0)?, columns, start.value(), len.value())
            }
            Op::Convolution(state) => {
                let weight = self.weight(operands.weight(1)?, input.layer)?;
                let bias = self.optional(operands, 2, input)?;
                let first_position = self.position;
                let inputs = self.one_plane(operands, *state, input)?;
                inputs.extend_from_slice(operands.floats(0)?);
                ops::convolution(inputs, first_position, &weight, bias.as_deref(), operands.columns(0)?)
            }
            Op::GatedDelta(state) => {
                let (key_heads, key_width) = operands.heads(1)?;
                let (value_heads, value_width) = operands.heads(2)?;
                let shape = DeltaShape {
                    key_heads,
                    value_heads,
                    key_width,
                    value_width,
                };
                let inputs = DeltaInputs {
                    q: operands.floats(0)?,
                    k: operands.floats(1)?,
                    v: operands.floats(2)?,
                    a: operands.floats(3)?,
                    b: operands.floats(4)?,
                    a_log: &self.weight(operands.weight(5)?, input.layer)?,
                    dt_bias: &self.weight(operands.weight(6)?, input.layer)?,
                };
                ops::gated_delta(&inputs, shape, self.one_plane(operands, *state, input)?)
            }
            Op::Route(spec) => {
                let bias = self.optional(operands, 1, input)?;
                let (scores, experts) = (operands.floats(0)?, operands.columns(0)?);
                return Ok(Value::Routing(ops::route(scores, experts, bias.as_deref(), spec)));
            }
            Op::Experts(gate) => {
                let of_expert = |expert: usize| {
                    let weight = |position| self.of_expert(operands.weight(position)?, expert, input.layer);
                    let bias = |position| {
                        let id = operands.optional_weight(position)?;
                        id.map(|id| self.of_expert(id, expert, input.layer)).transpose()
                    };
                    Ok(ExpertWeights {
                        gate: weight(2)?,
                        up: weight(3)?,
                        down: weight(4)?,
                        gate_bias: bias(5)?,
                        up_bias: bias(6)?,
                        down_bias: bias(7)?,
                    })
                };
                let (x, hidden) = (operands.floats(0)?, operands.columns(0)?);
                ops::experts(x, hidden, operands.routing(1)?, *gate, of_expert)?
            }
        };
        Ok(Value::Floats(result))
    }
}
