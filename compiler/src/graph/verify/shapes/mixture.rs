//! Mixtures of experts.

use super::{Check, Checker, ValueKind, positive};
use crate::graph::verify::require;
use crate::graph::{Dim, Gate, RouteSpec, Shape, WeightRole};

impl Checker<'_> {
    pub(super) fn route(&self, spec: &RouteSpec) -> Check<Shape> {
        let with_bias = self.takes_also(&[ValueKind::Floats], &[ValueKind::Weight])?;
        let experts = self.row(0)?;
        let k = spec.experts_per_token as usize;
        require((1..=experts.value()).contains(&k), || {
            format!("chooses {k} of {experts:?} experts")
        })?;
        if with_bias {
            let bias = self.vector(1)?;
            require(bias == experts, || {
                format!("a bias of {bias:?} for {experts:?} experts")
            })?;
        }
        let added = spec.normalize.unwrap_or(0.0);
        require(added >= 0.0 && added.is_finite(), || {
            format!("adds {added} to the sum of the weights")
        })?;
        require(spec.scale.is_finite(), || format!("its scale is {}", spec.scale))?;
        // Authors may have a symbol for it.
        match self.node.shape.dims[..] {
            [named] if named.value() == k => Ok(Shape::per_token([named])),
            _ => Ok(Shape::per_token([Dim::constant(k)])),
        }
    }

    pub(super) fn experts(&self, gate: &Gate) -> Check<Shape> {
        let banks = [
            ValueKind::Floats,
            ValueKind::Routing,
            ValueKind::Weight,
            ValueKind::Weight,
            ValueKind::Weight,
        ];
        let biased = self.takes_also(&banks, &[ValueKind::Weight; 3])?;
        if let Gate::Clamped { alpha, limit } = gate {
            require(alpha.is_finite(), || format!("its alpha is {alpha}"))?;
            require(positive(*limit), || format!("its limit is {limit}"))?;
        }
        let hidden = self.row(0)?;
        let chosen_from = self.routed_experts(1)?;
        let up = self.bank(3)?;
        let [experts, inner, _] = up;
        require(experts == chosen_from, || {
            format!("{experts:?} experts, its routing chooses of {chosen_from:?}")
        })?;
        for (operand, found, needed) in [
            ("gate", self.bank(2)?, [experts, inner, hidden]),
            ("up", up, [experts, inner, hidden]),
            ("down", self.bank(4)?, [experts, hidden, inner]),
        ] {
            require(found == needed, || {
                format!("{operand} is {found:?}, should be {needed:?}")
            })?;
        }
        if biased {
            for (operand, rows) in [(5, inner), (6, inner), (7, hidden)] {
                let (found, needed) = (self.numbers(operand)?, [experts, rows]);
                require(found == needed, || format!("a bias {found:?}, should be {needed:?}"))?;
            }
        }
        Ok(Shape::per_token([hidden]))
    }

    fn bank(&self, operand: usize) -> Check<[Dim; 3]> {
        let weight = self.operand_weight(operand, &[WeightRole::Bank])?;
        let shape = weight.shape[..].try_into();
        shape.map_err(|_| format!("`{}` is no bank", weight.name))
    }

    /// How many experts an operand, a routing, chooses of.
    fn routed_experts(&self, operand: usize) -> Check<Dim> {
        let routing = self.section.operands(self.index)[operand];
        let scores = self.section.operands(routing).first().copied();
        let shape = scores.map(|scores| &self.section.nodes[scores].shape);
        match shape.map(|shape| &shape.dims[..]) {
            Some([experts]) => Ok(*experts),
            _ => Err("its routing has no scores".to_string()),
        }
    }
}
