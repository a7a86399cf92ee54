//! The matrices of a mixture's experts in storage: see [`BankSpec`].

use kiln_bundle::Access;

use super::BankSpec;
use super::builder::{Array, Bool, Builder, F32, KernelError, U32};
use super::weight::Weight;

impl BankSpec {
    /// The part of a kernel's name that tells banks apart.
    pub(super) fn name(&self) -> String {
        let BankSpec {
            of,
            first,
            experts,
            per_binding,
            rows,
            cols,
            format,
        } = self;
        let from = match of == experts {
            true => String::new(),
            false => format!("_from{first}of{of}"),
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

    /// Refuses banks that hold nothing, or more than there is.
    pub(super) fn check(&self, kernel: &str) -> Result<(), KernelError> {
        let sizes = [self.experts, self.per_binding, self.rows, self.cols];
        let what = if sizes.contains(&0) {
            "a bank without experts, rows or columns".to_string()
        } else if self.first + self.experts > self.of {
            format!(
                "experts {} and {} after it of {}",
                self.first,
                self.experts - 1,
                self.of
            )
        } else {
            return Ok(());
        };
        Err(KernelError::Unsupported {
            kernel: kernel.to_string(),
            what,
        })
    }
}

/// A bound bank.
pub struct BankWeight<'b> {
    b: &'b Builder,
    parts: Vec<Weight<'b>>,
    first: u32,
    experts: U32<'b>,
    per_binding: u32,
    rows: U32<'b>,
}

impl<'b> BankWeight<'b> {
    /// Binds the elements and the scales.
    pub fn bind(b: &'b Builder, spec: &BankSpec, lane_words: u32) -> Self {
        let first_rows: Vec<u32> = (0..spec.bindings())
            .map(|part| (spec.first + part * spec.per_binding) * spec.rows)
            .collect();
        BankWeight {
            b,
            parts: Weight::bind_parts(b, spec.format, spec.cols, lane_words, &first_rows),
            first: spec.first,
            experts: b.constant("EXPERTS", spec.experts),
            per_binding: spec.per_binding,
            rows: b.constant("ROWS", spec.rows),
        }
    }

    /// The place of an expert among those of this dispatch, which may not have it: see [`BankWeight::has`].
    pub fn place(&self, expert: U32<'b>) -> U32<'b> {
        // An expert before the first wraps to a large number.
        (expert - self.first).named("place_of_expert")
    }

    /// Whether there is an expert at this place.
    pub fn has(&self, place: U32<'b>) -> Bool<'b> {
        place.lt(self.experts)
    }

    /// Whether there is no expert at this place.
    pub fn lacks(&self, place: U32<'b>) -> Bool<'b> {
        place.ge(self.experts)
    }

    /// Runs `body`, written once for each binding, for the one that has the expert at `place`: it gets the weight and
    /// the number in it of the expert's first row.
    pub fn with(&self, place: U32<'b>, body: impl Fn(&Weight<'b>, U32<'b>)) {
        self.with_from(0, place, &body);
    }

    fn with_from(&self, part: u32, place: U32<'b>, body: &dyn Fn(&Weight<'b>, U32<'b>)) {
        let run = || {
            let first_row = (place - part * self.per_binding) * self.rows;
            body(&self.parts[part as usize], first_row.named("expert_row"));
        };
        match part as usize + 1 < self.parts.len() {
            false => run(),
            true => {
                let end = (part + 1) * self.per_binding;
                self.b
                    .if_else(place.lt(end), run, || self.with_from(part + 1, place, body));
            }
        }
    }
}

/// Routing as kernels read it: the expert and its weight of each assignment.
#[derive(Clone, Copy)]
pub struct RoutingBuffer<'b>(Array<'b, [u32; 2]>);

impl<'b> RoutingBuffer<'b> {
    /// Makes it the next binding. What is read from it at a uniform place is uniform.
    pub fn bind(b: &'b Builder) -> Self {
        RoutingBuffer(b.storage("routing", Access::Read))
    }

    /// The expert of `assignment`.
    pub fn expert(self, assignment: U32<'b>) -> U32<'b> {
        self.0.load(assignment).x().named("expert")
    }

    /// The expert of `assignment`, and its weight.
    pub fn load(self, assignment: U32<'b>) -> (U32<'b>, F32<'b>) {
        let route = self.0.load(assignment).named("route");
        let expert = route.x().named("expert");
        (expert, route.y().bitcast::<f32>().named("route_weight"))
    }
}
