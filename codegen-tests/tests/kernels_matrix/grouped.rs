//! The two products of a mixture for tokens sorted by expert, and the second one over all experts, against plain loops
//! in f64.

use kiln_codegen_tests::{Data, whole_bank};
use kiln_compiler::graph::{Gate, Unary};
use kiln_compiler::kernels::{
    BankSpec, DenseDownSpec, GroupSpec, GroupedDownSpec, GroupedUpSpec, KernelSpec, Residual,
};
use kiln_compiler::weights::WeightFormat;

use crate::group::Routing;
use crate::matrix::{FORMATS, Matrix};
use crate::scalar::gated;
use crate::support::{Random, check, step};

/// As for the other products: sums of up to 1,500 products in f32, relative to the largest result.
const TOLERANCE: f64 = 4e-6;

const SILU: Gate = Gate::Activated(Unary::Silu);
/// A limit that random products pass.
const CLAMPED: Gate = Gate::Clamped {
    alpha: 1.702,
    limit: 1.5,
};
const Q4: WeightFormat = WeightFormat::Q4 { min: false };

/// The matrices and biases of all experts of a layer.
struct Experts {
    bank: BankSpec,
    matrix: Matrix,
    bias: Vec<f32>,
}

impl Experts {
    fn random(experts: u32, rows: u32, cols: u32, format: WeightFormat, random: &mut Random) -> Self {
        let bank = whole_bank(experts, rows, cols, format);
        Experts {
            bank,
            matrix: Matrix::random(format, (experts * rows) as usize, cols as usize, random),
            bias: random.numbers((experts * rows) as usize),
        }
    }

    fn bindings(&self, bank: &BankSpec, bias: bool) -> Vec<Data> {
        let expert_bytes = bank.format.data_bytes(bank.rows.into(), bank.cols.into()) as usize;
        let elements = self.matrix.bindings[0].from_byte(bank.first as usize * expert_bytes);
        let elements = elements.pieces(bank.experts as usize * expert_bytes)[0].clone();
        let mut bindings = elements.pieces(bank.per_binding as usize * expert_bytes);
        bindings.extend(self.matrix.bindings[1..].iter().cloned());
        bindings.extend(bias.then(|| (&self.bias).into()));
        bindings
    }

    /// All products of an expert's rows with `x`.
    fn products(&self, expert: u32, x: &[f32], bias: bool) -> Vec<f64> {
        let first = (expert * self.bank.rows) as usize;
        (first..first + self.bank.rows as usize)
            .map(|row| {
                let weights = &self.matrix.values[row * x.len()..][..x.len()];
                let product: f64 = weights.iter().zip(x).map(|(w, &x)| w * f64::from(x)).sum();
                product + if bias { f64::from(self.bias[row]) } else { 0.0 }
            })
            .collect()
    }

    /// The dispatches that `experts` at a time and `per_binding` make of the bank.
    fn banks(&self, experts: u32, per_binding: u32) -> Vec<BankSpec> {
        (0..self.bank.of)
            .step_by(experts as usize)
            .map(|first| BankSpec {
                first,
                experts: experts.min(self.bank.of - first),
                per_binding,
                ..self.bank.clone()
            })
            .collect()
    }
}

/// A layer's experts, tokens and where they go.
struct Case {
    experts: Experts,
    routing: Routing,
    group: GroupSpec,
}

impl Case {
    /// The step has room for a few tokens more than there are.
    fn new(experts: Experts, routing: Routing, tile: u32) -> Self {
        let group = GroupSpec {
            experts: experts.bank.of,
            k: routing.k as u32,
            tokens: routing.tokens() as u32 + 3,
            tile,
        };
        Case {
            experts,
            routing,
            group,
        }
    }

    fn groups(&self) -> Data {
        (&self.routing.groups(&self.group, 0xdead_beef)).into()
    }

