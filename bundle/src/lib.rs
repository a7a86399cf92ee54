//! The bundle format: the one contract between Kiln's compiler and its runtime.
//!
//! A bundle is a folder with `manifest.json`, `kernels/`, weight shards (`weights-*.safetensors`) and,
//! where the checkpoint had them, tokenizer files. `docs/bundle-format.md` specifies it in prose.
//! Everything here is plain data: nothing in it knows about architectures.

mod digest;
mod error;
mod json;
mod manifest;
mod read;
mod step;
#[cfg(not(target_arch = "wasm32"))]
mod trust_store;

pub use digest::{Digest, NotADigest};
pub use error::BundleError;
pub use manifest::*;
pub use step::{NOT_FINITE, RULED_OUT, RuleWord, StepWord};
#[cfg(not(target_arch = "wasm32"))]
pub use trust_store::TrustStore;

/// The version this crate reads and writes. A manifest with another one is refused.
pub const FORMAT_VERSION: u32 = 3;
/// Name of the manifest inside a bundle folder.
pub const MANIFEST_FILE: &str = "manifest.json";

/// Lower-case hexadecimal SHA-256, the form in which the manifest keeps checksums.
pub fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex(&sha2::Sha256::digest(bytes))
}

/// Lower-case hexadecimal of a finished digest.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
