//! Matrix times vector, the kernel of decoding: every weight is read once, so reading is all that counts.
//! A workgroup computes a few rows, see [`super::dots`].

use kiln_bundle::{Access, StepWord};

use super::builder::{Builder, KernelError, KernelSource};
use super::dots::{Division, Dots, Input, Walk, rows_from};
use super::epilogue::{self, EpilogueOperands, OutputPart};
use super::weight::Weight;
use super::{Capability, Epilogue, MatvecSpec};

impl MatvecSpec {
    fn name(&self) -> String {
        let MatvecSpec { rows, cols, format, .. } = self;
        let fused = epilogue::suffix(&self.prologue, &self.epilogue);
        let row = if self.row_from_step { "_row" } else { "" };
        let part = if self.out_offset == 0 {
            String::new()
        } else {
            format!("_to{}", self.out_offset)
        };
        format!(
            "matvec_{format}{fused}{row}{part}_{rows}x{cols}_{}",
            self.division().name()
        )
    }

    fn division(&self) -> Division {
        Division {
            workgroup: self.workgroup,
            rows_per_workgroup: self.rows_per_workgroup,
            lane_words: self.lane_words,
        }
    }
}

pub fn build(spec: &MatvecSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    let name = spec.name();
    epilogue::check(&spec.epilogue, spec.rows, &name)?;
    let gated = spec.epilogue.iter().any(|entry| matches!(entry, Epilogue::Glu(_)));
    spec.division().check(&name, gated)?;
    let b = Builder::new(name, spec.workgroup, capability);
    body(&b, spec);
    b.finish()
}

fn body(b: &Builder, spec: &MatvecSpec) {
    let input = Input::bind(b, "x", spec.cols, &spec.prologue);
    let weight = Weight::bind(b, spec.format, spec.cols, spec.lane_words);
    let operands = EpilogueOperands::bind(b, &spec.epilogue, spec.rows);
    let step = spec
        .row_from_step
        .then(|| b.storage::<u32>("step_buffer", Access::Read));
    // One row of output: how many columns the whole has does not matter.
    let tail = operands.output(OutputPart {
        offset: spec.out_offset,
        columns: spec.rows,
    });

    let group = match spec.workgroups() {
        [_, 1] => b.group().x(),
        [width, _] => b.group().y() * width + b.group().x(),
    };
    let first_row = (group * spec.rows_per_workgroup).named("first_row");
    let [x, y] = spec.workgroups();
    if x * y > spec.rows.div_ceil(spec.rows_per_workgroup) {
        // Folding left workgroups over. All threads of one return, so barriers below stay uniform.
        b.if_(first_row.ge(spec.rows), || b.return_());
    }
    let rows = rows_from(first_row, spec.rows_per_workgroup, spec.rows);
    let x_row = match step {
        Some(step) => step.load(StepWord::Row as u32).named("x_row"),
        None => b.literal(0),
    };

    let dots = Dots::new(&input, spec.rows_per_workgroup);
    let walk = Walk {
        first: b.thread(),
        step: spec.workgroup,
        words_in_flight: 0,
    };
    dots.add(&weight, &rows, x_row, walk);
    let products = dots.reduce();

    let per_output = tail.rows_per_output();
    let outputs = spec.rows_per_workgroup / per_output;
    let output = first_row / per_output + b.thread();
    let mut stored = b.thread().lt(outputs);
    if !spec.rows.is_multiple_of(spec.rows_per_workgroup) {
        stored = stored & output.lt(b.constant("OUTPUTS", tail.columns()));
    }
    b.if_(stored, || {
        let first = (b.thread() * per_output).named("first_of_output");
        let products = products.finished(first, per_output);
        tail.store(None, output.named("output"), &products);
    });
}
