use kiln_compiler::graph::{Gate, Unary};
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
    let (prologue, epilogue) = (Prologue::Direct, vec![]);
    GemmSpec {
        rows,
        cols,
        format,
        prologue,
        epilogue,
        out_offset: 0,
        out_columns: rows,
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
        &[Epilogue::Glu(Gate::Activated(Unary::Silu))],
        &[
            Epilogue::Bias,
            Epilogue::Glu(Gate::Activated(Unary::GeluErf)),
            Epilogue::Add,
            Epilogue::AddInPlace,
        ],
        &[
            Epilogue::Scale(0.125),
            Epilogue::Glu(Gate::Activated(Unary::GeluTanh)),
            Epilogue::Bias,
        ],
    ];
    for list in lists {
        for (prologue, rows) in [(Prologue::Direct, 128), (NORM, 90)] {
            let gated = list.iter().any(|entry| matches!(entry, Epilogue::Glu(_)));
            let out_columns = if gated { rows / 2 } else { rows };
            case(
                GemmSpec {
                    prologue,
                    epilogue: list.to_vec(),
                    out_columns,
                    ..spec(rows, 64, Q4)
                },
                66,
            );
        }
    }
}

#[test]
fn gemm_parts_make_the_whole() {
    let (tokens, cols, rows) = (5, 64, 192);
    let epilogue = [
        Epilogue::Bias,
        Epilogue::Glu(Gate::Activated(Unary::Silu)),
        Epilogue::Add,
    ];
    let mut random = Random(3);
    let shape = Shape {
        tokens,
        rows,
        cols,
        format: WeightFormat::F32,
    };
    let product = Product::random(shape, &Prologue::Direct, &epilogue, &mut random);
    let [weight, bias, addend] = product.bindings.as_slice() else {
        panic!("three bindings")
    };
    // Outputs 64 .. 96, of rows 128 .. 192; the others stay.
    let (first, columns) = (64, 96);
    let mut expected: Vec<f64> = product.out.iter().map(|&value| value.into()).collect();
    for token in 0..tokens {
        let part = token * columns + first..(token + 1) * columns;
        expected[part.clone()].copy_from_slice(&product.expected[part]);
    }
    let x = (&product.x).into();
    let weight = weight.from_byte(2 * first * cols * 4);
    let buffers = [
        x,
        weight,
        bias.clone(),
        addend.clone(),
        step(tokens as u32, 0),
        (&product.out).into(),
    ];
    let spec = GemmSpec {
        epilogue: epilogue.to_vec(),
        out_offset: first as u32,
        out_columns: columns as u32,
        ..spec(2 * (columns - first) as u32, cols as u32, WeightFormat::F32)
    };
    check(&KernelSpec::Gemm(spec), &buffers, tokens as u32, &expected, TOLERANCE);
}
