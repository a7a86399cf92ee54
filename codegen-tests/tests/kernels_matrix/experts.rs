//! The experts of a mixture, token by token, and their sum, against plain loops in f64.

use kiln_codegen_tests::{Data, whole_bank};
use kiln_compiler::graph::{Gate, Unary};
use kiln_compiler::kernels::{
    BankSpec, CombineSpec, ExpertDownSpec, ExpertUpSpec, KernelSpec, Prologue, Residual, Slots,
};
use kiln_compiler::weights::WeightFormat;

use crate::matrix::{FORMATS, Matrix};
use crate::product::normalize;
use crate::scalar::gated;
use crate::support::{Random, check};

/// As for matrix-vector products; a sum over several experts.
const TOLERANCE: f64 = 4e-6;

const NORM: Prologue = Prologue::Norm {
    eps: 1e-5,
    unit_offset: false,
};
const Q4: WeightFormat = WeightFormat::Q4 { min: false };
const SILU: Gate = Gate::Activated(Unary::Silu);
const CLAMPED: Gate = Gate::Clamped {
    alpha: 1.702,
    limit: 7.0,
};

/// Each token's experts and weights.
#[derive(Clone)]
struct Routing {
    k: usize,
    assignments: Vec<(u32, f32)>,
}

impl Routing {
    /// `k` different ones of `experts` for each token.
    fn random(tokens: usize, experts: u32, k: u32, random: &mut Random) -> Self {
        let mut assignments = Vec::new();
        for _ in 0..tokens {
            let mut left: Vec<u32> = (0..experts).collect();
            for _ in 0..k {
                let expert = left.swap_remove(random.below(left.len()));
                assignments.push((expert, random.number()));
            }
        }
        Routing {
            k: k as usize,
            assignments,
        }
    }

    fn tokens(&self) -> usize {
        self.assignments.len() / self.k
    }

    fn data(&self) -> Data {
        let words: Vec<u32> = self
            .assignments
            .iter()
            .flat_map(|&(expert, weight)| [expert, weight.to_bits()])
            .collect();
        (&words).into()
    }
}

/// Weights and biases of a bank.
struct Weights {
    spec: BankSpec,
    bindings: Vec<Data>,
    values: Vec<f64>,
    bias: Option<Vec<f32>>,
}

impl Weights {
    fn random(spec: &BankSpec, bias: bool, random: &mut Random) -> Self {
        let BankSpec { of, rows, cols, .. } = *spec;
        let matrix = Matrix::random(spec.format, (of * rows) as usize, cols as usize, random);
        let expert_bytes = spec.format.data_bytes(rows.into(), cols.into()) as usize;
        let [before, here] = [spec.first, spec.experts].map(|experts| experts as usize * expert_bytes);
        let elements = matrix.bindings[0].from_byte(before).pieces(here).swap_remove(0);
        let mut bindings = elements.pieces(expert_bytes * spec.per_binding as usize);
        bindings.extend_from_slice(&matrix.bindings[1..]);
        Weights {
            spec: spec.clone(),
            bindings,
            values: matrix.values,
            bias: bias.then(|| random.numbers((of * rows) as usize)),
        }
    }

    fn has(&self, expert: u32) -> bool {
        (self.spec.first..self.spec.first + self.spec.experts).contains(&expert)
    }

    /// Row `row` of an expert times `x`, plus the bias.
    fn product(&self, expert: u32, row: usize, x: &[f64]) -> f64 {
        let row = expert as usize * self.spec.rows as usize + row;
        let weights = &self.values[row * x.len()..][..x.len()];
        let product: f64 = weights.iter().zip(x).map(|(w, x)| w * x).sum();
        product + self.bias.as_ref().map_or(0.0, |bias| bias[row].into())
    }

    fn bind(&self, buffers: &mut Vec<Data>) {
        buffers.extend_from_slice(&self.bindings);
        buffers.extend(self.bias.as_ref().map(Data::from));
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| value.into()).collect()
}

fn up(bank: BankSpec, k: u32) -> ExpertUpSpec {
    ExpertUpSpec {
        bank,
        k,
        prologue: Prologue::Direct,
        gate: SILU,
        bias: false,
        workgroup: 64,
        rows_per_workgroup: 4,
        lane_words: 2,
    }
}

