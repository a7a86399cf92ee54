//! Every format against the values that it was packed from.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{PackError, PackedMatrix, Quant, WeightFormat, check_exact, format_for, pack, pack_rows, unpack};
use crate::checkpoint::{CheckpointError, RandomWeights, SourceType, TensorInfo, TensorSource};
use crate::graph::{DeclaredWeight, Stored, WeightRole};

const FORMATS: [WeightFormat; 7] = [
    WeightFormat::F32,
    WeightFormat::F16,
    WeightFormat::Bf16,
    WeightFormat::Q8 { block: 32 },
    WeightFormat::Q8 { block: 16 },
    WeightFormat::Q4 { min: false },
    WeightFormat::Q4 { min: true },
];

/// One tensor `w` in memory.
pub(crate) struct OneTensor {
    info: TensorInfo,
    bytes: Vec<u8>,
}

impl OneTensor {
    fn new(source: SourceType, shape: [usize; 2], bytes: Vec<u8>) -> Self {
        let info = TensorInfo {
            shape: shape.to_vec(),
            source,
            bytes: bytes.len() as u64,
            file: "memory".to_string(),
        };
        OneTensor { info, bytes }
    }

    fn f32(rows: usize, cols: usize, values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::new(SourceType::F32, [rows, cols], bytes)
    }
}

impl TensorSource for OneTensor {
    fn names(&self) -> Vec<String> {
        vec!["w".to_string()]
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        (name == "w").then_some(&self.info)
    }

    fn read_rows(&self, _: &str, rows: Range<usize>) -> Result<Cow<'_, [u8]>, CheckpointError> {
        let row = self.bytes.len() / self.info.shape[0];
        Ok(Cow::Borrowed(&self.bytes[rows.start * row..rows.end * row]))
    }
}

fn declared(name: &str, shape: &[usize], role: WeightRole) -> DeclaredWeight {
    DeclaredWeight {
        name: name.to_string(),
        shape: shape.to_vec(),
        role,
        stored: Stored::AsDeclared,
    }
}

fn random(rows: usize, cols: usize, seed: u64) -> Vec<f32> {
    let weights = [declared("w", &[rows, cols], WeightRole::Matrix)];
    RandomWeights::new(&weights, &Value::Null, seed).read_f32("w").unwrap()
}

/// The largest error that rounding to `format` may cause in one block of values.
fn allowed_error(format: WeightFormat, block: &[f32]) -> f32 {
    let largest = block.iter().fold(0f32, |most, value| most.max(value.abs()));
    let smallest = block.iter().copied().fold(f32::INFINITY, f32::min);
    let greatest = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let half = 2f32.powi(-11);
    match format {
        WeightFormat::F32 => 0.0,
        WeightFormat::F16 => largest * half + 3e-8,
        WeightFormat::Bf16 => largest * 2f32.powi(-8),
        // Half a step, and the step itself is rounded to f16.
        WeightFormat::Q8 { .. } => largest / 127.0 * (0.5 + 127.0 * half),
        // The side that does not hold the largest value ends at 7 steps: a whole step there.
        WeightFormat::Q4 { min: false } => largest / 8.0 * (1.0 + 8.0 * half),
        WeightFormat::Q4 { min: true } => (greatest - smallest) / 15.0 * (0.5 + 15.0 * half) + largest * half,
        WeightFormat::Mxfp4 => unreachable!("nothing is rounded to it"),
    }
}

#[test]
fn packing_keeps_values_within_the_format_s_rounding() {
    for format in FORMATS {
        for (rows, cols) in [(1, 32), (3, 64), (5, 576), (7, 33), (2, 1), (70_000, 3)] {
            let values = random(rows, cols, 7);
            let packed = pack(&OneTensor::f32(rows, cols, &values), "w", format).unwrap();
            let back = unpack(&packed);
            assert_eq!(back.len(), values.len());
            let block = format.block().unwrap_or(1) as usize;
            for (row, (values, back)) in values.chunks(cols).zip(back.chunks(cols)).enumerate() {
                for (values, back) in values.chunks(block).zip(back.chunks(block)) {
                    // A block cut short by the row's end is symmetric.
                    let format = match format {
                        WeightFormat::Q4 { .. } if values.len() < 32 => WeightFormat::Q4 { min: false },
                        format => format,
                    };
                    let allowed = allowed_error(format, values);
                    for (a, b) in values.iter().zip(back) {
                        assert!((a - b).abs() <= allowed, "{format} [{rows}, {cols}] row {row}: {a} {b}");
                    }
                }
            }
        }
    }
}

