//! Mixtures of experts: routing, and the experts themselves.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{linear, sigmoid, unary};
use crate::graph::{Gate, RouteSpec, Scoring};

/// One of the `k` experts that a token goes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    pub expert: usize,
    pub weight: f32,
}

/// The choices of each token, for `scores [T, experts]`; the highest score first.
///
/// Experts are chosen by `score + selection_bias` (by `σ(score) + selection_bias` where the scoring is a sigmoid); the
/// bias has no part in the weights. `spec.experts_per_token` must be at most `experts`.
pub fn route(scores: &[f32], experts: usize, selection_bias: Option<&[f32]>, spec: &RouteSpec) -> Vec<Vec<Choice>> {
    let token = |scores: &[f32]| {
        let chosen_by: Vec<f32> = match (selection_bias, spec.scoring) {
            (None, _) => scores.to_vec(),
            (Some(bias), Scoring::Sigmoid) => scores.iter().zip(bias).map(|(s, b)| sigmoid(*s) + b).collect(),
            (Some(bias), _) => scores.iter().zip(bias).map(|(s, b)| s + b).collect(),
        };
        let chosen = highest(&chosen_by, spec.experts_per_token as usize);
        let mut weights: Vec<f32> = match spec.scoring {
            Scoring::SoftmaxChosen => softmax(&pick(scores, &chosen)),
            Scoring::SoftmaxAll => pick(&softmax(scores), &chosen),
            Scoring::Sigmoid => pick(scores, &chosen).into_iter().map(sigmoid).collect(),
        };
        if let Some(epsilon) = spec.normalize {
            let sum = weights.iter().sum::<f32>() + epsilon;
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        let choices = chosen.into_iter().zip(weights);
        choices
            .map(|(expert, weight)| Choice {
                expert,
                weight: weight * spec.scale,
            })
            .collect()
    };
    scores.chunks(experts).map(token).collect()
}

/// The places of the `count` largest numbers, the largest first; of equal ones the first wins.
fn highest(numbers: &[f32], count: usize) -> Vec<usize> {
    let mut found: Vec<usize> = Vec::with_capacity(count);
    for _ in 0..count {
        let left = (0..numbers.len()).filter(|place| !found.contains(place));
        let best = left.reduce(|best, place| if numbers[place] > numbers[best] { place } else { best });
        found.extend(best);
    }
    found
}

fn pick(numbers: &[f32], places: &[usize]) -> Vec<f32> {
    places.iter().map(|&place| numbers[place]).collect()
}

fn softmax(scores: &[f32]) -> Vec<f32> {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f32> = scores.iter().map(|score| (score - largest).exp()).collect();
    let total: f32 = exponentials.iter().sum();
    exponentials
        .into_iter()
        .map(|exponential| exponential / total)
        .collect()
}

/// How a gated unit joins one element of gate and up.
pub fn gated(function: Gate, gate: f32, up: f32) -> f32 {
    match function {
        Gate::Activated(activation) => unary(activation, gate) * up,
        Gate::Clamped { alpha, limit } => {
            let (gate, up) = (gate.min(limit), up.clamp(-limit, limit));
            (up + 1.0) * gate * sigmoid(alpha * gate)
        }
    }
}

/// The weights of one expert: `gate` and `up [m, hidden]`, `down [hidden, m]`, and what is added to each product.
pub struct ExpertWeights<'w> {
    pub gate: Cow<'w, [f32]>,
    pub up: Cow<'w, [f32]>,
    pub down: Cow<'w, [f32]>,
    pub gate_bias: Option<Cow<'w, [f32]>>,
    pub up_bias: Option<Cow<'w, [f32]>>,
    pub down_bias: Option<Cow<'w, [f32]>>,
}

/// `Σ weight · expert(x)` over the choices of each token of `x [T, hidden]`. Only the experts that some token goes to
/// are asked for, each once.
///
/// # Errors
/// Those of `weights_of`.
pub fn experts<'w, E>(
    x: &[f32],
    hidden: usize,
    routing: &[Vec<Choice>],
    function: Gate,
    weights_of: impl Fn(usize) -> Result<ExpertWeights<'w>, E>,
) -> Result<Vec<f32>, E> {
    let mut goes_to: BTreeMap<usize, Vec<(usize, f32)>> = BTreeMap::new();
    for (token, choices) in routing.iter().enumerate() {
        for choice in choices {
            goes_to.entry(choice.expert).or_default().push((token, choice.weight));
        }
    }
    let mut sums = vec![0.0; x.len()];
    for (number, tokens) in goes_to {
        let own: Vec<f32> = (tokens.iter())
            .flat_map(|(token, _)| &x[token * hidden..][..hidden])
            .copied()
            .collect();
        let results = expert(&own, hidden, function, &weights_of(number)?);
        for ((token, weight), result) in tokens.into_iter().zip(results.chunks(hidden)) {
            for (sum, result) in sums[token * hidden..][..hidden].iter_mut().zip(result) {
                *sum += weight * result;
            }
        }
    }
    Ok(sums)
}

/// `down gated(gate x, up x)` of each row of `hidden`.
fn expert(x: &[f32], hidden: usize, function: Gate, weights: &ExpertWeights) -> Vec<f32> {
    let gate = linear(x, &weights.gate, weights.gate_bias.as_deref(), hidden);
    let up = linear(x, &weights.up, weights.up_bias.as_deref(), hidden);
    let joined: Vec<f32> = gate
        .iter()
        .zip(&up)
        .map(|(&gate, &up)| gated(function, gate, up))
        .collect();
    linear(
        &joined,
        &weights.down,
        weights.down_bias.as_deref(),
        weights.gate.len() / hidden,
    )
}

#[cfg(test)]
mod tests;
