//! The first half of a mixture of experts, token by token: gate and up of the experts that a token goes to, joined.
//! A matrix-vector product (see [`super::dots`]) whose weight is looked up in the routing.

use kiln_bundle::Access;

use super::activation::{gate_name, gated};
use super::bank::{BankWeight, RoutingBuffer};
use super::builder::{Builder, KernelError, KernelSource, U32};
use super::dots::{Division, Dots, Input, Walk, rows_from};
use super::names::flag;
use super::{Capability, ExpertUpSpec, epilogue};

impl ExpertUpSpec {
    fn name(&self) -> String {
        format!(
            "expert_up_{}{}{}_{}_top{}_{}",
            self.bank.name(),
            epilogue::suffix(&self.prologue, &[]),
            flag(self.bias, "_bias"),
            gate_name(self.gate),
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

    fn check(&self, kernel: &str) -> Result<(), KernelError> {
        self.bank.check(kernel)?;
        if !self.bank.rows.is_multiple_of(2) {
            return Err(KernelError::Unsupported {
                kernel: kernel.to_string(),
                what: format!("{} rows, expected pairs of gate and up", self.bank.rows),
            });
        }
        self.division().check(kernel, true)
    }
}

pub fn build(spec: &ExpertUpSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    let name = spec.name();
    spec.check(&name)?;
    let b = Builder::new(name, spec.workgroup, capability);
    body(&b, spec);
    b.finish()
}

fn body(b: &Builder, spec: &ExpertUpSpec) {
    let input = Input::bind(b, "x", spec.bank.cols, &spec.prologue);
    let routing = RoutingBuffer::bind(b);
    let bank = BankWeight::bind(b, &spec.bank, spec.lane_words);
    let bias = spec.bias.then(|| b.storage::<f32>("bias", Access::Read));
    let out = b.storage::<f32>("out", Access::ReadWrite);

    let (token, slot) = (b.group().y(), b.group().z());
    let assignment = (token * spec.k + slot).named("assignment");
    let expert = routing.expert(assignment);
    let place = bank.place(expert);
    // Another dispatch has it. The same for the whole workgroup.
    b.if_(bank.lacks(place), || b.return_());

    let first_row = (b.group().x() * spec.rows_per_workgroup).named("first_row");
    let rows = rows_from(first_row, spec.rows_per_workgroup, spec.bank.rows);
    let dots = Dots::new(&input, spec.rows_per_workgroup);
    let walk = Walk {
        first: b.thread(),
        step: spec.workgroup,
        words_in_flight: 0,
    };
    bank.with(place, |weight, expert_row| {
        let rows: Vec<U32> = rows.iter().map(|&row| (expert_row + row).named("bank_row")).collect();
        dots.add(weight, &rows, token, walk);
    });
    let products = dots.reduce();

    let outputs = b.constant("OUTPUTS", spec.bank.rows / 2);
    let output = (first_row / 2 + b.thread()).named("output");
    b.if_(b.thread().lt(spec.rows_per_workgroup / 2) & output.lt(outputs), || {
        let products = products.finished((b.thread() * 2).named("first_of_output"), 2);
        let first_bias = (expert * outputs + output) * 2;
        let with_bias = |row: u32| match bias {
            Some(bias) => products[row as usize] + bias.load(first_bias + row),
            None => products[row as usize],
        };
        let (gate, up) = (with_bias(0).named("gate"), with_bias(1).named("up"));
        out.store(assignment * outputs + output, gated(spec.gate, gate, up));
    });
}
