use kiln_compiler::graph::{Gate, Unary};
use kiln_compiler::kernels::{Epilogue, KernelSpec, MatvecSpec, Prologue};
use kiln_compiler::weights::WeightFormat;

use crate::matrix::FORMATS;
use crate::product::{Product, Shape};
use crate::support::{Random, check, step};

/// Sums of up to 3,000 products in f32, relative to the largest result; with Q4 a sum of similar size is subtracted.
const TOLERANCE: f64 = 4e-6;

const NORM: Prologue = Prologue::Norm {
    eps: 1e-5,
    unit_offset: false,
};
const Q4: WeightFormat = WeightFormat::Q4 { min: false };

fn spec(rows: u32, cols: u32, format: WeightFormat) -> MatvecSpec {
    MatvecSpec {
        rows,
        cols,
        format,
        prologue: Prologue::Direct,
        epilogue: vec![],
        row_from_step: false,
        out_offset: 0,
        workgroup: 64,
        rows_per_workgroup: 4,
        lane_words: 4,
    }
}

fn case(spec: MatvecSpec) {
    let mut random = Random(u64::from(spec.rows * 7 + spec.cols));
    let shape = Shape {
        tokens: 1,
        rows: spec.rows as usize,
        cols: spec.cols as usize,
        format: spec.format,
    };
    let product = Product::random(shape, &spec.prologue, &spec.epilogue, &mut random);
    // Rows of x before the wanted one, which must not be read; outputs before the part, which must not be written.
    let x_row = if spec.row_from_step { 2 } else { 0 };
    let mut x = vec![100f32; (x_row * spec.cols) as usize];
    x.extend(&product.x);
    let untouched = random.numbers(spec.out_offset as usize);
    let mut expected: Vec<f64> = untouched.iter().map(|&value| value.into()).collect();
    expected.extend(&product.expected);
    let mut out = untouched;
    out.extend(&product.out);

    let mut buffers = vec![(&x).into()];
    buffers.extend(product.bindings);
    if spec.row_from_step {
        buffers.push(step(3, x_row));
    }
    buffers.push((&out).into());
    check(&KernelSpec::Matvec(spec), &buffers, 1, &expected, TOLERANCE);
}

#[test]
fn matvec_in_every_format_and_lane_width() {
    for format in FORMATS {
        for lane_words in [1, 2, 4] {
            for (rows, cols) in [(64, 576), (33, 200)] {
                case(MatvecSpec {
                    lane_words,
                    ..spec(rows, cols, format)
                });
            }
        }
        case(spec(7, 37, format));
        case(MatvecSpec {
            prologue: NORM,
            lane_words: 1,
            ..spec(9, 61, format)
        });
    }
}

#[test]
fn matvec_of_odd_sizes() {
    for (rows, cols) in [(1, 1), (3, 32), (333, 96), (5, 3000), (130, 31)] {
        for (workgroup, rows_per_workgroup) in [(32, 1), (256, 8), (128, 2)] {
            case(MatvecSpec {
                workgroup,
                rows_per_workgroup,
                prologue: NORM,
                ..spec(rows, cols, Q4)
            });
        }
    }
}

#[test]
fn matvec_with_norms() {
    for unit_offset in [false, true] {
        let prologue = Prologue::Norm { eps: 1e-6, unit_offset };
        for format in [
            Q4,
            WeightFormat::Q4 { min: true },
            WeightFormat::Q8 { block: 32 },
            WeightFormat::F32,
        ] {
            case(MatvecSpec {
                prologue: prologue.clone(),
                ..spec(50, 640, format)
            });
        }
    }
}

#[test]
fn matvec_epilogues() {
    let lists: [&[Epilogue]; 8] = [
        &[Epilogue::Bias],
        &[Epilogue::AddInPlace],
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
        for prologue in [Prologue::Direct, NORM] {
            case(MatvecSpec {
                prologue,
                epilogue: list.to_vec(),
                ..spec(90, 160, Q4)
            });
        }
    }
}

#[test]
fn matvec_of_one_row_of_many_into_a_part() {
    case(MatvecSpec {
        row_from_step: true,
        prologue: NORM,
        ..spec(333, 576, Q4)
    });
    case(MatvecSpec {
        row_from_step: true,
        out_offset: 77,
        ..spec(100, 57, WeightFormat::Bf16)
    });
}

#[test]
fn matvec_of_more_workgroups_than_one_dimension_holds() {
    case(MatvecSpec {
        rows_per_workgroup: 1,
        workgroup: 32,
        ..spec(65_535 + 10, 32, Q4)
    });
}
