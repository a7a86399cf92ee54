use kiln_codegen_tests::Random;
use kiln_compiler::kernels::{KernelSpec, RopeKernelSpec, Strided};

use crate::reference::{inv_freq, rotated, step_at};
use crate::support::{close, numbers, run_each};

/// Sine and cosine are good to 3e-7; the largest output is about 1.5.
const TOLERANCE: f64 = 6e-7;

fn case(spec: RopeKernelSpec, tokens: u32, position: u32) {
    let mut random = Random(u64::from(spec.width + position));
    let x = random.numbers((tokens * spec.x.stride) as usize);
    let frequencies = inv_freq(spec.rotary, 10_000.0);
    let mut expected = Vec::new();
    for token in 0..tokens {
        for head in 0..spec.heads {
            let start = (token * spec.x.stride + spec.x.offset + head * spec.width) as usize;
            let row = x[start..start + spec.width as usize]
                .iter()
                .map(|&x| f64::from(x))
                .collect();
            expected.extend(rotated(row, position + token, &frequencies, spec.attention_factor));
        }
    }
    let out = vec![0f32; expected.len()];
    let buffers = [
        (&x).into(),
        (&frequencies).into(),
        step_at(position, tokens),
        (&out).into(),
    ];
    run_each(&KernelSpec::Rope(spec), &buffers, tokens, |kernel, outputs| {
        close(kernel, &numbers(&outputs[3]), &expected, TOLERANCE);
    });
}

fn dense(heads: u32, width: u32) -> RopeKernelSpec {
    let x = Strided {
        stride: heads * width,
        offset: 0,
    };
    RopeKernelSpec {
        heads,
        width,
        rotary: width,
        attention_factor: 1.0,
        x,
    }
}

#[test]
fn rope_of_every_width() {
    for (heads, width) in [(1, 20), (3, 32), (9, 64), (2, 80), (4, 128), (1, 256)] {
        case(dense(heads, width), 5, 3);
    }
}

#[test]
fn rope_at_large_positions() {
    for position in [0, 1_000, 10_000, 32_767, 99_968, 131_040] {
        case(dense(2, 64), 32, position);
    }
}

#[test]
fn rope_of_a_part_of_the_head_in_a_wider_row() {
    let x = Strided {
        stride: 1000,
        offset: 128,
    };
    case(
        RopeKernelSpec {
            rotary: 32,
            attention_factor: 1.25,
            x,
            ..dense(3, 80)
        },
        4,
        1_234,
    );
    case(
        RopeKernelSpec {
            rotary: 20,
            x,
            ..dense(3, 64)
        },
        1,
        7,
    );
}