#[test]
fn padding_is_zero_in_every_format() {
    for format in FORMATS {
        let values: Vec<f32> = random(3, 37, 3).iter().map(|value| value + 0.7).collect();
        let packed = pack(&OneTensor::f32(3, 37, &values), "w", format).unwrap();
        let whole = PackedMatrix { cols: 64, ..packed };
        for row in unpack(&whole).chunks(64) {
            assert!(
                row[37..].iter().all(|&value| value == 0.0),
                "{format}: {:?}",
                &row[37..]
            );
        }
    }
}

#[test]
fn tensors_have_the_documented_sizes() {
    for format in FORMATS {
        for (rows, cols) in [(1, 32), (3, 37), (5, 96)] {
            let packed = pack(&OneTensor::f32(rows, cols, &random(rows, cols, 1)), "w", format).unwrap();
            let (data, scales) = packed.into_tensors();
            let (rows, cols) = (rows as u64, cols as u64);
            assert_eq!(data.len() as u64, format.data_bytes(rows, cols));
            let scales = scales.map_or(0, |scales| scales.len());
            assert_eq!(scales as u64, format.scale_bytes(rows, cols));
        }
    }
}

/// Bytes written out by hand from the description of [`WeightFormat::Q4`].
#[test]
fn q4_words_are_laid_out_as_documented() {
    // Elements 0..8 of the block are 0, 1, .. 7 steps above the minimum of -8.
    let mut values = [0f32; 32];
    for (i, value) in values.iter_mut().take(8).enumerate() {
        *value = i as f32 - 8.0;
    }
    let packed = pack(&OneTensor::f32(1, 32, &values), "w", WeightFormat::Q4 { min: false }).unwrap();
    assert_eq!(packed.data[..4], [0x40, 0x51, 0x62, 0x73]);
    assert_eq!(packed.data[4..], [0x88; 12]);
    assert_eq!(packed.scales, half::f16::ONE.to_le_bytes());
}

/// One block of each type with arbitrary integers: repacking must not change a bit of the value.
#[test]
fn blocks_of_the_same_kind_are_repacked_without_loss() {
    let cases = [
        (SourceType::Q4_0, 18, 32),
        (SourceType::Q4_1, 20, 32),
        (SourceType::Q5_0, 22, 32),
        (SourceType::Q8_0, 34, 32),
    ];
    for (source, bytes, cols) in cases {
        let mut block: Vec<u8> = (0..bytes).map(|i| (i * 37 + 11) as u8).collect();
        block[..2].copy_from_slice(&half::f16::from_f32(0.0173).to_le_bytes());
        if source == SourceType::Q4_1 {
            block[2..4].copy_from_slice(&half::f16::from_f32(-0.3).to_le_bytes());
        }
        let tensor = OneTensor::new(source, [1, cols], block);
        let packed = pack(&tensor, "w", format_for(source, Quant::Keep)).unwrap();
        assert_eq!(unpack(&packed), tensor.read_f32("w").unwrap(), "{source}");
    }
}

/// The K types keep their integers; only the product of their two levels of scales is rounded.
#[test]
fn k_blocks_are_repacked_with_scales_rounded_to_f16() {
    for (source, bytes, halves) in [(SourceType::Q4K, 144, [0, 2]), (SourceType::Q6K, 210, [208, 208])] {
        let mut block: Vec<u8> = (0..bytes).map(|i| (i * 89 + 5) as u8).collect();
        for at in halves {
            block[at..at + 2].copy_from_slice(&half::f16::from_f32(0.0011).to_le_bytes());
        }
        let tensor = OneTensor::new(source, [1, 256], block);
        let exact = tensor.read_f32("w").unwrap();
        let packed = pack(&tensor, "w", format_for(source, Quant::Keep)).unwrap();
        for (run, (exact, packed)) in exact.chunks(16).zip(unpack(&packed).chunks(16)).enumerate() {
            // Q4_K adds a minimum of at most 63 · dmin to at most 15 · 63 · d.
            let largest = exact.iter().fold(0f32, |most, value| most.max(value.abs()));
            let allowed = (largest + 2.0 * 63.0 * 0.0011) * 2f32.powi(-11);
            for (a, b) in exact.iter().zip(packed) {
                assert!((a - b).abs() <= allowed, "{source} run {run}: {a} {b}");
            }
        }
    }
}

