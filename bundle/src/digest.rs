use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// SHA-256 of a bundle's `manifest.json`, as `sha256sum` prints it. The manifest has the checksums of kernels, weights and
/// text files, so this stands for the whole bundle.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

/// The text is no SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is no SHA-256 of a manifest: 64 hexadecimal digits, as `sha256sum manifest.json` prints them")]
pub struct NotADigest {
    text: String,
}

impl Digest {
    /// Of the bytes of a `manifest.json`.
    pub fn of(manifest: &[u8]) -> Self {
        Self(Sha256::digest(manifest).into())
    }

    /// One that is known already, e.g. a constant of generated code.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// 64 hexadecimal digits, in either case.
impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let not = || NotADigest { text: text.to_string() };
        let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
        if text.len() != 64 {
            return Err(not());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let (high, low) = digit(digits[0]).zip(digit(digits[1])).ok_or_else(not)?;
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

/// Lower-case hexadecimal.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        // From `printf abc | sha256sum`.
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let digest = Digest::of(b"abc");
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.to_uppercase().parse(), Ok(digest));
        assert_eq!(Digest::from_bytes(*digest.bytes()), digest);
        for wrong in [
            "",
            &text[1..],
            &format!("{text}0"),
            &text.replace('b', "g"),
            &text.replace("ba", "é"),
        ] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }
}
