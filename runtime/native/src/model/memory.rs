//! Device memory, as it follows from the manifest.

use kiln_bundle::{BufferKind, Manifest, Variant};

use super::buffer_bytes;
use super::weights::used_bytes;
use crate::session::MAX_SNAPSHOTS;

/// Bytes of device memory that a model with one session needs. Buffers for reading results and the driver's own come on
/// top.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MemoryPlan {
    pub weights: u64,
    /// Keys and values of every position of the context.
    pub caches: u64,
    /// States that hold only the last positions: sliding windows, inputs of convolutions.
    pub windows: u64,
    /// States that sum up all tokens.
    pub recurrent: u64,
    /// Copies of recurrent states, and of the windows beside them, that a session keeps to go back to.
    pub copies: u64,
    /// Activations.
    pub arenas: u64,
    /// Hidden states, logits, tokens.
    pub others: u64,
}

impl MemoryPlan {
    /// For a session of `context` positions.
    pub fn new(manifest: &Manifest, variant: &Variant, context: u32) -> Self {
        let mut plan = Self {
            weights: used_bytes(manifest, variant),
            ..Self::default()
        };
        let mut copied = 0u64;
        for buffer in &variant.buffers {
            copied = copied.saturating_add(match buffer.kind {
                BufferKind::State {
                    bytes_per_position,
                    window: Some(window),
                    ..
                } => bytes_per_position.saturating_mul(window),
                BufferKind::Recurrent { bytes } => bytes,
                _ => 0,
            });
            let part = match buffer.kind {
                // Several buffers may name one weight.
                BufferKind::Weight { .. } => continue,
                BufferKind::State { positions: None, .. } => &mut plan.caches,
                BufferKind::State { .. } => &mut plan.windows,
                BufferKind::Recurrent { .. } => &mut plan.recurrent,
                BufferKind::Arena { .. } => &mut plan.arenas,
                _ => &mut plan.others,
            };
            let bytes = buffer_bytes(manifest, &buffer.kind, context).unwrap_or(u64::MAX);
            *part = part.saturating_add(bytes);
        }
        if plan.recurrent > 0 {
            plan.copies = copied.saturating_mul(MAX_SNAPSHOTS as u64);
        }
        plan
    }

    /// Weights, states and arenas: all of it.
    pub fn total(&self) -> u64 {
        let parts = [
            self.weights,
            self.caches,
            self.windows,
            self.recurrent,
            self.copies,
            self.arenas,
            self.others,
        ];
        parts.into_iter().fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// Bytes worked out by hand, which the tests of the JavaScript package read as well.
    #[derive(Deserialize)]
    struct Cases {
        manifest: Manifest,
        memory: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        variant: String,
        context: u32,
        weights: u64,
        caches: u64,
        windows: u64,
        recurrent: u64,
        copies: u64,
        activations: u64,
    }

    #[test]
    fn memory_is_planned_as_worked_out() {
        let cases: Cases = serde_json::from_str(include_str!("../../../cases/fit.json")).unwrap();
        assert!(!cases.memory.is_empty());
        for case in cases.memory {
            let variant = cases
                .manifest
                .variants
                .iter()
                .find(|variant| variant.name == case.variant);
            let plan = MemoryPlan::new(&cases.manifest, variant.unwrap(), case.context);
            let planned = (plan.weights, plan.caches, plan.windows, plan.recurrent, plan.copies);
            let expected = (case.weights, case.caches, case.windows, case.recurrent, case.copies);
            assert_eq!(planned, expected, "{} at {}", case.variant, case.context);
            assert_eq!(plan.arenas + plan.others, case.activations);
        }
    }
}