/// The E2M1 codes' values, from the OCP Microscaling Formats specification, section 5.3.3.
const E2M1: [f32; 16] = [
    0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0,
];

/// A row of three blocks with any codes, minus zero among them.
fn mxfp4_row(scales: [u8; 3]) -> (OneTensor, Vec<f32>) {
    let (mut bytes, mut values) = (Vec::new(), Vec::new());
    for (block, scale) in scales.into_iter().enumerate() {
        let code = |i: usize| (i * 5 + i / 16 + block * 3) % 16;
        bytes.push(scale);
        bytes.extend((0..16).map(|i| (code(i) | code(i + 16) << 4) as u8));
        values.extend((0..32).map(|i| E2M1[code(i)] * 2f32.powi(i32::from(scale) - 127)));
    }
    (OneTensor::new(SourceType::Mxfp4, [1, 96], bytes), values)
}

#[test]
fn mxfp4_is_repacked_without_loss() {
    for scales in [[2, 127, 252], [120, 121, 122]] {
        let (tensor, values) = mxfp4_row(scales);
        assert_eq!(tensor.read_f32("w").unwrap(), values);
        let packed = pack(&tensor, "w", WeightFormat::Mxfp4).unwrap();
        assert_eq!(unpack(&packed), values);
        assert_eq!(packed.scales, scales);
        // Minus zero would carry into its neighbour when kernels negate bytes four at a time.
        let nibbles = packed.data.iter().flat_map(|byte| [byte & 15, byte >> 4]);
        assert!(nibbles.into_iter().all(|code| code != 8));
        let (data, scales) = packed.into_tensors();
        assert_eq!(data.len() as u64, WeightFormat::Mxfp4.data_bytes(1, 96));
        assert_eq!(scales.unwrap().len() as u64, WeightFormat::Mxfp4.scale_bytes(1, 96));
    }
    // Scale 0 is less than any device need tell from zero.
    let (tensor, values) = mxfp4_row([0, 1, 127]);
    let packed = unpack(&pack(&tensor, "w", WeightFormat::Mxfp4).unwrap());
    for (a, b) in values.iter().zip(packed) {
        assert!((a - b).abs() < 1e-37);
    }
}

#[test]
fn mxfp4_scales_out_of_range_are_errors() {
    for scale in [253, 254, 255] {
        let (tensor, _) = mxfp4_row([127, scale, 127]);
        let message = pack(&tensor, "w", WeightFormat::Mxfp4).unwrap_err().to_string();
        assert!(
            message.contains("tensor w, row 0: the scale of a block is not a number or too large"),
            "{message}"
        );
    }
    let values = OneTensor::f32(1, 32, &[1.0; 32]);
    assert!(pack(&values, "w", WeightFormat::Mxfp4).is_err());
}

#[test]
fn routers_and_vectors_must_be_finite() {
    let check = |role, value: f32| {
        let mut values = vec![0.5; 64];
        values[40] = value;
        let tensor = OneTensor::f32(2, 32, &values);
        check_exact(&tensor, &[declared("w", &[2, 32], role)]).map_err(|error| error.to_string())
    };
    for value in [f32::NAN, f32::INFINITY] {
        let row = check(WeightRole::Exact, value).unwrap_err();
        assert!(
            row.contains("tensor w, row 1: a value is infinite or not a number"),
            "{row}"
        );
        assert!(
            check(WeightRole::Vector, value)
                .unwrap_err()
                .contains("tensor w, row 40: ")
        );
        // Matrices and banks are checked when they are packed.
        assert_eq!(check(WeightRole::Bank, value), Ok(()));
    }
    assert_eq!(check(WeightRole::Exact, 7.0), Ok(()));
}

