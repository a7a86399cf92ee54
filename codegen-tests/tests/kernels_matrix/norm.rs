use kiln_compiler::kernels::{KernelSpec, NormSpec};

use crate::support::{Random, check};

/// Sums of up to 3,000 products of f32: a few roundings of 6e-8 each.
const TOLERANCE: f64 = 2e-6;

fn case(spec: NormSpec, tokens: u32) {
    let mut random = Random(u64::from(spec.width));
    let x = random.numbers((tokens * spec.x_stride) as usize);
    let weight = random.numbers(spec.width as usize);
    let before = random.numbers((tokens * spec.per_token * spec.width) as usize);
    let mut expected = Vec::new();
    for token in 0..tokens {
        for row in 0..spec.per_token {
            let start = (token * spec.x_stride + spec.x_offset + row * spec.width) as usize;
            let row = &x[start..start + spec.width as usize];
            let mean = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / row.len() as f64;
            let scale = 1.0 / (mean + f64::from(spec.eps)).sqrt();
            for (&x, &w) in row.iter().zip(&weight) {
                let factor = f64::from(w) + if spec.unit_offset { 1.0 } else { 0.0 };
                let old = if spec.add {
                    f64::from(before[expected.len()])
                } else {
                    0.0
                };
                expected.push(old + f64::from(x) * scale * factor);
            }
        }
    }
    let buffers = [(&x).into(), (&weight).into(), (&before).into()];
    check(&KernelSpec::Norm(spec), &buffers, tokens, &expected, TOLERANCE);
}

fn whole_rows(width: u32, per_token: u32) -> NormSpec {
    NormSpec {
        width,
        per_token,
        eps: 1e-5,
        unit_offset: false,
        add: false,
        x_stride: width * per_token,
        x_offset: 0,
    }
}

#[test]
fn norm_of_every_width() {
    for (width, tokens) in [(576, 3), (64, 1), (2880, 2), (33, 5), (1, 2), (770, 1)] {
        case(whole_rows(width, 1), tokens);
    }
}

#[test]
fn norm_of_heads_in_a_wider_row() {
    case(
        NormSpec {
            x_stride: 1000,
            x_offset: 128,
            eps: 1e-6,
            ..whole_rows(64, 3)
        },
        4,
    );
    case(
        NormSpec {
            x_stride: 1001,
            x_offset: 3,
            eps: 1e-6,
            ..whole_rows(36, 2)
        },
        3,
    );
}

#[test]
fn norm_with_unit_offset_and_residual() {
    case(
        NormSpec {
            unit_offset: true,
            add: true,
            ..whole_rows(640, 1)
        },
        3,
    );
    case(
        NormSpec {
            unit_offset: true,
            add: true,
            ..whole_rows(37, 2)
        },
        3,
    );
}