    /// The first product over `bank`, and that it leaves what it should.
    fn up(&self, bank: &BankSpec, gate: Gate, bias: bool, random: &mut Random) {
        let (rows, cols) = (bank.rows as usize, bank.cols as usize);
        let x = random.numbers(self.routing.tokens() * cols);
        let columns = rows / 2;
        let before = random.numbers((self.group.tokens * self.group.k) as usize * columns);
        let mut expected: Vec<f64> = before.iter().map(|&value| value.into()).collect();
        for (&assignment, out) in self.routing.order().iter().zip(expected.chunks_mut(columns)) {
            let (expert, _) = self.routing.choices[assignment as usize];
            if !(bank.first..bank.first + bank.experts).contains(&expert) {
                continue;
            }
            let token = assignment as usize / self.routing.k;
            let products = self.experts.products(expert, &x[token * cols..][..cols], bias);
            for (out, pair) in out.iter_mut().zip(products.chunks(2)) {
                *out = gated(gate, pair[0], pair[1]);
            }
        }
        let mut buffers = vec![(&x).into(), self.groups()];
        buffers.extend(self.experts.bindings(bank, bias));
        buffers.push((&before).into());
        let spec = GroupedUpSpec {
            bank: bank.clone(),
            group: self.group.clone(),
            gate,
            bias,
        };
        let tokens = self.routing.tokens() as u32;
        check(&KernelSpec::GroupedUp(spec), &buffers, tokens, &expected, TOLERANCE);
    }

    /// The second product over `bank`, likewise.
    fn down(&self, bank: &BankSpec, bias: bool, random: &mut Random) {
        let (rows, cols) = (bank.rows as usize, bank.cols as usize);
        let places = (self.group.tokens * self.group.k) as usize;
        let a = random.numbers(places * cols);
        let before = random.numbers(places * rows);
        let mut expected: Vec<f64> = before.iter().map(|&value| value.into()).collect();
        for (&assignment, a) in self.routing.order().iter().zip(a.chunks(cols)) {
            let (expert, _) = self.routing.choices[assignment as usize];
            if (bank.first..bank.first + bank.experts).contains(&expert) {
                let products = self.experts.products(expert, a, bias);
                expected[assignment as usize * rows..][..rows].copy_from_slice(&products);
            }
        }
        let mut buffers = vec![(&a).into(), self.groups()];
        buffers.extend(self.experts.bindings(bank, bias));
        buffers.push((&before).into());
        let spec = GroupedDownSpec {
            bank: bank.clone(),
            group: self.group.clone(),
            bias,
        };
        let tokens = self.routing.tokens() as u32;
        check(&KernelSpec::GroupedDown(spec), &buffers, tokens, &expected, TOLERANCE);
    }

    /// The second product over all experts of `bank`, likewise.
    fn dense(&self, bank: &BankSpec, bias: bool, residual: Residual, random: &mut Random) {
        let (rows, cols, of) = (bank.rows as usize, bank.cols as usize, bank.of as usize);
        let tokens = self.routing.tokens();
        let a = random.numbers(tokens * of * cols);
        let added = random.numbers(tokens * rows);
        // One token more than the step has.
        let before = random.numbers((tokens + 1) * rows);
        let mut expected: Vec<f64> = before.iter().map(|&value| value.into()).collect();
        for (token, choices) in self.routing.choices.chunks(self.routing.k).enumerate() {
            let out = &mut expected[token * rows..][..rows];
            for (row, out) in out.iter_mut().enumerate() {
                *out = match residual {
                    Residual::None => 0.0,
                    Residual::Add => added[token * rows + row].into(),
                    Residual::InPlace => *out,
                };
            }
            for &(expert, weight) in choices {
                if (bank.first..bank.first + bank.experts).contains(&expert) {
                    let a = &a[(token * of + expert as usize) * cols..][..cols];
                    for (out, product) in out.iter_mut().zip(self.experts.products(expert, a, bias)) {
                        *out += f64::from(weight) * product;
                    }
                }
            }
        }
        let mut buffers = vec![(&a).into(), self.routing.data()];
        buffers.extend(self.experts.bindings(bank, bias));
        buffers.push(step(tokens as u32, 0));
        buffers.extend((residual == Residual::Add).then(|| (&added).into()));
        buffers.push((&before).into());
        let spec = DenseDownSpec {
            bank: bank.clone(),
            k: self.routing.k as u32,
            bias,
            residual,
        };
        check(
            &KernelSpec::DenseDown(spec),
            &buffers,
            tokens as u32,
            &expected,
            TOLERANCE,
        );
    }
}

