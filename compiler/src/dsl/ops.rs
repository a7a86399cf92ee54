use std::panic::Location;

use super::tensor::{check_cap, only_numbers_agree};
use super::{Matrix, Tensor, Tokens, Vector};
use crate::graph::{AttentionSpec, Op, Shape, StateId, Unary};

/// A layer's keys and values so far, this step's included.
#[derive(Clone, Copy)]
pub struct Cache<'g> {
    pub(super) tensor: Tensor<'g>,
    pub(super) state: StateId,
}

/// How [`attention`] attends.
#[derive(Clone, Copy, Default)]
pub struct Attention<'g> {
    scale: Option<f32>,
    window: Option<usize>,
    softcap: Option<f32>,
    sinks: Option<Vector<'g>>,
}

impl<'g> Attention<'g> {
    /// A token sees itself and all before it; dot products are divided by the root of the head's width.
    pub fn causal() -> Self {
        Attention::default()
    }

    /// Multiplies the dot products by `scale` instead.
    pub fn scale(self, scale: f32) -> Self {
        Attention {
            scale: Some(scale),
            ..self
        }
    }

    /// A token sees itself and the `window - 1` tokens before it; `None` is no window.
    pub fn window(self, window: impl Into<Option<usize>>) -> Self {
        Attention {
            window: window.into(),
            ..self
        }
    }

    /// `cap · tanh(score / cap)` on the scaled scores; `None` is no cap.
    pub fn softcap(self, cap: impl Into<Option<f32>>) -> Self {
        Attention {
            softcap: cap.into(),
            ..self
        }
    }

    /// `sinks [heads]`: one more logit for each head, which takes a share of the softmax and attends to nothing.
    pub fn sinks(self, sinks: impl Into<Option<Vector<'g>>>) -> Self {
        Attention {
            sinks: sinks.into(),
            ..self
        }
    }
}

/// `(table [vocab, n], tokens [T]) -> [T, n]`: the table's rows.
#[track_caller]
pub fn gather<'g>(table: Matrix<'g>, tokens: Tokens<'g>) -> Tensor<'g> {
    let shape = Shape::per_token([table.columns]);
    let operands = [table.tensor(), tokens.0];
    tokens.0.builder.add(Op::Gather, &operands, shape, Location::caller())
}

/// `(x [T, in], weight [out, in]) -> [T, out]`: `x weightᵀ`, plus the weight's bias if it has one.
#[track_caller]
pub fn linear<'g>(x: Tensor<'g>, weight: Matrix<'g>) -> Tensor<'g> {
    let (at, found) = (Location::caller(), x.shape());
    if found != Shape::per_token([weight.columns]) {
        let message = format!(
            "linear: {} is {found}, but `{}` takes [T, {:?}]{}",
            x.builder.describe(x),
            weight.name(),
            weight.columns,
            only_numbers_agree(&found.dims, &[weight.columns]),
        );
        x.builder.problem(at, message);
    }
    let mut operands = vec![x, weight.tensor()];
    operands.extend(weight.bias.map(|bias| x.builder.weight(bias)));
    let shape = Shape::per_token([weight.rows]);
    x.builder.add(Op::Linear, &operands, shape, at)
}

/// `(x [.., n], weight [n]) -> [.., n]`: `x / sqrt(mean(x²) + eps) · weight`.
#[track_caller]
pub fn rms_norm<'g>(x: Tensor<'g>, weight: Vector<'g>, eps: f32) -> Tensor<'g> {
    norm(x, weight, eps, false, Location::caller())
}

/// [`rms_norm`] times `1 + weight` instead of `weight`, as Gemma stores its norms.
#[track_caller]
pub fn rms_norm_plus_one<'g>(x: Tensor<'g>, weight: Vector<'g>, eps: f32) -> Tensor<'g> {
    norm(x, weight, eps, true, Location::caller())
}

fn norm<'g>(
    x: Tensor<'g>,
    weight: Vector<'g>,
    eps: f32,
    unit_offset: bool,
    at: &'static Location<'static>,
) -> Tensor<'g> {
    let shape = x.shape();
    if shape.dims.last() != Some(&weight.length) {
        let message = format!(
            "rms_norm: {} is {shape}, but `{}` is for [.., {:?}]{}",
            x.builder.describe(x),
            weight.name(),
            weight.length,
            only_numbers_agree(&shape.dims[shape.dims.len().saturating_sub(1)..], &[weight.length]),
        );
        x.builder.problem(at, message);
    }
    if !(eps >= 0.0 && eps.is_finite()) {
        x.builder.problem(at, format!("rms_norm: an epsilon of {eps}"));
    }
    let op = Op::RmsNorm { eps, unit_offset };
    x.builder.add(op, &[x, weight.tensor()], shape, at)
}

/// `(q [T, heads, width], cache) -> [T, heads · width]`: scaled dot-product attention. Query heads
/// share key-value heads in consecutive groups.
#[track_caller]
pub fn attention<'g>(q: Tensor<'g>, cache: Cache<'g>, how: Attention<'g>) -> Tensor<'g> {
    let at = Location::caller();
    let (shape, kept) = (q.shape(), cache.tensor.shape());
    let ([heads, width], [kv_heads, kv_width]) = (&shape.dims[..], &kept.dims[..]) else {
        let what = q.builder.describe(q);
        let message = format!("attention: {what} is {shape}, the cache {kept}; both need heads and width");
        q.builder.problem(at, message);
        return q;
    };
    if width != kv_width {
        let message = format!("attention: queries are {width:?} wide, keys {kv_width:?}");
        q.builder.problem(at, message);
    }
    if !heads.value().is_multiple_of(kv_heads.value()) {
        let message = format!("attention: {heads:?} query heads cannot share {kv_heads:?}");
        q.builder.problem(at, message);
    }
    if how.window == Some(0) {
        q.builder
            .problem(at, "attention: a window of 0 sees nothing".to_string());
    }
    if how.scale.is_some_and(|scale| !scale.is_finite()) {
        let message = format!("attention: a scale of {}", how.scale.unwrap_or_default());
        q.builder.problem(at, message);
    }
    if let Some(cap) = how.softcap {
        check_cap(q, cap, at);
    }
    if let Some(sinks) = how.sinks
        && sinks.length != *heads
    {
        let (name, length) = (sinks.name(), sinks.length);
        let message = format!("attention: `{name}` has {length:?} sinks for {heads:?} heads");
        q.builder.problem(at, message);
    }
    q.builder.widen_state(cache.state, how.window);
    let spec = AttentionSpec {
        scale: how.scale.unwrap_or((width.value() as f64).powf(-0.5) as f32),
        window: how.window,
        softcap: how.softcap,
    };
    let flat = Shape::per_token([*heads * *width]);
    let mut operands = vec![q, cache.tensor];
    operands.extend(how.sinks.map(Vector::tensor));
    let each = q.builder.add(Op::Attention(spec), &operands, shape, at);
    q.builder.add(Op::MergeHeads, &[each], flat, at)
}

/// The activation function that a config names, elementwise.
#[track_caller]
pub fn activate(function: Unary, x: Tensor<'_>) -> Tensor<'_> {
    x.builder.add(Op::Unary(function), &[x], x.shape(), Location::caller())
}

/// `x · σ(x)`
#[track_caller]
pub fn silu(x: Tensor<'_>) -> Tensor<'_> {
    activate(Unary::Silu, x)
}

/// `1 / (1 + e^-x)`
#[track_caller]
pub fn sigmoid(x: Tensor<'_>) -> Tensor<'_> {
    activate(Unary::Sigmoid, x)
}
