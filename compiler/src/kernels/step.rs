//! The step buffer, as kernels read it.

use kiln_bundle::{Access, StepWord};

use super::builder::{Array, Builder, U32};

/// The read-only step buffer. What is read from it is uniform: control flow may depend on it around barriers.
#[derive(Clone, Copy)]
pub struct Step<'b>(Array<'b, u32>);

impl<'b> Step<'b> {
    /// Makes it the next binding.
    pub fn bind(b: &'b Builder) -> Self {
        Step(b.storage::<u32>("step", Access::Read))
    }

    pub fn word(self, word: StepWord) -> U32<'b> {
        self.0.load(word as u32)
    }

    /// Position in the sequence of a token of the step.
    pub fn position_of(self, token: U32<'b>) -> U32<'b> {
        (self.word(StepWord::Position) + token).named("position")
    }
}