#[test]
fn grouped_products_in_every_format() {
    let mut random = Random(11);
    for (format, tile) in FORMATS.into_iter().zip([16, 32, 64].into_iter().cycle()) {
        let experts = Experts::random(4, 70, 37, format, &mut random);
        let bank = experts.bank.clone();
        let case = Case::new(experts, Routing::random(45, 2, 4, &mut random), tile);
        case.up(&bank, SILU, false, &mut random);
        case.down(&bank, true, &mut random);
    }
}

#[test]
fn grouped_products_of_odd_sizes() {
    let mut random = Random(12);
    for (rows, cols) in [(128, 24), (2, 1), (66, 500)] {
        for tile in [16, 32, 64] {
            let experts = Experts::random(3, rows, cols, Q4, &mut random);
            let bank = experts.bank.clone();
            let case = Case::new(experts, Routing::random(70, 1, 3, &mut random), tile);
            case.up(&bank, CLAMPED, true, &mut random);
            case.down(&bank, false, &mut random);
        }
    }
}

#[test]
fn grouped_products_of_lopsided_routings() {
    let mut random = Random(13);
    // All to one expert, most experts without tokens, and all to all.
    for (experts, k, first) in [(9, 1, 8), (9, 3, 0), (3, 3, 0), (1, 1, 0)] {
        for tokens in [1, 17, 65] {
            let routing = Routing::all_to(first, tokens, k, &mut random);
            let experts = Experts::random(experts, 24, 32, WeightFormat::Bf16, &mut random);
            let bank = experts.bank.clone();
            let case = Case::new(experts, routing, 16);
            case.up(&bank, CLAMPED, true, &mut random);
            case.down(&bank, true, &mut random);
        }
    }
}

#[test]
fn grouped_products_of_split_banks() {
    let mut random = Random(14);
    let case = |format, rows, cols, random: &mut Random| {
        let experts = Experts::random(7, rows, cols, format, random);
        Case::new(experts, Routing::random(40, 3, 7, random), 16)
    };
    // Banks of all experts in three bindings and in two, and of three experts.
    for format in [WeightFormat::F32, WeightFormat::Q4 { min: true }] {
        let case = case(format, 66, 24, &mut random);
        for (together, per_binding) in [(7, 3), (7, 4), (3, 2)] {
            for bank in case.experts.banks(together, per_binding) {
                case.up(&bank, SILU, true, &mut random);
                case.down(&bank, true, &mut random);
            }
        }
    }
    // Experts of three rows of three blocks: the scales of some begin in the middle of a word.
    let case = case(WeightFormat::Q8 { block: 32 }, 3, 96, &mut random);
    for (together, per_binding) in [(7, 2), (3, 3), (1, 1)] {
        for bank in case.experts.banks(together, per_binding) {
            case.down(&bank, false, &mut random);
        }
    }
}

#[test]
fn dense_down_in_every_format() {
    let mut random = Random(15);
    for format in FORMATS {
        let experts = Experts::random(4, 70, 37, format, &mut random);
        let bank = experts.bank.clone();
        let case = Case::new(experts, Routing::random(67, 2, 4, &mut random), 64);
        case.dense(&bank, true, Residual::Add, &mut random);
    }
}

#[test]
fn dense_down_of_parts_and_odd_sizes() {
    let mut random = Random(16);
    let shapes = [(64, 24, 1, 1), (1, 1, 5, 3), (130, 160, 2, 130), (37, 50, 3, 64)];
    for (rows, cols, k, tokens) in shapes {
        let experts = Experts::random(5, rows, cols, Q4, &mut random);
        let case = Case::new(experts, Routing::random(tokens, k, 5, &mut random), 64);
        for (together, bias, residual) in [
            (5, false, Residual::None),
            (5, true, Residual::InPlace),
            (3, true, Residual::InPlace),
            (2, false, Residual::Add),
        ] {
            for bank in case.experts.banks(together, together) {
                case.dense(&bank, bias, residual, &mut random);
            }
        }
    }
}
