//! ggml's quantized blocks in one form: runs of small integers with a scale and a minimum.
//!
//! Decoding to f32 and repacking without loss both start from these runs, so each block layout is
//! spelled out once. Layouts: `dequantize_row_*` in
//! <https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c>.

use half::{bf16, f16};

use super::SourceType;

/// Consecutive elements with the value `scale · q + min` (`min` is 0 for symmetric types).
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// 16 of them for Q6_K, 32 otherwise; MXFP4's are doubled and the scale halved.
    pub q: &'a [i8],
    pub scale: f32,
    pub min: f32,
}

/// Appends the values of `bytes` to `values`; nothing for [`SourceType::Other`].
pub fn decode(source: SourceType, bytes: &[u8], values: &mut Vec<f32>) {
    match source {
        SourceType::F32 => {
            let words = bytes.as_chunks::<4>().0;
            values.extend(words.iter().map(|word| f32::from_le_bytes(*word)));
        }
        SourceType::F16 => {
            let halves = bytes.as_chunks::<2>().0;
            values.extend(halves.iter().map(|h| f16::from_le_bytes(*h).to_f32()));
        }
        SourceType::Bf16 => {
            let halves = bytes.as_chunks::<2>().0;
            values.extend(halves.iter().map(|h| bf16::from_le_bytes(*h).to_f32()));
        }
        _ => for_each_run(source, bytes, |run| {
            values.extend(run.q.iter().map(|&q| run.scale * f32::from(q) + run.min));
        }),
    }
}

/// Calls `visit` for each run of the blocks in `bytes`, in order. Does nothing for types without
/// blocks.
pub fn for_each_run(source: SourceType, bytes: &[u8], mut visit: impl FnMut(Run<'_>)) {
    match source {
        SourceType::Q4_0 => {
            for block in bytes.as_chunks::<18>().0 {
                let q = nibbles(&block[2..]).map(|q| q - 8);
                visit(Run {
                    q: &q,
                    scale: half_at(block, 0),
                    min: 0.0,
                });
            }
        }
        SourceType::Q4_1 => {
            for block in bytes.as_chunks::<20>().0 {
                let q = nibbles(&block[4..]);
                visit(Run {
                    q: &q,
                    scale: half_at(block, 0),
                    min: half_at(block, 2),
                });
            }
        }
        SourceType::Q5_0 => {
            for block in bytes.as_chunks::<22>().0 {
                let high = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
                let mut q = nibbles(&block[6..]);
                for (i, q) in q.iter_mut().enumerate() {
                    *q += ((high >> i & 1) << 4) as i8 - 16;
                }
                visit(Run {
                    q: &q,
                    scale: half_at(block, 0),
                    min: 0.0,
                });
            }
        }
        SourceType::Q8_0 => {
            for block in bytes.as_chunks::<34>().0 {
                let q = bytemuck::cast_slice(&block[2..]);
                visit(Run {
                    q,
                    scale: half_at(block, 0),
                    min: 0.0,
                });
            }
        }
        SourceType::Q4K => bytes.as_chunks::<144>().0.iter().for_each(|b| q4_k(b, &mut visit)),
        SourceType::Q6K => bytes.as_chunks::<210>().0.iter().for_each(|b| q6_k(b, &mut visit)),
        SourceType::Mxfp4 => {
            for block in bytes.as_chunks::<17>().0 {
                let q = nibbles(&block[1..]).map(|code| MXFP4_DOUBLED[code as usize]);
                visit(Run {
                    q: &q,
                    scale: half_e8m0(block[0]),
                    min: 0.0,
                });
            }
        }
        SourceType::F32 | SourceType::F16 | SourceType::Bf16 | SourceType::Other(_) => {}
    }
}

/// Twice the value of each E2M1 code, so that all are integers.
const MXFP4_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half of an E8M0 scale: `2^(e - 128)`; 255 means "not a number".
fn half_e8m0(e: u8) -> f32 {
    match e {
        255 => f32::NAN,
        // The smallest two are subnormal.
        0 | 1 => f32::from_bits(0x0020_0000 << e),
        _ => f32::from_bits(u32::from(e - 1) << 23),
    }
}

/// `d`, `dmin`, eight pairs of 6-bit scales and minimums in 12 bytes, 256 nibbles.
fn q4_k(block: &[u8; 144], visit: &mut impl FnMut(Run<'_>)) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let packed = &block[4..16];
    for run in 0..8 {
        let (scale, min) = if run < 4 {
            (packed[run] & 63, packed[run + 4] & 63)
        } else {
            let (low, scale_high, min_high) = (packed[run + 4], packed[run - 4], packed[run]);
            (low & 15 | scale_high >> 6 << 4, low >> 4 | min_high >> 6 << 4)
        };
        // Two runs share 32 bytes: the even one in the low nibbles, the odd one in the high.
        let start = 16 + run / 2 * 32;
        let shift = run % 2 * 4;
        let mut q = [0i8; 32];
        for (q, byte) in q.iter_mut().zip(&block[start..start + 32]) {
            *q = (byte >> shift & 15) as i8;
        }
        visit(Run {
            q: &q,
            scale: d * f32::from(scale),
            min: -(dmin * f32::from(min)),
        });
    }
}

/// 256 low nibbles, 256 high bit pairs, sixteen signed scales, `d`.
fn q6_k(block: &[u8; 210], visit: &mut impl FnMut(Run<'_>)) {
    let d = half_at(block, 208);
    for run in 0..16 {
        let scale = d * f32::from(block[192 + run] as i8);
        // Each half of the block holds four quarters of 32 elements: a quarter takes its low bits
        // from one nibble of 32 bytes and its high bits from one bit pair of 32 bytes.
        let (half, quarter, start) = (run / 8, run % 8 / 2, run % 2 * 16);
        let low = half * 64 + quarter % 2 * 32 + start;
        let high = 128 + half * 32 + start;
        let mut q = [0i8; 16];
        for (i, q) in q.iter_mut().enumerate() {
            let nibble = block[low + i] >> (quarter / 2 * 4) & 15;
            let pair = block[high + i] >> (quarter * 2) & 3;
            *q = (nibble | pair << 4) as i8 - 32;
        }
        visit(Run { q: &q, scale, min: 0.0 });
    }
}

/// The 32 nibbles of 16 bytes: first all low ones, then all high ones.
fn nibbles(bytes: &[u8]) -> [i8; 32] {
    let mut q = [0; 32];
    for (i, byte) in bytes.iter().take(16).enumerate() {
        q[i] = (byte & 15) as i8;
        q[i + 16] = (byte >> 4) as i8;
    }
    q
}

fn half_at(block: &[u8], offset: usize) -> f32 {
    f16::from_le_bytes([block[offset], block[offset + 1]]).to_f32()
}
