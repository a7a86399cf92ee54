use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use proptest::prelude::*;

use super::super::{CheckpointError, SourceType, TensorInfo, TensorSource};
use super::View;
use crate::graph::{DeclaredWeight, RowBlocks, Stored, WeightRole};

/// Tensors in memory, bf16 unless said otherwise.
#[derive(Default)]
struct Memory(BTreeMap<String, (TensorInfo, Vec<u8>)>);

impl Memory {
    /// A tensor whose elements are numbered, beginning with `first`.
    fn with(mut self, name: &str, shape: &[usize], first: usize) -> Self {
        let elements: usize = shape.iter().product();
        let bytes = (first..first + elements)
            .flat_map(|i| (i as u16).to_le_bytes())
            .collect();
        self.insert(name, shape, SourceType::Bf16, bytes);
        self
    }

    fn insert(&mut self, name: &str, shape: &[usize], source: SourceType, bytes: Vec<u8>) {
        let info = TensorInfo {
            shape: shape.to_vec(),
            source,
            bytes: bytes.len() as u64,
            file: "memory".to_string(),
        };
        self.0.insert(name.to_string(), (info, bytes));
    }
}

impl TensorSource for Memory {
    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.0.get(name).map(|(info, _)| info)
    }

    fn read_rows(&self, name: &str, rows: Range<usize>) -> Result<Cow<'_, [u8]>, CheckpointError> {
        let (info, bytes) = &self.0[name];
        let row = bytes.len() / info.matrix().0;
        Ok(Cow::Borrowed(&bytes[rows.start * row..rows.end * row]))
    }
}

fn within(tensor: &str, rows: &[RowBlocks], transposed: bool) -> Stored {
    Stored::Within {
        tensor: tensor.to_string(),
        rows: rows.to_vec(),
        transposed,
    }
}

fn weight(name: &str, shape: &[usize], role: WeightRole, stored: Stored) -> DeclaredWeight {
    DeclaredWeight {
        name: name.to_string(),
        shape: shape.to_vec(),
        role,
        stored,
    }
}

fn block(group: usize, start: usize, len: usize, step: usize) -> RowBlocks {
    RowBlocks {
        group,
        start,
        len,
        step,
    }
}

/// All elements, read in pieces of `rows` rows.
fn read(view: &View, name: &str, rows: usize) -> Vec<usize> {
    let total = view.info(name).unwrap().matrix().0;
    (0..total)
        .step_by(rows)
        .flat_map(|row| {
            let bytes = view.read_rows(name, row..total.min(row + rows)).unwrap().into_owned();
            let words: Vec<usize> = bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|w| u16::from_le_bytes(*w).into())
                .collect();
            words
        })
        .collect()
}

/// The weight, whatever the pieces that it is read in.
fn check(source: &Memory, weight: &DeclaredWeight, expected: &[usize]) {
    // Other rows of the tensor belong to weights that are not declared here; `new` sees tensors only.
    let view = View::new(source, std::slice::from_ref(weight)).unwrap();
    let info = view.info(&weight.name).unwrap();
    assert_eq!(info.shape, weight.shape);
    for rows in [1, 2, 3, 5, 100] {
        assert_eq!(
            read(&view, &weight.name, rows),
            expected,
            "{} by {rows} rows",
            weight.name
        );
    }
}

#[test]
fn one_tensor_an_expert_makes_a_bank() {
    let source = Memory::default()
        .with("e.0.up.weight", &[2, 3], 0)
        .with("e.1.up.weight", &[2, 3], 6)
        .with("e.2.up.weight", &[2, 3], 12);
    let bank = weight(
        "e.up.weight",
        &[3, 2, 3],
        WeightRole::Bank,
        within("e.{expert}.up.weight", &[], false),
    );
    check(&source, &bank, &(0..18).collect::<Vec<_>>());
    let stacked = Memory::default().with("e.up.weight", &[3, 2, 3], 0);
    check(&stacked, &bank, &(0..18).collect::<Vec<_>>());
    // Under another name, the stacked tensor is found by the name without the expert.
    let renamed = DeclaredWeight {
        name: "bank".to_string(),
        ..bank
    };
    check(&stacked, &renamed, &(0..18).collect::<Vec<_>>());
}