fn up_case(spec: ExpertUpSpec, routing: &Routing, random: &mut Random) {
    let (cols, width) = (spec.bank.cols as usize, spec.bank.rows as usize / 2);
    let x = random.numbers(routing.tokens() * cols);
    let weights = Weights::random(&spec.bank, spec.bias, random);
    // What other dispatches have written stays.
    let out = random.numbers(routing.assignments.len() * width);

    let mut buffers: Vec<Data> = vec![(&x).into()];
    let mut input = wide(&x);
    if let Prologue::Norm { eps, unit_offset } = spec.prologue {
        let norm_weight = random.numbers(cols);
        normalize(&mut input, &norm_weight, eps, unit_offset);
        buffers.push((&norm_weight).into());
    }
    buffers.push(routing.data());
    weights.bind(&mut buffers);
    buffers.push((&out).into());

    let mut expected = wide(&out);
    let assignments = routing.assignments.iter().enumerate();
    for (assignment, &(expert, _)) in assignments.filter(|(_, (expert, _))| weights.has(*expert)) {
        let x = &input[assignment / routing.k * cols..][..cols];
        for i in 0..width {
            let [gate, up] = [2 * i, 2 * i + 1].map(|row| weights.product(expert, row, x));
            expected[assignment * width + i] = gated(spec.gate, gate, up);
        }
    }
    let tokens = routing.tokens() as u32;
    check(&KernelSpec::ExpertUp(spec), &buffers, tokens, &expected, TOLERANCE);
}

fn down(bank: BankSpec, k: u32) -> ExpertDownSpec {
    ExpertDownSpec {
        bank,
        k,
        slots: Slots::Routed,
        bias: false,
        residual: Residual::None,
        workgroup: 64,
        rows_per_workgroup: 4,
        lane_words: 2,
    }
}

fn down_case(spec: ExpertDownSpec, routing: &Routing, random: &mut Random) {
    let (cols, rows) = (spec.bank.cols as usize, spec.bank.rows as usize);
    let slots = match spec.slots {
        Slots::Routed => routing.k,
        Slots::All => spec.bank.of as usize,
    };
    let a = random.numbers(routing.tokens() * slots * cols);
    let weights = Weights::random(&spec.bank, spec.bias, random);
    let addend = random.numbers(routing.tokens() * rows);
    let out = random.numbers(routing.tokens() * rows);

    let mut buffers: Vec<Data> = vec![(&a).into(), routing.data()];
    weights.bind(&mut buffers);
    if spec.residual == Residual::Add {
        buffers.push((&addend).into());
    }
    buffers.push((&out).into());

    let mut expected = match spec.residual {
        Residual::None => vec![0.0; out.len()],
        Residual::Add => wide(&addend),
        Residual::InPlace => wide(&out),
    };
    let a = wide(&a);
    let assignments = routing.assignments.iter().enumerate();
    for (assignment, &(expert, weight)) in assignments.filter(|(_, (expert, _))| weights.has(*expert)) {
        let token = assignment / routing.k;
        let a_row = match spec.slots {
            Slots::Routed => assignment,
            Slots::All => token * slots + expert as usize,
        };
        for row in 0..rows {
            let product = weights.product(expert, row, &a[a_row * cols..][..cols]);
            expected[token * rows + row] += f64::from(weight) * product;
        }
    }
    let tokens = routing.tokens() as u32;
    check(&KernelSpec::ExpertDown(spec), &buffers, tokens, &expected, TOLERANCE);
}

#[test]
fn experts_in_every_format_and_lane_width() {
    let random = &mut Random(1);
    for format in FORMATS {
        for (lane_words, rows, cols) in [(1, 34, 200), (2, 8, 37), (4, 10, 24), (4, 16, 576)] {
            let routing = Routing::random(2, 5, 3, random);
            let bank = whole_bank(5, rows, cols, format);
            let wanted = ExpertUpSpec {
                lane_words,
                prologue: if rows == 34 { NORM } else { Prologue::Direct },
                ..up(bank.clone(), 3)
            };
            up_case(wanted, &routing, random);
            let wanted = ExpertDownSpec {
                lane_words,
                bias: rows == 34,
                ..down(bank, 3)
            };
            down_case(wanted, &routing, random);
        }
    }
}

#[test]
fn experts_for_any_number_of_slots() {
    let random = &mut Random(2);
    for (experts, k) in [(1, 1), (4, 1), (4, 4), (8, 6), (10, 8), (40, 32)] {
        for (workgroup, rows_per_workgroup) in [(32, 2), (256, 6)] {
            let routing = Routing::random(2, experts, k, random);
            let bank = whole_bank(experts, 14, 96, Q4);
            let wanted = ExpertUpSpec {
                workgroup,
                rows_per_workgroup,
                gate: CLAMPED,
                bias: true,
                prologue: NORM,
                ..up(bank.clone(), k)
            };
            up_case(wanted, &routing, random);
            for slots in [Slots::Routed, Slots::All] {
                let wanted = ExpertDownSpec {
                    workgroup,
                    rows_per_workgroup,
                    slots,
                    bias: true,
                    residual: Residual::InPlace,
                    ..down(bank.clone(), k)
                };
                down_case(wanted, &routing, random);
            }
        }
    }
}

