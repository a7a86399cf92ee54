//! The second half of a mixture of experts, token by token: each workgroup computes a few outputs, over all experts
//! that the token goes to, and joins its threads' sums once.

use kiln_bundle::Access;

use super::bank::{BankWeight, RoutingBuffer};
use super::builder::{Builder, F32, KernelError, KernelSource, Reduction, U32};
use super::dots::{Division, Dots, Input, Walk, rows_from};
use super::names::{flag, lettered};
use super::{Capability, ExpertDownSpec, Prologue, Residual, Slots};

/// Fewest threads that share a row.
const FEWEST_THREADS: u32 = 32;
/// There are about as many workgroups as a large device runs at a time, so each thread must wait for more at once.
const WORDS_IN_FLIGHT: u32 = 16;

impl Residual {
    /// The part of a kernel's name that tells residuals apart.
    pub(super) fn name(self) -> &'static str {
        match self {
            Residual::None => "",
            Residual::Add => "_add",
            Residual::InPlace => "_accumulate",
        }
    }
}

impl ExpertDownSpec {
    fn name(&self) -> String {
        format!(
            "expert_down_{}{}{}{}_top{}_{}",
            self.bank.name(),
            flag(self.bias, "_bias"),
            self.residual.name(),
            flag(self.slots == Slots::All, "_all"),
            self.k,
            self.division().name(),
        )
    }

    fn division(&self) -> Division {
        Division {
            workgroup: self.workgroup,
            rows_per_workgroup: self.rows_per_workgroup,
            lane_words: self.lane_words,
        }
    }

    /// Slots that a workgroup works on at a time, each with its share of the threads: as many as leave no thread idle.
    fn slots_together(&self) -> u32 {
        let most = (self.workgroup / FEWEST_THREADS).max(1);
        // The largest power of two that divides k.
        let dividing = 1 << self.k.trailing_zeros();
        dividing.min(most)
    }
}

pub fn build(spec: &ExpertDownSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    let name = spec.name();
    spec.bank.check(&name)?;
    spec.division().check(&name, false)?;
    if spec.k == 0 {
        return Err(KernelError::Unsupported {
            kernel: name,
            what: "no expert for a token".to_string(),
        });
    }
    let b = Builder::new(name, spec.workgroup, capability);
    body(&b, spec);
    b.finish()
}

fn body(b: &Builder, spec: &ExpertDownSpec) {
    let row_count = b.constant("ROWS", spec.bank.rows);
    let input = Input::bind(b, "a", spec.bank.cols, &Prologue::Direct);
    let routing = RoutingBuffer::bind(b);
    let bank = BankWeight::bind(b, &spec.bank, spec.lane_words);
    let bias = spec.bias.then(|| b.storage::<f32>("bias", Access::Read));
    let addend = (spec.residual == Residual::Add).then(|| b.storage::<f32>("residual", Access::Read));
    let out = b.storage::<f32>("out", Access::ReadWrite);
    let residual = match spec.residual {
        Residual::None => None,
        Residual::Add => addend,
        Residual::InPlace => Some(out),
    };

    let token = b.group().y();
    let first_row = (b.group().x() * spec.rows_per_workgroup).named("first_row");
    let rows = rows_from(first_row, spec.rows_per_workgroup, spec.bank.rows);
    let together = spec.slots_together();
    let threads = spec.workgroup / together;
    let (first_slot, member) = match together {
        1 => (b.literal(0), b.thread()),
        _ => (
            (b.thread() / threads).named("first_slot"),
            (b.thread() % threads).named("member"),
        ),
    };
    let totals: Vec<_> = (0..rows.len())
        .map(|i| b.variable(&lettered("total", i), 0.0))
        .collect();

    let add_slot = |slot: U32| {
        let assignment = (token * spec.k + slot).named("assignment");
        let (expert, route_weight) = routing.load(assignment);
        let place = bank.place(expert);
        // Others are left to another dispatch.
        b.if_(bank.has(place), || {
            let a_row = match spec.slots {
                Slots::Routed => assignment,
                Slots::All => (token * spec.bank.of + expert).named("a_row"),
            };
            // Loaded first and used last, so that nothing waits for it.
            let biases: Option<Vec<F32>> = bias.map(|bias| {
                let row_biases = rows.iter().map(|&row| bias.load(expert * row_count + row));
                (0..)
                    .zip(row_biases)
                    .map(|(i, bias)| bias.named(&lettered("bias", i)))
                    .collect()
            });
            let dots = Dots::new(&input, spec.rows_per_workgroup);
            let walk = Walk {
                first: member,
                step: threads,
                words_in_flight: WORDS_IN_FLIGHT,
            };
            bank.with(place, |weight, expert_row| {
                let rows: Vec<U32> = rows.iter().map(|&row| (expert_row + row).named("bank_row")).collect();
                dots.add(weight, &rows, a_row, walk);
            });
            let first = biases.as_ref().map(|_| member.eq(0).named("has_bias"));
            for (i, (total, sum)) in totals.iter().zip(&dots.sums).enumerate() {
                let product = match (&biases, first) {
                    (Some(biases), Some(first)) => sum.load() + first.select(biases[i], 0.0),
                    _ => sum.load(),
                };
                total.add(route_weight * product);
            }
        });
    };
    if together == spec.k {
        add_slot(first_slot);
    } else {
        b.range("slot", first_slot, spec.k, together, add_slot);
    }

    let partial: Vec<F32> = totals.iter().map(|total| total.load()).collect();
    let sums = b.reduce("partial", Reduction::Sum, &partial);
    let output = (first_row + b.thread()).named("output");
    b.if_(b.thread().lt(spec.rows_per_workgroup) & output.lt(row_count), || {
        let sum = sums.total(b.thread());
        let place = (token * row_count + output).named("place");
        out.store(
            place,
            match residual {
                Some(residual) => residual.load(place) + sum,
                None => sum,
            },
        );
    });
}
