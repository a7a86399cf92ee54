//! Damage that a file may have taken, or that somebody did to it on purpose.

use crate::Random;

/// Numbers at which sizes, counts and offsets overflow, or are none.
const WORDS: [u64; 10] = [
    0,
    1,
    u8::MAX as u64,
    i32::MAX as u64,
    u32::MAX as u64,
    1 << 32,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 7,
    u64::MAX,
];

/// What may stand in a text instead of a number.
const VALUES: [&[u8]; 12] = [
    b"0",
    b"-1",
    b"1",
    b"0.5",
    b"1e308",
    b"4294967296",
    b"18446744073709551616",
    b"65537",
    b"null",
    b"true",
    b"\"x\"",
    b"[[[[{}]]]]",
];

/// `seed` with one to four damages, the same for the same `random`.
pub fn damaged(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            break;
        }
        let at = random.below(bytes.len());
        match random.below(8) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes.truncate(at),
            2 => {
                let word = WORDS[random.below(WORDS.len())].to_le_bytes();
                let room = (bytes.len() - at).min(8);
                bytes[at..at + room].copy_from_slice(&word[..room]);
            }
            3 => {
                let to = (at + 1 + random.below(64)).min(bytes.len());
                bytes.drain(at..to);
            }
            4 => {
                let to = (at + 1 + random.below(64)).min(bytes.len());
                let again = bytes[at..to].to_vec();
                bytes.splice(at..at, again);
            }
            _ => replace_number(&mut bytes, at, VALUES[random.below(VALUES.len())]),
        }
    }
    bytes
}

/// Puts `value` in the place of the first number of a text at or after `at`.
fn replace_number(bytes: &mut Vec<u8>, at: usize, value: &[u8]) {
    let digit = |byte: &u8| byte.is_ascii_digit();
    let Some(start) = bytes[at..].iter().position(digit).map(|offset| at + offset) else {
        return;
    };
    let length = bytes[start..]
        .iter()
        .take_while(|byte| digit(byte) || **byte == b'.')
        .count();
    bytes.splice(start..start + length, value.iter().copied());
}
