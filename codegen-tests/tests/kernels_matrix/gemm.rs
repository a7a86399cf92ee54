use kiln_compiler::graph::Unary;
use kiln_compiler::kernels::{Epilogue, GemmSpec, KernelSpec, Prologue};
use kiln_compiler::weights::WeightFormat;

use crate::matrix::FORMATS;
use crate::product::{Product, Shape};
use crate::support::{Random, check, step};

/// As for the matvec: sums of up to 1,500 products in f32, relative to the largest result.
const TOLERANCE: f64 = 4e-6;

const NORM: Prologue = Prologue::Norm {
    eps: 1e-5,
    unit_offset: false,
};
const Q4: WeightFormat = WeightFormat::Q4 { min: false };

/// The buffers hold `tokens` tokens and one more, which is no part of the step: its output must stay as it was.
fn case(spec: GemmSpec, tokens: usize) {
    let mut random = Random(u64::from(spec.rows * 7 + spec.cols));
    let shape = Shape {
        tokens: tokens + 1,
        rows: spec.rows as usize,
        cols: spec.cols as usize,
        format: spec.format,
    };
    let product = Product::random(shape, &spec.prologue, &spec.epilogue, &mut random);
    let width = product.out.len() / (tokens + 1);
    let mut expected = product.expected;
    for (value, &before) in expected.iter_mut().zip(&product.out).skip(tokens * width) {
        *value = before.into();
    }
    let mut buffers = vec![(&product.x).into()];
    buffers.extend(product.bindings);
    buffers.extend([step(tokens as u32, 0), (&product.out).into()]);
    check(&KernelSpec::Gemm(spec), &buffers, tokens as u32, &expected, TOLERANCE);
}

fn spec(rows: u32, cols: u32, format: WeightFormat) -> GemmSpec {
    GemmSpec {
        rows,
        cols,
        format,
        prologue: Prologue::Direct,
        epilogue: vec![],
    }
}

#[test]
fn gemm_in_every_format() {
    for format in FORMATS {
        case(spec(128, 160, format), 70);
        case(
            GemmSpec {
                prologue: NORM,
                ..spec(50, 37, format)
            },
            3,
        );
    }
}

#[test]
fn gemm_of_odd_sizes() {
    for (rows, cols, tokens) in [(1, 1, 1), (333, 96, 64), (64, 1500, 5), (65, 20, 129), (63, 31, 63)] {
        case(
            GemmSpec {
                prologue: NORM,
                ..spec(rows, cols, Q4)
            },
            tokens,
        );
        case(spec(rows, cols, WeightFormat::F16), tokens);
    }
}

#[test]
fn gemm_with_norms() {
    for unit_offset in [false, true] {
        let prologue = Prologue::Norm { eps: 1e-6, unit_offset };
        for format in [
            WeightFormat::Q4 { min: true },
            WeightFormat::Q8 { block: 16 },
            WeightFormat::Bf16,
        ] {
            case(
                GemmSpec {
                    prologue: prologue.clone(),
                    ..spec(192, 640, format)
                },
                40,
            );
        }
    }
}

#[test]
fn gemm_epilogues() {
    let lists: [&[Epilogue]; 6] = [
        &[Epilogue::Bias, Epilogue::Scale(0.5), Epilogue::AddInPlace],
        &[Epilogue::Add, Epilogue::Unary(Unary::GeluTanh)],
        &[Epilogue::Softcap(3.0)],
        &[Epilogue::Glu(Unary::Silu)],
        &[
            Epilogue::Bias,
            Epilogue::Glu(Unary::GeluErf),
            Epilogue::Add,
            Epilogue::AddInPlace,
        ],
        &[Epilogue::Scale(0.125), Epilogue::Glu(Unary::GeluTanh), Epilogue::Bias],
    ];
    for list in lists {
        for (prologue, rows) in [(Prologue::Direct, 128), (NORM, 90)] {
            case(
                GemmSpec {
                    prologue,
                    epilogue: list.to_vec(),
                    ..spec(rows, 64, Q4)
                },
                66,
            );
        }
    }
}
