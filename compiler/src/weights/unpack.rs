use half::{bf16, f16};
use rayon::prelude::*;

use super::{PackedMatrix, WeightFormat};

/// The values of a packed matrix, `[rows, cols]` without padding: the readable meaning of
/// [`WeightFormat`].
pub fn unpack(matrix: &PackedMatrix) -> Vec<f32> {
    let mut values = vec![0.0; matrix.rows * matrix.cols];
    let data_row = matrix.data_row_bytes().max(1);
    let scale_row = matrix.scale_row_bytes();
    let rows = values
        .par_chunks_mut(matrix.cols.max(1))
        .zip(matrix.data.par_chunks(data_row));
    rows.enumerate().for_each(|(row, (values, data))| {
        let scales = &matrix.scales[row * scale_row..(row + 1) * scale_row];
        for (column, value) in values.iter_mut().enumerate() {
            *value = element(matrix.format, data, scales, column);
        }
    });
    values
}

/// The value in `column` of a row.
fn element(format: WeightFormat, data: &[u8], scales: &[u8], column: usize) -> f32 {
    let half = |bytes: &[u8], i: usize| f16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f32();
    match format {
        WeightFormat::F32 => {
            let word = &data[4 * column..4 * column + 4];
            f32::from_le_bytes([word[0], word[1], word[2], word[3]])
        }
        WeightFormat::F16 => half(data, column),
        WeightFormat::Bf16 => bf16::from_le_bytes([data[2 * column], data[2 * column + 1]]).to_f32(),
        WeightFormat::Q8 { block } => half(scales, column / block as usize) * f32::from(data[column] as i8),
        WeightFormat::Q4 { min } => {
            let (block, within) = (column / 32, column % 32);
            // Word of 8 elements, byte in the word, low or high nibble.
            let byte = data[block * 16 + within / 8 * 4 + within % 4];
            let q = f32::from(byte >> (within / 4 % 2 * 4) & 15);
            if min {
                half(scales, 2 * block) * q + half(scales, 2 * block + 1)
            } else {
                half(scales, block) * (q - 8.0)
            }
        }
        WeightFormat::Mxfp4 => {
            let (block, within) = (column / 32, column % 32);
            let byte = data[block * 16 + within / 8 * 4 + within % 4];
            let code = byte >> (within / 4 % 2 * 4) & 15;
            let magnitude = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0][usize::from(code & 7)];
            let value = if code & 8 == 0 { magnitude } else { -magnitude };
            // The scale byte is the exponent of an f32.
            value * f32::from_bits(u32::from(scales[block]) << 23)
        }
    }
}