#[test]
fn expert_down_with_every_residual_and_odd_rows() {
    let random = &mut Random(3);
    for residual in [Residual::None, Residual::Add, Residual::InPlace] {
        for (bias, rows) in [(false, 7), (true, 1), (true, 33)] {
            for slots in [Slots::Routed, Slots::All] {
                let routing = Routing::random(3, 6, 4, random);
                let wanted = ExpertDownSpec {
                    slots,
                    bias,
                    residual,
                    rows_per_workgroup: if rows == 1 { 1 } else { 4 },
                    ..down(whole_bank(6, rows, 61, WeightFormat::Bf16), 4)
                };
                down_case(wanted, &routing, random);
            }
        }
    }
}

#[test]
fn experts_whose_bank_is_split() {
    let random = &mut Random(4);
    for (format, per_binding) in FORMATS.into_iter().zip([4, 3].into_iter().cycle()) {
        // Experts 3 .. 10 of 12, in two and three bindings, the last of which holds fewer.
        let routing = Routing::random(4, 12, 4, random);
        let bank = BankSpec {
            of: 12,
            first: 3,
            experts: 7,
            per_binding,
            ..whole_bank(7, 18, 72, format)
        };
        let biased = ExpertUpSpec {
            bias: true,
            ..up(bank.clone(), 4)
        };
        up_case(biased, &routing, random);
        for (slots, residual) in [(Slots::Routed, Residual::InPlace), (Slots::All, Residual::None)] {
            let biased = ExpertDownSpec {
                bias: true,
                slots,
                residual,
                ..down(bank.clone(), 4)
            };
            down_case(biased, &routing, random);
        }
    }
}

#[test]
fn experts_that_all_tokens_go_to() {
    let random = &mut Random(5);
    let mut routing = Routing::random(5, 4, 2, random);
    for (at, assignment) in routing.assignments.iter_mut().enumerate() {
        assignment.0 = if at % 2 == 0 { 3 } else { 1 };
    }
    up_case(up(whole_bank(4, 12, 40, Q4), 2), &routing, random);
    down_case(down(whole_bank(4, 12, 40, Q4), 2), &routing, random);
    // A dispatch that has none of them leaves or copies what is there.
    let none = BankSpec {
        of: 4,
        first: 2,
        experts: 1,
        per_binding: 1,
        ..whole_bank(1, 12, 40, Q4)
    };
    up_case(up(none.clone(), 2), &routing, random);
    for residual in [Residual::None, Residual::Add, Residual::InPlace] {
        let wanted = ExpertDownSpec {
            residual,
            bias: true,
            ..down(none.clone(), 2)
        };
        down_case(wanted, &routing, random);
    }
}

#[test]
fn experts_of_gpt_oss_proportions() {
    let random = &mut Random(6);
    let routing = Routing::random(1, 8, 4, random);
    let halves = |rows, cols| BankSpec {
        per_binding: 4,
        ..whole_bank(8, rows, cols, Q4)
    };
    let wanted = ExpertUpSpec {
        prologue: NORM,
        gate: CLAMPED,
        bias: true,
        workgroup: 128,
        ..up(halves(240, 720), 4)
    };
    up_case(wanted, &routing, random);
    let wanted = ExpertDownSpec {
        residual: Residual::InPlace,
        bias: true,
        workgroup: 128,
        ..down(halves(250, 720), 4)
    };
    down_case(wanted, &routing, random);
}

#[test]
fn combining_is_a_weighted_sum() {
    let random = &mut Random(7);
    for (width, k, tokens) in [(64, 4, 3), (1, 1, 1), (333, 8, 2), (2880, 4, 1), (260, 32, 2)] {
        for residual in [Residual::None, Residual::Add, Residual::InPlace] {
            let routing = Routing::random(tokens, 40, k, random);
            let columns = width as usize;
            let y = random.numbers(routing.assignments.len() * columns);
            let addend = random.numbers(tokens * columns);
            let out = random.numbers(tokens * columns);
            let mut expected = match residual {
                Residual::None => vec![0.0; out.len()],
                Residual::Add => wide(&addend),
                Residual::InPlace => wide(&out),
            };
            for (assignment, (_, weight)) in routing.assignments.iter().enumerate() {
                for column in 0..columns {
                    let token = assignment / k as usize;
                    let y = f64::from(y[assignment * columns + column]);
                    expected[token * columns + column] += f64::from(*weight) * y;
                }
            }
            let mut buffers: Vec<Data> = vec![(&y).into(), routing.data()];
            if residual == Residual::Add {
                buffers.push((&addend).into());
            }
            buffers.push((&out).into());
            let spec = KernelSpec::Combine(CombineSpec { width, k, residual });
            check(&spec, &buffers, tokens as u32, &expected, TOLERANCE);
        }
    }
}
