//! Elementwise functions, written so that no input makes them overflow.

use super::builder::F32;
use super::math::{log_one_plus, tanh};
use super::names::number;
use crate::graph::{Gate, Unary};

/// `function(x)`, as [`Unary`] defines it.
pub fn unary(function: Unary, x: F32<'_>) -> F32<'_> {
    match function {
        Unary::Silu => x * sigmoid(x),
        Unary::GeluTanh => {
            let x = x.named("x_gelu");
            let inner =
                (x + x * x * x * 0.044_715) * std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;
            x * 0.5 * (tanh(inner) + 1.0)
        }
        Unary::GeluErf => {
            let x = x.named("x_gelu");
            x * 0.5 * (erf(x * std::f32::consts::FRAC_1_SQRT_2) + 1.0)
        }
        Unary::Sigmoid => sigmoid(x),
        Unary::Relu => x.max(0.0),
        Unary::Tanh => tanh(x),
    }
}

/// Gate and up joined, as [`Gate`] defines it.
pub fn gated<'b>(function: Gate, gate: F32<'b>, up: F32<'b>) -> F32<'b> {
    match function {
        Gate::Activated(function) => unary(function, gate) * up,
        Gate::Clamped { alpha, limit } => {
            let gate = gate.min(limit).named("gate_clamped");
            let up = up.max(-limit).min(limit).named("up_clamped");
            (up + 1.0) * gate * sigmoid(gate * alpha)
        }
    }
}

/// The part of a kernel's name that tells gates apart.
pub fn gate_name(function: Gate) -> String {
    match function {
        Gate::Activated(function) => format!("{function:?}glu").to_lowercase(),
        Gate::Clamped { alpha, limit } => format!("clamped{}to{}glu", number(alpha), number(limit)),
    }
}

/// `cap · tanh(x / cap)`
pub fn softcap(cap: f32, x: F32<'_>) -> F32<'_> {
    tanh(x / cap) * cap
}

/// `log(1 + e^x)`, relatively accurate where it is small.
pub fn softplus(x: F32<'_>) -> F32<'_> {
    let x = x.named("x_softplus");
    log_one_plus((-x.abs()).exp()) + x.max(0.0)
}

/// `1 / (1 + e^-x)`; the exponent is kept finite.
pub fn sigmoid(x: F32<'_>) -> F32<'_> {
    let one = x.builder().literal(1.0);
    one / ((-x).min(80.0).exp() + 1.0)
}

/// Abramowitz & Stegun 7.1.26: within 1.5e-7 everywhere.
fn erf(x: F32<'_>) -> F32<'_> {
    const COEFFICIENTS: [f32; 5] = [0.254_829_6, -0.284_496_74, 1.421_413_7, -1.453_152, 1.061_405_4];
    let b = x.builder();
    let one = b.literal(1.0);
    let magnitude = x.abs().named("magnitude");
    let t = (one / (magnitude * 0.327_591_1 + 1.0)).named("t");
    let [first, rest @ ..] = COEFFICIENTS;
    let mut polynomial = b.literal(0.0);
    for &coefficient in rest.iter().rev() {
        polynomial = (polynomial + coefficient) * t;
    }
    let value = one - (polynomial + first) * t * (-(magnitude * magnitude)).exp();
    x.lt(0.0).select(-value, value)
}
