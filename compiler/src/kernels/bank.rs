//! The matrices of a mixture's experts in storage: see [`BankSpec`].

use kiln_bundle::Access;

use super::BankSpec;
use super::builder::{Array, Bool, Builder, F32, KernelError, U32};
use super::weight::Weight;

impl BankSpec {
    /// The part of a kernel's name that tells banks apart.
    pub(super) fn name(&self) -> String {
        let BankSpec {
            first,
            experts,
            per_binding,
            rows,
            cols,
            format,
            ..
        } = self;
        let from = match first {
            0 => String::new(),
            first => format!("_from{first}"),
        };
        let parts = match self.bindings() {
            1 => String::new(),
            _ => format!("_by{per_binding}"),
        };
        format!("{format}_{experts}x{rows}x{cols}{from}{parts}")
    }

    /// Bindings of elements.
    pub fn bindings(&self) -> u32 {
        self.experts.div_ceil(self.per_binding.max(1))
    }

    /// Refuses banks that hold nothing.
    pub(super) fn check(&self, kernel: &str) -> Result<(), KernelError> {
        let sizes = [self.experts, self.per_binding, self.rows, self.cols];
        match sizes.contains(&0) {
            true => Err(KernelError::Unsupported {
                kernel: kernel.to_string(),
                what: "a bank without experts, rows or columns".to_string(),
            }),
            false => Ok(()),
        }
    }
}

/// A bound bank.
pub struct Bank<'b> {
    b: &'b Builder,
    parts: Vec<Weight<'b>>,
    first: u32,
    experts: U32<'b>,
    per_binding: u32,
    rows: U32<'b>,
}

impl<'b> Bank<'b> {
    /// Binds the elements and the scales.
    pub fn bind(b: &'b Builder, spec: &BankSpec, lane_words: u32) -> Self {
        let first_rows: Vec<u32> = (0..spec.bindings())
            .map(|part| part * spec.per_binding * spec.rows)
            .collect();
        Bank {
            b,
            parts: Weight::bind_parts(b, spec.format, spec.cols, lane_words, &first_rows),
            first: spec.first,
            experts: b.constant("EXPERTS", spec.experts),
            per_binding: spec.per_binding,
            rows: b.constant("ROWS", spec.rows),
        }
    }

    /// The number in this bank of an expert of the mixture; it may not have it, see [`Bank::lacks`].
    pub fn number(&self, expert: U32<'b>) -> U32<'b> {
        // An expert before the first wraps to a large number.
        (expert - self.first).named("expert")
    }

    /// Whether there is no expert of that number in this bank.
    pub fn lacks(&self, expert: U32<'b>) -> Bool<'b> {
        expert.ge(self.experts)
    }

    /// Whether there is an expert of that number in this bank.
    pub fn has(&self, expert: U32<'b>) -> Bool<'b> {
        expert.lt(self.experts)
    }

    /// Runs `body`, written once for each binding, for the one that has `expert`: it gets the weight and the number
    /// in it of the expert's first row.
    pub fn with(&self, expert: U32<'b>, body: impl Fn(&Weight<'b>, U32<'b>)) {
        self.with_from(0, expert, &body);
    }

    fn with_from(&self, part: u32, expert: U32<'b>, body: &dyn Fn(&Weight<'b>, U32<'b>)) {
        let run = || {
            let first_row = (expert - part * self.per_binding) * self.rows;
            body(&self.parts[part as usize], first_row.named("expert_row"));
        };
        match part as usize + 1 < self.parts.len() {
            false => run(),
            true => {
                let end = (part + 1) * self.per_binding;
                self.b
                    .if_else(expert.lt(end), run, || self.with_from(part + 1, expert, body));
            }
        }
    }
}

/// Routing as kernels read it: the expert and its weight of each assignment.
#[derive(Clone, Copy)]
pub struct Routing<'b>(Array<'b, [u32; 2]>);

impl<'b> Routing<'b> {
    /// Makes it the next binding. What is read from it at a uniform place is uniform.
    pub fn bind(b: &'b Builder) -> Self {
        Routing(b.storage("routing", Access::Read))
    }

    /// The expert of `assignment`, by its number in the mixture.
    pub fn expert(self, assignment: U32<'b>) -> U32<'b> {
        self.0.load(assignment).x()
    }

    /// The expert of `assignment`, and its weight.
    pub fn load(self, assignment: U32<'b>) -> (U32<'b>, F32<'b>) {
        let route = self.0.load(assignment).named("route");
        (route.x(), route.y().bitcast::<f32>().named("route_weight"))
    }
}
