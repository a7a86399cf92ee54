use kiln_compiler::kernels::{GatherSpec, KernelSpec};
use kiln_compiler::weights::WeightFormat;

use crate::matrix::{FORMATS, Matrix};
use crate::support::{Random, check};

/// Two roundings: one of `scale · q + min`, one of the factor.
const TOLERANCE: f64 = 2e-7;

fn case(format: WeightFormat, width: u32, scale: f32) {
    let mut random = Random(u64::from(width));
    let rows = 333;
    let table = Matrix::random(format, rows, width as usize, &mut random);
    let tokens: Vec<u32> = (0..5)
        .map(|_| random.bits() as u32 % rows as u32)
        .chain([0, 332])
        .collect();
    let expected: Vec<f64> = tokens
        .iter()
        .flat_map(|&token| &table.values[(token * width) as usize..][..width as usize])
        .map(|value| value * f64::from(scale))
        .collect();
    let count = tokens.len() as u32;
    let mut buffers = table.bindings;
    buffers.extend([(&tokens).into(), (&vec![9f32; expected.len()]).into()]);
    let spec = GatherSpec {
        rows: rows as u32,
        first_row: 0,
        per_binding: rows as u32,
        width,
        format,
        scale,
    };
    check(&KernelSpec::Gather(spec), &buffers, count, &expected, TOLERANCE);
}

#[test]
fn gather_in_every_format() {
    for format in FORMATS {
        for (width, scale) in [(576, 1.0), (100, 24.0), (37, 1.0)] {
            case(format, width, scale);
        }
    }
}

/// All codes under all scales that a device need not flush to zero and under which no code is infinite: exact.
#[test]
fn every_mxfp4_value_is_read_exactly() {
    let scales: Vec<u8> = (2..=252).collect();
    let rows = scales.len();
    // Code 0 to 15 twice, the second time from back to front, so that each is in low and in high nibbles.
    let code = |i: usize| if i % 32 < 16 { i % 16 } else { 15 - i % 16 } as u8;
    let table = Matrix::mxfp4(rows, 32, scales, code);
    let tokens: Vec<u32> = (0..rows as u32).collect();
    let before = vec![9f32; table.values.len()];
    let mut buffers = table.bindings;
    buffers.extend([(&tokens).into(), (&before).into()]);
    let spec = GatherSpec {
        rows: rows as u32,
        first_row: 0,
        per_binding: rows as u32,
        width: 32,
        format: WeightFormat::Mxfp4,
        scale: 1.0,
    };
    // Exactly: no tolerance, so that small rows are not measured by large ones.
    check(&KernelSpec::Gather(spec), &buffers, rows as u32, &table.values, 0.0);
}

#[test]
fn gather_from_a_part_leaves_other_tokens_alone() {
    let mut random = Random(7);
    let (first_row, rows, width) = (100u32, 50u32, 64u32);
    let format = WeightFormat::Q4 { min: true };
    let part = Matrix::random(format, rows as usize, width as usize, &mut random);
    let tokens = [99u32, 100, 149, 150, 0, 120];
    let before = random.numbers(tokens.len() * width as usize);
    let mut expected: Vec<f64> = before.iter().map(|&value| value.into()).collect();
    for (place, token) in tokens.iter().enumerate() {
        if (first_row..first_row + rows).contains(token) {
            let row = ((token - first_row) * width) as usize;
            expected[place * width as usize..][..width as usize]
                .copy_from_slice(&part.values[row..row + width as usize]);
        }
    }
    let mut buffers = part.bindings;
    buffers.extend([(&tokens).into(), (&before).into()]);
    let spec = GatherSpec {
        rows,
        first_row,
        per_binding: rows,
        width,
        format,
        scale: 1.0,
    };
    check(&KernelSpec::Gather(spec), &buffers, 6, &expected, TOLERANCE);
}

/// A table in several bindings, the last one not full, of which this dispatch has the rows from 100 on.
#[test]
fn gather_from_several_bindings() {
    let mut random = Random(8);
    let (first_row, per_binding, rows, width) = (100u32, 20u32, 50u32, 40u32);
    for format in FORMATS {
        let parts: Vec<Matrix> = [20, 20, 10]
            .into_iter()
            .map(|rows| Matrix::random(format, rows, width as usize, &mut random))
            .collect();
        let tokens = [99u32, 100, 119, 120, 139, 140, 149, 150, 0, 131];
        let before = random.numbers(tokens.len() * width as usize);
        let mut expected: Vec<f64> = before.iter().map(|&value| value.into()).collect();
        for (place, token) in tokens.iter().enumerate() {
            if (first_row..first_row + rows).contains(token) {
                let row = token - first_row;
                let values = &parts[(row / per_binding) as usize].values[(row % per_binding * width) as usize..];
                expected[place * width as usize..][..width as usize].copy_from_slice(&values[..width as usize]);
            }
        }
        let mut buffers: Vec<_> = parts.into_iter().flat_map(|part| part.bindings).collect();
        buffers.extend([(&tokens).into(), (&before).into()]);
        let spec = GatherSpec {
            rows,
            first_row,
            per_binding,
            width,
            format,
            scale: 1.0,
        };
        let count = tokens.len() as u32;
        check(&KernelSpec::Gather(spec), &buffers, count, &expected, TOLERANCE);
    }
}
