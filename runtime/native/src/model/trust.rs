//! Whose kernels run without bounds checks.

use std::fmt;

use kiln_bundle::Digest;
#[cfg(not(target_arch = "wasm32"))]
use kiln_bundle::TrustStore;

/// Which bundles are trusted. On native devices the kernels of a trusted bundle run as they are; those of any other get
/// wgpu's bounds checks and bounded loops, because a kernel without them can read and write whatever memory of the
/// device it likes. The checksums inside a bundle say nothing about who wrote it.
///
/// The default trusts what `compile-model` has compiled on this machine.
///
/// ```
/// use kiln_runtime::{Digest, LoadOptions, Trust};
///
/// // A bundle that this program brings along, or has compiled itself.
/// const MANIFEST_SHA256: Digest = Digest::from_bytes([7; 32]);
/// let options = LoadOptions { trust: Trust::digest(MANIFEST_SHA256), ..LoadOptions::default() };
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    #[cfg(not(target_arch = "wasm32"))]
    store: Option<TrustStore>,
    digests: Vec<Digest>,
}

impl Default for Trust {
    fn default() -> Self {
        Self::compiled_here()
    }
}

impl Trust {
    /// None: all kernels are checked.
    pub fn nothing() -> Self {
        Self {
            #[cfg(not(target_arch = "wasm32"))]
            store: None,
            digests: Vec::new(),
        }
    }

    /// Bundles that `compile-model` compiled for this user on this machine.
    pub fn compiled_here() -> Self {
        Self {
            #[cfg(not(target_arch = "wasm32"))]
            store: TrustStore::of_user(),
            ..Self::nothing()
        }
    }

    /// Bundles in this store.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn store(store: TrustStore) -> Self {
        Self {
            store: Some(store),
            ..Self::nothing()
        }
    }

    /// The bundle whose manifest has this SHA-256: of one that the caller has compiled, or that somebody vouches for whom
    /// the caller believes.
    pub fn digest(digest: Digest) -> Self {
        Self::nothing().and(digest)
    }

    /// Also the bundle whose manifest has this SHA-256.
    #[must_use]
    pub fn and(mut self, digest: Digest) -> Self {
        self.digests.push(digest);
        self
    }

    /// How the kernels of a bundle run. Reads the store.
    pub fn judge(&self, bundle: Digest) -> KernelChecks {
        if cfg!(target_arch = "wasm32") {
            return KernelChecks::Host;
        }
        if self.digests.contains(&bundle) {
            return KernelChecks::Vouched;
        }
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(store) = &self.store {
            return match store.contains(bundle) {
                Ok(true) => KernelChecks::CompiledHere,
                Ok(false) => KernelChecks::Foreign,
                Err(error) => KernelChecks::StoreUnusable {
                    message: format!("{}: {error}", store.file().display()),
                },
            };
        }
        KernelChecks::Untrusted
    }
}

/// Whether a model's kernels run with bounds checks, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelChecks {
    /// Unchecked: the bundle was compiled on this machine.
    CompiledHere,
    /// Unchecked: the caller vouches for the bundle's digest.
    Vouched,
    /// Checked: nothing is known of the bundle.
    Foreign,
    /// Checked: the caller trusts only certain digests, or nothing.
    Untrusted,
    /// Checked: what was compiled on this machine cannot be told.
    StoreUnusable { message: String },
    /// Checked by the browser, whatever the bundle.
    Host,
}

impl KernelChecks {
    /// Whether Kiln asks for the checks.
    pub fn are_on(&self) -> bool {
        !matches!(self, Self::CompiledHere | Self::Vouched)
    }
}

impl fmt::Display for KernelChecks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CompiledHere => "unchecked: the bundle was compiled on this machine",
            Self::Vouched => "unchecked: the bundle's digest is trusted",
            Self::Foreign => "checked: the bundle was not compiled on this machine",
            Self::Untrusted => "checked: the bundle's digest is not among those trusted",
            Self::Host => "checked by the browser",
            Self::StoreUnusable { message } => {
                return write!(
                    f,
                    "checked: what was compiled on this machine cannot be told ({message})"
                );
            }
        })
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;

    #[test]
    fn only_what_somebody_vouches_for_is_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let store = TrustStore::at(folder.path().join("trusted"));
        let [ours, theirs] = [Digest::of(b"ours"), Digest::of(b"theirs")];
        let trust = Trust::store(store.clone());
        assert_eq!(trust.judge(ours), KernelChecks::Foreign);
        store.add(ours).unwrap();
        assert_eq!(trust.judge(ours), KernelChecks::CompiledHere);
        assert_eq!(trust.judge(theirs), KernelChecks::Foreign);
        assert_eq!(trust.and(theirs).judge(theirs), KernelChecks::Vouched);
        assert_eq!(Trust::digest(ours).judge(ours), KernelChecks::Vouched);
        assert_eq!(Trust::digest(ours).judge(theirs), KernelChecks::Untrusted);
        assert_eq!(Trust::nothing().judge(ours), KernelChecks::Untrusted);
        let broken = Trust::store(TrustStore::at(folder.path()));
        assert!(matches!(broken.judge(ours), KernelChecks::StoreUnusable { .. }));
        assert!(broken.judge(ours).are_on() && !Trust::digest(ours).judge(ours).are_on());
    }
}
