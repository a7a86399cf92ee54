//! MXFP4 as released: blocks and scales in tensors of their own, which become one.
//!
//! `X_blocks`, u8 `[.., rows, cols / 32, 16]`, has element `2b` of a block in the low nibble of byte `b` and `2b + 1` in
//! the high one; `X_scales` is u8 `[.., rows, cols / 32]`. See `convert_moe_packed_tensors` in
//! <https://github.com/huggingface/transformers/blob/main/src/transformers/integrations/mxfp4.py>.

use std::collections::BTreeMap;

use super::stored::{Conversion, StoredTensor};
use super::{CheckpointError, SourceType, TensorInfo};

/// Bytes of a block's codes.
const CODES: usize = 16;

/// Replaces each `X_blocks` that has an `X_scales` by `X`, `[.., rows, cols]`.
///
/// # Errors
/// Blocks and scales whose shapes do not fit each other.
pub(super) fn join(tensors: &mut BTreeMap<String, StoredTensor>) -> Result<(), CheckpointError> {
    let is_bytes = |tensor: &StoredTensor| tensor.info.source == SourceType::Other("u8");
    let names: Vec<String> = tensors
        .iter()
        .filter(|(_, tensor)| is_bytes(tensor))
        .filter_map(|(name, _)| name.strip_suffix("_blocks").map(str::to_string))
        .filter(|name| tensors.get(&format!("{name}_scales")).is_some_and(is_bytes))
        .collect();
    for name in names {
        let (blocks, scales) = (format!("{name}_blocks"), format!("{name}_scales"));
        let (Some(blocks), Some(scales)) = (tensors.remove(&blocks), tensors.remove(&scales)) else {
            continue;
        };
        tensors.insert(name.clone(), joined(&name, blocks, scales)?);
    }
    Ok(())
}

fn joined(name: &str, blocks: StoredTensor, scales: StoredTensor) -> Result<StoredTensor, CheckpointError> {
    let shape = match (blocks.info.shape.as_slice(), scales.info.shape.split_last()) {
        ([of_scales @ .., CODES], Some((per_row, rows))) if *of_scales == scales.info.shape && !rows.is_empty() => {
            [rows, &[per_row * 32]].concat()
        }
        (of_blocks, _) => {
            let of_scales = &scales.info.shape;
            return Err(CheckpointError::Damaged {
                file: blocks.info.file.clone(),
                what: format!(
                    "tensor {name}_blocks of shape {of_blocks:?} and {name}_scales of shape {of_scales:?} do not belong \
                     together: blocks are [.., rows, columns / 32, 16], scales [.., rows, columns / 32]"
                ),
            });
        }
    };
    Ok(StoredTensor {
        info: TensorInfo {
            shape,
            source: SourceType::Mxfp4,
            bytes: blocks.info.bytes + scales.info.bytes,
            file: blocks.info.file,
        },
        file: blocks.file,
        bytes: blocks.bytes,
        conversion: Conversion::Mxfp4 {
            scales_file: scales.file,
            scales: scales.bytes,
        },
    })
}

/// Codes and scales of some rows as blocks of [`SourceType::Mxfp4`].
pub(super) fn interleave(codes: &[u8], scales: &[u8]) -> Vec<u8> {
    const LOW: u64 = 0x0f0f_0f0f_0f0f_0f0f;
    let mut bytes = vec![0; scales.len() * (CODES + 1)];
    let blocks = bytes.as_chunks_mut::<{ CODES + 1 }>().0;
    for ((block, codes), scale) in blocks.iter_mut().zip(codes.as_chunks::<CODES>().0).zip(scales) {
        let halves = codes.as_chunks::<8>().0;
        // Elements 0 to 15 and 16 to 31.
        let (first, second) = (u64::from_le_bytes(halves[0]), u64::from_le_bytes(halves[1]));
        let even = (first & LOW | (second & LOW) << 4).to_le_bytes();
        let odd = (first >> 4 & LOW | second & !LOW).to_le_bytes();
        let [place, pairs @ ..] = block;
        *place = *scale;
        for (pair, (even, odd)) in pairs.as_chunks_mut::<2>().0.iter_mut().zip(even.into_iter().zip(odd)) {
            *pair = [even, odd];
        }
    }
    bytes
}