#[test]
fn gate_and_up_are_halves_or_every_second_row() {
    // Two experts of four rows of three.
    let source = Memory::default().with("gate_up", &[2, 4, 3], 0);
    let half = |name: &str, rows| weight(name, &[2, 2, 3], WeightRole::Bank, within("gate_up", &[rows], false));
    check(
        &source,
        &half("gate", block(4, 0, 2, 1)),
        &[0, 1, 2, 3, 4, 5, 12, 13, 14, 15, 16, 17],
    );
    check(
        &source,
        &half("up", block(4, 2, 2, 1)),
        &[6, 7, 8, 9, 10, 11, 18, 19, 20, 21, 22, 23],
    );
    let even = [0, 1, 2, 6, 7, 8, 12, 13, 14, 18, 19, 20];
    for rows in [block(4, 0, 2, 2), block(2, 0, 1, 1), block(2, 0, 1, 2)] {
        check(&source, &half("even", rows), &even);
    }
    check(
        &source,
        &half("odd", block(4, 1, 2, 2)),
        &[3, 4, 5, 9, 10, 11, 15, 16, 17, 21, 22, 23],
    );

    // The same of the biases, whose rows are elements.
    let source = Memory::default().with("bias", &[2, 4], 0);
    let vector = |rows| weight("b", &[2, 2], WeightRole::Vector, within("bias", &[rows], false));
    check(&source, &vector(block(4, 2, 2, 1)), &[2, 3, 6, 7]);
    check(&source, &vector(block(2, 1, 1, 1)), &[1, 3, 5, 7]);
}

#[test]
fn transposed_banks_are_turned() {
    // Two experts, three inputs by four interleaved outputs.
    let source = Memory::default().with("gate_up", &[2, 3, 4], 0);
    let bank = |rows| weight("w", &[2, 2, 3], WeightRole::Bank, within("gate_up", &[rows], true));
    check(
        &source,
        &bank(block(2, 0, 1, 1)),
        &[0, 4, 8, 2, 6, 10, 12, 16, 20, 14, 18, 22],
    );
    check(
        &source,
        &bank(block(4, 2, 2, 1)),
        &[2, 6, 10, 3, 7, 11, 14, 18, 22, 15, 19, 23],
    );
    let all = weight("down", &[2, 4, 3], WeightRole::Bank, within("down", &[], true));
    let turned = [
        0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11, 12, 16, 20, 13, 17, 21, 14, 18, 22, 15, 19, 23,
    ];
    let source = Memory::default().with("down", &[2, 3, 4], 0);
    check(&source, &all, &turned);
    // Under the weight's own name: turned only if its shape does not say otherwise.
    let source = Memory::default().with("down", &[2, 4, 3], 0);
    check(&source, &all, &(0..24).collect::<Vec<_>>());
    let source = Memory::default().with("down", &[1, 2, 2], 0);
    let square = weight("down", &[1, 2, 2], WeightRole::Bank, within("down", &[], true));
    check(&source, &square, &[0, 2, 1, 3]);
}

#[test]
fn blocks_are_never_transposed() {
    let mut source = Memory::default();
    let bytes: Vec<u8> = (0..2 * 4 * 17).map(|i| i as u8).collect();
    source.insert("down", &[2, 4, 32], SourceType::Mxfp4, bytes.clone());
    let stored = within("down", &[block(4, 1, 2, 2)], true);
    let weights = [weight("w", &[2, 2, 32], WeightRole::Bank, stored)];
    let view = View::new(&source, &weights).unwrap();
    assert_eq!(view.info("w").unwrap().source, SourceType::Mxfp4);
    let expected: Vec<u8> = [1, 3, 5, 7]
        .iter()
        .flat_map(|row| &bytes[row * 17..][..17])
        .copied()
        .collect();
    assert_eq!(*view.read_rows("w", 0..4).unwrap(), expected);
}

#[test]
fn the_first_way_that_the_checkpoint_has_is_taken() {
    let each = within("e.{expert}.up.weight", &[], false);
    let fused = within("gate_up", &[block(4, 2, 2, 1)], false);
    let bank = weight(
        "e.up.weight",
        &[2, 2, 3],
        WeightRole::Bank,
        Stored::OneOf(vec![each, fused]),
    );
    let by_expert = Memory::default()
        .with("e.0.up.weight", &[2, 3], 0)
        .with("e.1.up.weight", &[2, 3], 6);
    check(&by_expert, &bank, &(0..12).collect::<Vec<_>>());
    check(
        &Memory::default().with("gate_up", &[2, 4, 3], 0),
        &bank,
        &[6, 7, 8, 9, 10, 11, 18, 19, 20, 21, 22, 23],
    );
    check(
        &Memory::default().with("e.up.weight", &[2, 2, 3], 0),
        &bank,
        &(0..12).collect::<Vec<_>>(),
    );
    let missing = |source: &Memory| {
        View::new(source, std::slice::from_ref(&bank))
            .err()
            .unwrap()
            .to_string()
    };
    assert!(missing(&Memory::default()).contains("tensor e.{0..2}.up.weight: expected [2, 3], found none"));
    let mut many = bank.clone();
    many.shape[0] = usize::MAX;
    assert!(View::new(&by_expert, &[many]).is_err());
    let half = Memory::default().with("e.1.up.weight", &[2, 3], 6);
    assert!(missing(&half).contains("(1 tensor)") && missing(&half).contains("tensor e.0.up.weight: "));
}

