//! Matrix times vector, the kernel of decoding: every weight is read once, so reading is all that counts.
//!
//! A workgroup computes a few rows. Its threads walk the columns chunk by chunk; a chunk of the input is read once
//! and used for all rows, whose loads do not depend on each other. A norm before the product costs no pass of its
//! own: the weighted input goes into the dot products, its squares are summed on the way, and the scale is applied
//! to the totals.

use kiln_bundle::{Access, StepWord};

use super::builder::{Builder, F32, KernelError, KernelSource, Reduction, U32, Vec4};
use super::epilogue::{self, Operands, Part};
use super::names::lettered;
use super::weight::{Quads, Weight, offset_sum};
use super::{MatvecSpec, Prologue, Variant};

impl MatvecSpec {
    fn name(&self) -> String {
        let MatvecSpec {
            rows,
            cols,
            format,
            workgroup,
            rows_per_workgroup,
            lane_words,
            ..
        } = self;
        let fused = epilogue::suffix(&self.prologue, &self.epilogue);
        let row = if self.row_from_step { "_row" } else { "" };
        let part = if self.out_offset == 0 {
            String::new()
        } else {
            format!("_to{}", self.out_offset)
        };
        format!("matvec_{format}{fused}{row}{part}_{rows}x{cols}_{workgroup}t{rows_per_workgroup}r{lane_words}w")
    }

    fn check(&self, kernel: &str) -> Result<(), KernelError> {
        epilogue::check(&self.epilogue, self.rows, kernel)?;
        let glu = self
            .epilogue
            .iter()
            .any(|entry| matches!(entry, super::Epilogue::Glu(_)));
        let what = if !(self.workgroup.is_power_of_two() && self.workgroup >= 32) {
            format!(
                "a workgroup of {} threads, expected a power of two from 32",
                self.workgroup
            )
        } else if glu && !self.rows_per_workgroup.is_multiple_of(2) {
            format!(
                "{} rows a workgroup with a gated unit, expected an even number",
                self.rows_per_workgroup
            )
        } else if self.rows_per_workgroup == 0 || self.rows_per_workgroup > self.workgroup {
            format!("{} rows for {} threads", self.rows_per_workgroup, self.workgroup)
        } else if ![1, 2, 4].contains(&self.lane_words) {
            format!("{} words a lane, expected 1, 2 or 4", self.lane_words)
        } else {
            return Ok(());
        };
        Err(KernelError::Unsupported {
            kernel: kernel.to_string(),
            what,
        })
    }
}

pub fn build(spec: &MatvecSpec, variant: Variant) -> Result<KernelSource, KernelError> {
    let name = spec.name();
    spec.check(&name)?;
    let b = Builder::new(name, spec.workgroup, variant);
    body(&b, spec);
    b.finish()
}

fn body(b: &Builder, spec: &MatvecSpec) {
    let x = Quads::bind(b, "x", spec.cols, Access::Read);
    let norm_weight = match spec.prologue {
        Prologue::Direct => None,
        Prologue::Norm { .. } => Some(Quads::bind(b, "norm_weight", spec.cols, Access::Read)),
    };
    let weight = Weight::bind(b, spec.format, spec.cols, spec.lane_words);
    let operands = Operands::bind(b, &spec.epilogue, spec.rows);
    let step = spec
        .row_from_step
        .then(|| b.storage::<u32>("step_buffer", Access::Read));
    // One row of output: how many columns the whole has does not matter.
    let tail = operands.output(Part {
        offset: spec.out_offset,
        columns: spec.rows,
    });

    let group = match spec.workgroups() {
        [_, 1] => b.group().x(),
        [width, _] => b.group().y() * width + b.group().x(),
    };
    let first_row = (group * spec.rows_per_workgroup).named("first_row");
    let rows: Vec<U32> = (0..spec.rows_per_workgroup)
        .map(|i| {
            let row = first_row + i;
            // Rows beyond the last are read as the last, and not stored.
            let whole = spec.rows.is_multiple_of(spec.rows_per_workgroup);
            if whole {
                row
            } else {
                row.min(spec.rows - 1).named("row")
            }
        })
        .collect();
    let x_row = match step {
        Some(step) => step.load(StepWord::Row as u32).named("x_row"),
        None => b.literal(0),
    };

    let products: Vec<_> = (0..rows.len()).map(|i| b.variable(&lettered("sum", i), 0.0)).collect();
    let squares = norm_weight.map(|_| b.variable("squares", 0.0));
    let guarded = !spec.cols.is_multiple_of(weight.chunk);
    b.range(
        "chunk",
        b.thread(),
        b.constant("CHUNKS", weight.chunks(spec.cols)),
        spec.workgroup,
        |chunk| {
            let quads = weight.chunk / 4;
            let loaded: Vec<_> = rows
                .iter()
                .enumerate()
                .map(|(i, &row)| weight.load(row, chunk, &lettered("", i)))
                .collect();
            let numbers = (0..quads).map(|i| (chunk * quads + i, i));
            let mut input: Vec<Vec4> = numbers
                .clone()
                .map(|(quad, i)| x.load(x_row, quad, guarded).named(&lettered("x", i as usize)))
                .collect();
            if let (Some(norm_weight), Some(squares)) = (norm_weight, squares) {
                let terms = input.iter().map(|&x| x.dot(x));
                squares.add(terms.reduce(|sum, term| sum + term).expect("a chunk has elements"));
                for (value, (quad, i)) in input.iter_mut().zip(numbers) {
                    *value = (*value * norm_factor(b, &spec.prologue, norm_weight, quad, guarded))
                        .named(&lettered("normed", i as usize));
                }
            }
            let offset_sum = offset_sum(spec.format, &input);
            for (product, chunk) in products.iter().zip(loaded) {
                product.add(chunk.dot(&input, offset_sum));
            }
        },
    );

    let mut partial: Vec<F32> = products.iter().map(|product| product.load()).collect();
    partial.extend(squares.map(|squares| squares.load()));
    let totals = b.reduce("partial", Reduction::Sum, &partial);

    let per_output = tail.rows_per_output();
    let outputs = spec.rows_per_workgroup / per_output;
    let output = first_row / per_output + b.thread();
    let stored = b.thread().lt(outputs) & output.lt(b.constant("OUTPUTS", tail.columns()));
    b.if_(stored, || {
        let scale = match spec.prologue {
            Prologue::Direct => None,
            Prologue::Norm { eps, .. } => {
                let mean = totals.total(spec.rows_per_workgroup) * (1.0 / spec.cols as f32);
                Some((mean + eps).inverse_sqrt().named("norm_scale"))
            }
        };
        let products: Vec<F32> = (0..per_output)
            .map(|i| {
                let total = totals.total(b.thread() * per_output + i);
                scale.map_or(total, |scale| total * scale)
            })
            .collect();
        tail.store(None, output.named("output"), &products);
    });
}

/// What the norm multiplies a quad of the input with, but for the scale of the whole row.
pub(super) fn norm_factor<'b>(
    b: &'b Builder,
    prologue: &Prologue,
    weight: Quads<'b>,
    quad: U32<'b>,
    guarded: bool,
) -> Vec4<'b> {
    let weight = weight.load(0, quad, guarded);
    match prologue {
        Prologue::Norm { unit_offset: true, .. } => weight + b.splat(1.0),
        _ => weight,
    }
}
