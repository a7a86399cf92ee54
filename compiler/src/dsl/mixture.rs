use std::panic::Location;

use super::tensor::only_numbers_agree;
use super::{Bank, Tensor, Vector};
use crate::graph::{Dim, Gate, Op, RouteSpec, Scoring, Shape, WeightId};

/// How [`route`] chooses experts and weighs them.
#[derive(Clone, Copy)]
pub struct Routing<'g> {
    experts_per_token: Dim,
    scoring: Scoring,
    normalize: Option<f32>,
    scale: f32,
    bias: Option<Vector<'g>>,
}

/// Which experts each token goes to, and with which weights.
#[derive(Clone, Copy)]
pub struct Routed<'g> {
    tensor: Tensor<'g>,
    /// How many there are to choose from.
    experts: Dim,
}

/// The matrices of a mixture of experts: `gate` and `up` are `[experts, m, n]`, `down` is `[experts, n, m]`. Either all
/// have biases or none.
#[derive(Clone, Copy)]
pub struct Experts<'g> {
    pub gate: Bank<'g>,
    pub up: Bank<'g>,
    pub down: Bank<'g>,
    /// How the products of gate and up become one.
    pub gated: Gate,
}

impl<'g> Routing<'g> {
    /// The `count` experts of the highest scores; their weights follow from the scores.
    pub fn top(count: impl Into<Dim>, scoring: Scoring) -> Self {
        Routing {
            experts_per_token: count.into(),
            scoring,
            normalize: None,
            scale: 1.0,
            bias: None,
        }
    }

    /// A token's weights are divided by their sum plus `extra`; `None` leaves them.
    pub fn normalized(self, extra: impl Into<Option<f32>>) -> Self {
        Routing {
            normalize: extra.into(),
            ..self
        }
    }

    /// The weights are multiplied by `factor`, last.
    pub fn scaled(self, factor: f32) -> Self {
        Routing { scale: factor, ..self }
    }

    /// `bias [experts]` is added to what experts are chosen by, not to their weights.
    pub fn biased(self, bias: impl Into<Option<Vector<'g>>>) -> Self {
        Routing {
            bias: bias.into(),
            ..self
        }
    }
}

/// `(scores [T, experts]) -> [T, k]`: the experts of each token, and their weights.
#[track_caller]
pub fn route<'g>(scores: Tensor<'g>, how: Routing<'g>) -> Routed<'g> {
    let (at, builder, found) = (Location::caller(), scores.builder, scores.shape());
    let problem = |message: String| builder.problem(at, format!("route: {message}"));
    let wanted = how.experts_per_token;
    let experts = match found.dims[..] {
        [experts] => experts,
        _ => {
            problem(format!("{} is {found}, not [T, experts]", builder.describe(scores)));
            wanted
        }
    };
    if !(1..=experts.value()).contains(&wanted.value()) {
        problem(format!("a token cannot go to {wanted:?} of {experts:?} experts"));
    }
    if let Some(bias) = how.bias
        && bias.length != experts
    {
        let (name, length) = (bias.name(), bias.length);
        problem(format!("`{name}` is for {length:?} experts, but there are {experts:?}"));
    }
    if !how.scale.is_finite() {
        problem(format!("a scale of {}", how.scale));
    }
    if let Some(extra) = how.normalize.filter(|extra| !(*extra >= 0.0 && extra.is_finite())) {
        problem(format!("weights divided by their sum plus {extra}"));
    }
    let spec = RouteSpec {
        experts_per_token: wanted.value() as u32,
        scoring: how.scoring,
        normalize: how.normalize,
        scale: how.scale,
    };
    let mut operands = vec![scores];
    operands.extend(how.bias.map(Vector::tensor));
    let shape = Shape::per_token([wanted]);
    Routed {
        tensor: builder.add(Op::Route(spec), &operands, shape, at),
        experts,
    }
}

/// `(x [T, n], routing) -> [T, n]`: what each token's experts make of it, each times its weight, summed up.
#[track_caller]
pub fn moe<'g>(x: Tensor<'g>, routing: Routed<'g>, experts: Experts<'g>) -> Tensor<'g> {
    let (at, builder, found) = (Location::caller(), x.builder, x.shape());
    let problem = |message: String| builder.problem(at, format!("moe: {message}"));
    let Experts { gate, up, down, gated } = experts;
    let inner = gate.rows;
    let expected = [
        (gate, [routing.experts, inner, gate.columns]),
        (up, [routing.experts, inner, gate.columns]),
        (down, [routing.experts, gate.columns, inner]),
    ];
    for (bank, expected) in expected {
        let found = [bank.experts, bank.rows, bank.columns];
        if found != expected {
            problem(format!(
                "`{}` is {}, not {}{}",
                builder.weight_name(bank.id),
                Shape::fixed(found),
                Shape::fixed(expected),
                only_numbers_agree(&found, &expected),
            ));
        }
    }
    if found != Shape::per_token([gate.columns]) {
        let (name, takes) = (builder.weight_name(gate.id), [gate.columns]);
        let agree = only_numbers_agree(&found.dims, &takes);
        let message = format!(
            "{} is {found}, but `{name}` takes [T, {:?}]{agree}",
            builder.describe(x),
            takes[0]
        );
        problem(message);
    }
    if let Gate::Clamped { alpha, limit } = gated
        && !(alpha.is_finite() && limit > 0.0 && limit.is_finite())
    {
        problem(format!("a gate of alpha {alpha} and limit {limit}"));
    }
    let banks = [gate, up, down];
    let biases: Vec<WeightId> = banks.iter().filter_map(|bank| bank.bias).collect();
    if !biases.is_empty() && biases.len() < banks.len() {
        problem(format!("{} of 3 matrices have a bias", biases.len()));
    }
    let mut operands = vec![x, routing.tensor];
    let weights = banks.iter().map(|bank| bank.id).chain(biases);
    operands.extend(weights.map(|weight| builder.weight(weight)));
    builder.add(Op::Experts(gated), &operands, found, at)
}
