//! Scalar functions in f64, as `kiln_compiler::graph` defines them.

use kiln_compiler::graph::{Gate, Unary};

pub fn unary(function: Unary, x: f64) -> f64 {
    match function {
        Unary::Silu => x / (1.0 + (-x).exp()),
        Unary::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            x / 2.0 * (1.0 + inner.tanh())
        }
        Unary::GeluErf => x / 2.0 * (1.0 + erf(x / 2f64.sqrt())),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Relu => x.max(0.0),
        Unary::Tanh => x.tanh(),
    }
}

pub fn gated(function: Gate, gate: f64, up: f64) -> f64 {
    match function {
        Gate::Activated(function) => unary(function, gate) * up,
        Gate::Clamped { alpha, limit } => {
            let limit = f64::from(limit);
            let (gate, up) = (gate.min(limit), up.clamp(-limit, limit));
            (up + 1.0) * gate / (1.0 + (-f64::from(alpha) * gate).exp())
        }
    }
}

/// The integral that defines it, by Simpson's rule.
fn erf(x: f64) -> f64 {
    const INTERVALS: usize = 2000;
    let x = x.clamp(-6.0, 6.0);
    let width = x / INTERVALS as f64;
    let height = |i: usize| (-(i as f64 * width).powi(2)).exp();
    let sum: f64 = (1..INTERVALS)
        .map(|i| height(i) * if i % 2 == 1 { 4.0 } else { 2.0 })
        .sum();
    2.0 / std::f64::consts::PI.sqrt() * width / 3.0 * (height(0) + sum + height(INTERVALS))
}
