//! Operators that remember earlier tokens otherwise than by keys and values.

use std::panic::Location;

use super::tensor::only_numbers_agree;
use super::{Filter, Layer, LayerKind, Tensor, Vector};
use crate::graph::{Dim, Op, Shape, StateKind};

/// What [`Layer::gated_delta`] takes: `q`, `k` `[T, key_heads, key_width]`, `v` `[T, value_heads, value_width]`, `a`, `b`
/// `[T, value_heads]`, `a_log`, `dt_bias` `[value_heads]`.
#[derive(Clone, Copy)]
pub struct GatedDelta<'g> {
    pub q: Tensor<'g>,
    pub k: Tensor<'g>,
    pub v: Tensor<'g>,
    /// How much each head forgets, before `softplus`.
    pub a: Tensor<'g>,
    /// How much each head writes, before `sigmoid`.
    pub b: Tensor<'g>,
    pub a_log: Vector<'g>,
    pub dt_bias: Vector<'g>,
}

impl<'g, K: LayerKind> Layer<'g, K> {
    /// `x [T, channels] -> [T, channels]`: causal depthwise convolution over the token and the `taps - 1` before it.
    #[track_caller]
    pub fn convolution(&self, x: Tensor<'g>, filter: Filter<'g>) -> Tensor<'g> {
        let (at, builder, found) = (Location::caller(), x.builder, x.shape());
        if found != Shape::per_token([filter.channels]) {
            let channels = filter.channels;
            let message = format!(
                "convolution: {} is {found}, but `{}` takes [T, {channels:?}]{}",
                builder.describe(x),
                builder.weight_name(filter.id),
                only_numbers_agree(&found.dims, &[channels]),
            );
            builder.problem(at, message);
        }
        let taps = filter.taps.value();
        if taps < 2 {
            let taps = filter.taps;
            builder.problem(at, format!("convolution: {taps:?} taps see no token before"));
        }
        let state = self.declare_state("conv", vec![filter.channels], StateKind::Convolution { taps });
        let weights = std::iter::once(filter.id).chain(filter.bias);
        let operands: Vec<Tensor<'g>> = std::iter::once(x).chain(weights.map(|id| builder.weight(id))).collect();
        let shape = Shape::per_token([filter.channels]);
        builder.add(Op::Convolution(state), &operands, shape, at)
    }

    /// `-> [T, value_heads, value_width]`: the gated delta rule. Each head keeps a matrix in which it overwrites the
    /// value of a key by a new one, and which fades: see [`Op::GatedDelta`]. Value heads share key heads in consecutive
    /// groups.
    #[track_caller]
    pub fn gated_delta(&self, of: GatedDelta<'g>) -> Tensor<'g> {
        let (at, builder) = (Location::caller(), of.q.builder);
        let problem = |message: String| builder.problem(at, format!("gated_delta: {message}"));
        let (keys, values) = (of.k.shape(), of.v.shape());
        let ([key_heads, key_width], [value_heads, value_width]) = (&keys.dims[..], &values.dims[..]) else {
            let (k, v) = (builder.describe(of.k), builder.describe(of.v));
            problem(format!("{k} is {keys}, {v} is {values}; both need heads and width"));
            return of.v;
        };
        let expect = |tensor: Tensor<'g>, expected: &[Dim]| {
            let found = tensor.shape();
            if found.dims != expected {
                let (what, agree) = (builder.describe(tensor), only_numbers_agree(&found.dims, expected));
                let expected = Shape::per_token(expected.iter().copied());
                problem(format!("{what} is {found}, not {expected}{agree}"));
            }
        };
        expect(of.q, &[*key_heads, *key_width]);
        expect(of.a, &[*value_heads]);
        expect(of.b, &[*value_heads]);
        for vector in [of.a_log, of.dt_bias] {
            if vector.length != *value_heads {
                let (name, length) = (vector.name(), vector.length);
                problem(format!("`{name}` has {length:?} elements for {value_heads:?} heads"));
            }
        }
        if !value_heads.value().is_multiple_of(key_heads.value()) {
            problem(format!("{value_heads:?} value heads cannot share {key_heads:?}"));
        }
        let shape = vec![*value_heads, *key_width, *value_width];
        let state = self.declare_state("delta", shape, StateKind::Recurrent);
        let [a_log, dt_bias] = [of.a_log, of.dt_bias].map(Vector::tensor);
        let operands = [of.q, of.k, of.v, of.a, of.b, a_log, dt_bias];
        builder.add(Op::GatedDelta(state), &operands, values, at)
    }
}
