//! A matrix product with all that can be fused into it, by plain loops in f64.

use kiln_codegen_tests::Data;
use kiln_compiler::kernels::{Epilogue, Prologue};
use kiln_compiler::weights::WeightFormat;

use crate::matrix::Matrix;
use crate::scalar::{gated, unary};
use crate::support::Random;

/// Random operands of a product of `tokens` rows, and what must come out.
pub struct Product {
    pub x: Vec<f32>,
    /// After x: norm weight, weight, operands.
    pub bindings: Vec<Data>,
    /// The output before, read by `AddInPlace`.
    pub out: Vec<f32>,
    pub expected: Vec<f64>,
}

/// Shape of a product.
#[derive(Clone, Copy)]
pub struct Shape {
    pub tokens: usize,
    pub rows: usize,
    pub cols: usize,
    pub format: WeightFormat,
}

/// An epilogue entry and its operand.
type Entry = (Epilogue, Vec<f32>);

impl Product {
    pub fn random(shape: Shape, prologue: &Prologue, epilogue: &[Epilogue], random: &mut Random) -> Self {
        let Shape {
            tokens,
            rows,
            cols,
            format,
        } = shape;
        let x = random.numbers(tokens * cols);
        let mut bindings = Vec::new();
        let mut input: Vec<f64> = x.iter().map(|&x| x.into()).collect();
        if let Prologue::Norm { eps, unit_offset } = prologue {
            let weight = random.numbers(cols);
            normalize(&mut input, &weight, *eps, *unit_offset);
            bindings.push((&weight).into());
        }
        let matrix = Matrix::random(format, rows, cols, random);
        bindings.extend(matrix.bindings);

        let glu = epilogue.iter().position(|entry| matches!(entry, Epilogue::Glu(_)));
        let width = if glu.is_some() { rows / 2 } else { rows };
        let mut entries: Vec<Entry> = Vec::new();
        for (at, entry) in epilogue.iter().enumerate() {
            let columns = if glu.is_some_and(|glu| at > glu) { width } else { rows };
            let operand = match entry {
                Epilogue::Bias => random.numbers(columns),
                Epilogue::Add => random.numbers(tokens * columns),
                _ => Vec::new(),
            };
            if !operand.is_empty() {
                bindings.push((&operand).into());
            }
            entries.push((entry.clone(), operand));
        }
        let out = random.numbers(tokens * width);

        let mut expected = Vec::new();
        for (token, x) in input.chunks(cols).enumerate() {
            let products: Vec<f64> = matrix
                .values
                .chunks(cols)
                .map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum())
                .collect();
            for column in 0..width {
                let old = f64::from(out[token * width + column]);
                let value = match glu {
                    None => run(&entries, products[column], token, column, rows, old),
                    Some(at) => {
                        let (before, after) = (&entries[..at], &entries[at + 1..]);
                        let Epilogue::Glu(function) = epilogue[at] else {
                            unreachable!()
                        };
                        let single = |row| run(before, products[row], token, row, rows, old);
                        let gated = gated(function, single(2 * column), single(2 * column + 1));
                        run(after, gated, token, column, width, old)
                    }
                };
                expected.push(value);
            }
        }
        Product {
            x,
            bindings,
            out,
            expected,
        }
    }
}

/// RMS norm of rows as long as `weight`.
pub fn normalize(x: &mut [f64], weight: &[f32], eps: f32, unit_offset: bool) {
    for row in x.chunks_mut(weight.len()) {
        let mean = row.iter().map(|x| x * x).sum::<f64>() / weight.len() as f64;
        let scale = 1.0 / (mean + f64::from(eps)).sqrt();
        for (x, &w) in row.iter_mut().zip(weight) {
            *x *= scale * (f64::from(w) + if unit_offset { 1.0 } else { 0.0 });
        }
    }
}

fn run(entries: &[Entry], start: f64, token: usize, row: usize, width: usize, old: f64) -> f64 {
    entries.iter().fold(start, |value, (entry, operand)| match entry {
        Epilogue::Bias => value + f64::from(operand[row]),
        Epilogue::AddInPlace => value + old,
        Epilogue::Add => value + f64::from(operand[token * width + row]),
        Epilogue::Unary(function) => unary(*function, value),
        Epilogue::Scale(factor) => value * f64::from(*factor),
        Epilogue::Softcap(cap) => f64::from(*cap) * (value / f64::from(*cap)).tanh(),
        Epilogue::Glu(_) => unreachable!("taken apart by the caller"),
    })
}