#[test]
fn quantized_sources_keep_their_blocks_under_the_same_number_of_bits() {
    use SourceType::*;
    let cases = [
        (F32, Quant::Keep, "f32"),
        (F16, Quant::Keep, "f16"),
        (Bf16, Quant::Keep, "bf16"),
        (Q4_1, Quant::Keep, "q4m"),
        (Q4K, Quant::Q4, "q4m"),
        (Q4_0, Quant::Q4, "q4"),
        (Q6K, Quant::Q8, "q8b16"),
        (Q5_0, Quant::Keep, "q8"),
        (Q8_0, Quant::Q4, "q4"),
        (Q4_1, Quant::Q8, "q8"),
        (Bf16, Quant::Q8, "q8"),
        (Q6K, Quant::F16, "f16"),
        (Mxfp4, Quant::Keep, "mxfp4"),
        (Mxfp4, Quant::Q8, "mxfp4"),
        (Mxfp4, Quant::F32, "mxfp4"),
    ];
    for (source, quant, format) in cases {
        assert_eq!(format_for(source, quant).to_string(), format, "{source} {quant}");
    }
    assert_eq!("q4".parse(), Ok(Quant::Q4));
    assert!(
        "int4"
            .parse::<Quant>()
            .unwrap_err()
            .to_string()
            .contains("keep, f32, f16, q8 or q4")
    );
}

#[test]
fn what_a_format_cannot_hold_is_an_error_that_names_it() {
    let mut values = vec![0.5; 64];
    values[40] = 1e6;
    let tensor = OneTensor::f32(2, 32, &values);
    let message = |format| pack(&tensor, "w", format).unwrap_err().to_string();
    assert!(message(WeightFormat::F16).contains("tensor w, row 1: a value or scale is too large for f16"));
    assert!(pack(&tensor, "w", WeightFormat::F32).is_ok());
    values[40] = f32::NAN;
    let tensor = OneTensor::f32(2, 32, &values);
    for format in FORMATS {
        let error = pack(&tensor, "w", format).unwrap_err();
        assert!(matches!(error, PackError::Value { row: 1, .. }), "{format}: {error}");
    }
    assert!(matches!(
        pack(&tensor, "v", WeightFormat::F32),
        Err(PackError::Checkpoint(_))
    ));
}

#[test]
fn some_rows_pack_as_they_do_among_all() {
    // More than one task, and rows that begin within one.
    let (rows, cols) = (300, 1000);
    let source = OneTensor::f32(rows, cols, &random(rows, cols, 8));
    for format in FORMATS {
        let whole = pack(&source, "w", format).unwrap();
        for part in [0..rows, 37..203, 299..300, 5..5] {
            let packed = pack_rows(&source, "w", format, part.clone()).unwrap();
            assert!(packed == whole.rows(part.clone()).unwrap(), "{format} {part:?}");
            assert!(unpack(&packed) == unpack(&whole)[part.start * cols..part.end * cols]);
        }
    }
}

#[test]
fn unlike_matrices_are_not_put_together() {
    let matrix = |rows, cols, format| pack(&OneTensor::f32(rows, cols, &random(rows, cols, 1)), "w", format).unwrap();
    let a = matrix(2, 32, WeightFormat::F32);
    for b in [matrix(2, 64, WeightFormat::F32), matrix(2, 32, WeightFormat::F16)] {
        assert!(matches!(PackedMatrix::concat(&[&a, &b]), Err(PackError::Unlike { .. })));
        assert!(PackedMatrix::interleave(&a, &b).is_err());
    }
    assert!(PackedMatrix::interleave(&a, &matrix(3, 32, WeightFormat::F32)).is_err());
    assert!(PackedMatrix::concat(&[]).is_err());
    assert!(matches!(a.rows(1..3), Err(PackError::Rows { rows: 2, .. })));
}