#[test]
fn grouped_rows_are_gathered_block_after_block() {
    // Two key heads, each with two rows of q, two of k and three of v.
    let source = Memory::default().with("qkv", &[14, 1], 0);
    let blocks = [block(7, 0, 2, 1), block(7, 2, 2, 1), block(7, 4, 3, 1)];
    let weight = weight("w", &[14, 1], WeightRole::Matrix, within("qkv", &blocks, false));
    check(&source, &weight, &[0, 1, 7, 8, 2, 3, 9, 10, 4, 5, 6, 11, 12, 13]);
}

#[test]
fn nothing_is_copied_where_rows_lie_together() {
    let source = Memory::default().with("gate_up", &[2, 4, 3], 0);
    let half = weight(
        "w",
        &[2, 2, 3],
        WeightRole::Bank,
        within("gate_up", &[block(4, 2, 2, 1)], false),
    );
    let view = View::new(&source, &[half]).unwrap();
    assert!(matches!(view.read_rows("w", 2..4).unwrap(), Cow::Borrowed(_)));
    assert!(matches!(
        view.read_rows("w", 3..5),
        Err(CheckpointError::NoRows { rows: 4, .. })
    ));
    assert!(matches!(
        view.read_rows("v", 0..1),
        Err(CheckpointError::NoTensor { .. })
    ));
}

#[test]
fn problems_are_told_in_the_checkpoint_s_terms() {
    let mut source = Memory::default()
        .with("l.e.0.up", &[2, 3], 0)
        .with("l.e.2.up", &[3, 3], 0)
        .with("l.gate_up", &[2, 5, 3], 0)
        .with("l.extra", &[1], 0);
    source.insert("l.e.3.up", &[2, 3], SourceType::F32, vec![0; 24]);
    source.insert("l.down", &[1, 1, 32], SourceType::Q4_0, vec![0; 18]);
    let gate = |name: &str, start| {
        weight(
            name,
            &[2, 2, 3],
            WeightRole::Bank,
            within("l.gate_up", &[block(4, start, 2, 1)], false),
        )
    };
    let declared = [
        weight(
            "up",
            &[4, 2, 3],
            WeightRole::Bank,
            within("l.e.{expert}.up", &[], false),
        ),
        weight(
            "other",
            &[4, 2, 3],
            WeightRole::Bank,
            within("l.e.{expert}.other", &[], false),
        ),
        weight("down", &[1, 32, 1], WeightRole::Bank, within("l.down", &[], true)),
        gate("gate", 0),
        gate("up half", 2),
    ];
    let error = View::new(&source, &declared).err().unwrap().to_string();
    assert_eq!(
        error,
        "the checkpoint does not fit the model (7 tensors); is it another model's config.json?\n  \
         tensor l.e.1.up: expected [2, 3], found none\n  \
         tensor l.e.2.up: expected [2, 3], found [3, 3] in memory\n  \
         tensor l.e.{0..4}.other: expected [2, 3], found none\n  \
         tensor l.gate_up: expected [2, 4, 3], found [2, 5, 3] in memory\n  \
         tensor l.extra: expected none, found [1] in memory\n  \
         tensor l.e.3.up: f32, where the first expert's is bf16\n  \
         tensor l.down: Kiln does not read q4_0 weights, found in memory"
    );
}

proptest! {
    /// Against indexing element by element.
    #[test]
    fn rows_are_those_that_the_blocks_name(
        experts in 1usize..4,
        groups in 1usize..4,
        columns in 1usize..5,
        transposed: bool,
        shape in (1usize..8).prop_flat_map(|group| {
            let block = (0..group).prop_flat_map(move |start| {
                (1usize..3).prop_flat_map(move |step| {
                    let most = (group - start).div_ceil(step);
                    (Just(start), 1..=most, Just(step))
                })
            });
            (Just(group), proptest::collection::vec(block, 1..4))
        }),
    ) {
        let (group, blocks) = shape;
        let blocks: Vec<RowBlocks> = blocks.iter().map(|&(start, len, step)| block(group, start, len, step)).collect();
        let mut picked = Vec::new();
        for block in &blocks {
            for g in 0..groups {
                picked.extend((0..block.len).map(|i| g * group + block.start + i * block.step));
            }
        }
        let stored = groups * group;
        let element = |expert: usize, row: usize, column: usize| match transposed {
            false => (expert * stored + row) * columns + column,
            true => (expert * columns + column) * stored + row,
        };
        let expected: Vec<usize> = (0..experts)
            .flat_map(|expert| picked.iter().map(move |&row| (expert, row)))
            .flat_map(|(expert, row)| (0..columns).map(move |column| element(expert, row, column)))
            .collect();
        let shape = if transposed { [experts, columns, stored] } else { [experts, stored, columns] };
        let source = Memory::default().with("t", &shape, 0);
        let weight = weight("w", &[experts, picked.len(), columns], WeightRole::Bank, within("t", &blocks, transposed));
        let view = View::new(&source, &[weight]).unwrap();
        for rows in [1, 3, 1000] {
            prop_assert_eq!(&read(&view, "w", rows), &expected);
        }
    }
}
