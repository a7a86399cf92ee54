//! Kernel calls and the values they read and write.

use std::ops::Range;

use crate::graph::{RopeId, StateId, WeightId};
use crate::kernels::KernelSpec;
use crate::term::{Arrangement, MatrixLeaf};

/// A kernel call; one operand for each binding of the kernel (a matrix may take two).
#[derive(Clone, Debug)]
pub struct Call {
    pub spec: KernelSpec,
    pub operands: Vec<Operand>,
    pub label: String,
    /// Runs for one row whatever the tokens of the step.
    pub single_row: bool,
    /// The output may be added to this value where it lies; `None` once [`super::in_place`] has decided.
    pub residual: Option<ValueId>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    Read(ValueId),
    Write(ValueId),
    /// Elements and, if the format has them, scales of these rows.
    Matrix(MatrixLeaf, Range<u32>),
    /// The elements of these rows alone; the scales alone.
    Elements(MatrixLeaf, Range<u32>),
    Scales(MatrixLeaf, Range<u32>),
    Vector(Vec<WeightId>, Arrangement),
    Rope(RopeId),
    ReadState(StateId),
    WriteState(StateId),
    /// The step buffer, read or advanced.
    Step,
    AdvanceStep,
    /// Token ids of the step, read; or the first of them, written by the sampler.
    Tokens,
    NextToken,
    /// The ring of sampled ids.
    Output,
    /// The tokens so far, read or continued.
    History,
    AppendHistory,
    /// What a generation asks of the logits.
    Rules,
}

/// A value of a section: an activation, or intermediate results of a fixed size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub usize);

/// f32 elements of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// So many for each token of the step.
    PerToken(u32),
    /// So many in all.
    Fixed(u32),
}

/// The calls of a section.
#[derive(Clone, Debug, Default)]
pub struct SectionPlan {
    pub values: Vec<Extent>,
    pub calls: Vec<Call>,
    /// What enters it (layers and head).
    pub input: Option<ValueId>,
    pub output: Option<ValueId>,
}

impl SectionPlan {
    pub fn value(&mut self, extent: Extent) -> ValueId {
        self.values.push(extent);
        ValueId(self.values.len() - 1)
    }
}

impl Call {
    pub fn reads(&self, value: ValueId) -> bool {
        self.operands.contains(&Operand::Read(value))
    }

    pub fn writes(&self, value: ValueId) -> bool {
        self.operands.contains(&Operand::Write(value))
    }

    /// The same call with one value in another's place.
    pub fn rename(&mut self, from: ValueId, to: ValueId) {
        for operand in &mut self.operands {
            match operand {
                Operand::Read(value) | Operand::Write(value) if *value == from => *value = to,
                _ => {}
            }
        }
        if self.residual == Some(from) {
            self.residual = Some(to);
        }
    }
}