proptest! {
    #[test]
    fn rows_concat_and_interleave_move_rows(
        rows in 1usize..6, more in 1usize..4, cols in 1usize..70, format in 0usize..7, seed: u64,
    ) {
        let pack_values = |rows, seed| pack(&OneTensor::f32(rows, cols, &random(rows, cols, seed)), "w", FORMATS[format]).unwrap();
        let (a, b, c) = (pack_values(rows, seed), pack_values(rows, seed ^ 1), pack_values(more, seed ^ 2));
        let (values_a, values_b) = (unpack(&a), unpack(&b));
        let both = PackedMatrix::concat(&[&a, &c]).unwrap();
        prop_assert_eq!(&both.rows(0..rows).unwrap(), &a);
        prop_assert_eq!(&both.rows(rows..rows + more).unwrap(), &c);
        let woven = unpack(&PackedMatrix::interleave(&a, &b).unwrap());
        let expected: Vec<f32> = values_a
            .chunks(cols)
            .zip(values_b.chunks(cols))
            .flat_map(|(a, b)| a.iter().chain(b).copied())
            .collect();
        prop_assert_eq!(woven, expected);
    }

    #[test]
    fn quantizing_quantized_values_changes_nothing(cols in 1usize..100, seed: u64) {
        for format in [WeightFormat::Q8 { block: 32 }, WeightFormat::Q4 { min: false }] {
            let once = pack(&OneTensor::f32(1, cols, &random(1, cols, seed)), "w", format).unwrap();
            let values = unpack(&once);
            let twice = pack(&OneTensor::f32(1, cols, &values), "w", format).unwrap();
            prop_assert_eq!(unpack(&twice), values);
        }
    }
}

#[test]
fn random_weights_are_sensible_and_independent_of_order() {
    let mut weights = vec![
        declared("a.weight", &[300, 200], WeightRole::Matrix),
        declared("norm.weight", &[200], WeightRole::Vector),
        declared("a.bias", &[200], WeightRole::Vector),
        declared("bank", &[3, 100, 96], WeightRole::Bank),
        declared("bank_bias.gate", &[3, 100], WeightRole::Vector),
        declared("conv.weight", &[500, 1, 4], WeightRole::Vector),
        declared("A_log", &[400], WeightRole::Vector),
        declared("dt_bias", &[400], WeightRole::Vector),
        declared("sinks", &[64], WeightRole::Vector),
    ];
    let mxfp4 = json!({ "quantization_config": { "quant_method": "mxfp4" } });
    let read = |weights: &[DeclaredWeight], seed| -> BTreeMap<String, Vec<f32>> {
        let source = RandomWeights::new(weights, &mxfp4, seed);
        let names = source.names();
        names
            .into_iter()
            .map(|name| (name.clone(), source.read_f32(&name).unwrap()))
            .collect()
    };
    let first = read(&weights, 5);
    weights.reverse();
    assert_eq!(first, read(&weights[..], 5));
    assert_ne!(first["a.weight"], read(&weights, 6)["a.weight"]);
    let moments = |values: &[f32]| {
        let n = values.len() as f32;
        let mean = values.iter().sum::<f32>() / n;
        (mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / n)
    };
    let (mean, variance) = moments(&first["a.weight"]);
    assert!(
        mean.abs() < 1e-3 && (variance * 200.0 - 1.0).abs() < 0.03,
        "{mean} {variance}"
    );
    let (mean, variance) = moments(&first["bank"]);
    assert!(
        mean.abs() < 3e-3 && (variance * 96.0 - 1.0).abs() < 0.05,
        "{mean} {variance}"
    );
    assert_ne!(first["bank"], read(&weights, 6)["bank"]);
    let (mean, variance) = moments(&first["conv.weight"]);
    assert!(
        mean.abs() < 0.05 && (variance * 4.0 - 1.0).abs() < 0.1,
        "{mean} {variance}"
    );
    assert!(first["A_log"].iter().all(|value| (0.0..=16f32.ln()).contains(value)));
    assert!((moments(&first["A_log"]).0 - 2.02).abs() < 0.1);
    assert!(first["dt_bias"].iter().all(|value| (value - 1.0).abs() < 0.2));
    for name in ["bank_bias.gate", "sinks"] {
        assert!(first[name].iter().all(|value| value.abs() < 0.2), "{name}");
    }
    assert!(first["norm.weight"].iter().all(|value| (value - 1.0).abs() < 0.2));
    assert!(first["a.bias"].iter().all(|value| value.abs() < 0.2));
    let source = RandomWeights::new(&weights, &mxfp4, 5);
    assert_eq!(source.info("bank").unwrap().source, SourceType::Mxfp4);
    let bf16 = RandomWeights::new(&weights, &Value::Null, 5);
    assert_eq!(bf16.info("bank").unwrap().source, SourceType::Bf16);
    let rows = source.read_rows("a.weight", 7..9).unwrap();
    let all = source.read_rows("a.weight", 0..300).unwrap();
    assert_eq!(*rows, all[7 * 400..9 * 400]);
}
