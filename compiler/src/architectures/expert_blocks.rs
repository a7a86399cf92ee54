//! Experts in the two layouts that most families share.

use crate::dsl::*;

/// What a family calls the matrices of its experts, below the path of them all.
pub struct ExpertNames {
    pub gate: &'static str,
    pub up: &'static str,
    pub down: &'static str,
}

/// Experts of `inner` neurons each at `path`: a tensor for each matrix of each expert, as published, or `gate_up_proj` and
/// `down_proj` with those of all, as transformers holds them.
pub fn gated_experts<'g, K: LayerKind>(
    layer: &Layer<'g, K>,
    path: &str,
    names: ExpertNames,
    count: Dim,
    (inner, outer): (Dim, Dim),
    activation: Activation,
) -> Experts<'g> {
    let each = |name: &str| Source::path(&format!("{path}.{{expert}}.{name}"));
    let all = |name: &str| Source::tensor(&format!("{path}.{name}"));
    let half = |name: &str, number: usize| all("gate_up_proj").part(name, &[inner, inner], number..number + 1);
    Experts {
        gate: layer.bank(each(names.gate).or(half("gate", 0)), count, inner, outer),
        up: layer.bank(each(names.up).or(half("up", 1)), count, inner, outer),
        down: layer.bank(each(names.down).or(all("down_proj")), count, outer, inner),
        gated: Gate::Activated(activation),
    }
}

/// As Qwen and OLMoE call them.
pub const PROJECTIONS: ExpertNames = ExpertNames {
    gate: "gate_proj",
    up: "up_proj",
    down: "down_proj",
};
