//! Where the files of a bundle come from.

#[cfg(not(target_arch = "wasm32"))]
mod directory;
mod memory;
mod source;

use kiln_bundle::{Digest, MANIFEST_FILE, Manifest, sha256_hex};

use crate::Error;
#[cfg(not(target_arch = "wasm32"))]
pub use directory::DirectorySource;
pub use memory::MemorySource;
pub use source::{BundleSource, MaybeSend, MaybeSync};

/// A source and its manifest, checked.
pub struct Bundle<S> {
    source: S,
    manifest: Manifest,
    digest: Digest,
}

/// Larger files are no manifest: that of a model with 128 layers of experts takes a few MB.
const MAX_MANIFEST_BYTES: u64 = 64 << 20;
/// Larger files are no kernel: they take some 10 KB, and a compiler's memory grows with their text.
const MAX_KERNEL_BYTES: u64 = 1 << 20;
/// Larger files are no tokenizer: those of the largest vocabularies take some 30 MB.
const MAX_TEXT_BYTES: u64 = 256 << 20;

impl<S: BundleSource> Bundle<S> {
    /// Reads the manifest.
    ///
    /// # Errors
    /// Unreadable, not a manifest, of another version, or inconsistent.
    pub async fn open(source: S) -> Result<Self, Error> {
        let text = read_all(&source, MANIFEST_FILE, MAX_MANIFEST_BYTES).await?;
        let manifest = Manifest::from_json(&text, MANIFEST_FILE)?;
        let shards = manifest.shards.iter().map(|shard| &shard.file);
        let kernels = manifest.variants.iter().flat_map(|variant| &variant.kernels);
        let texts = manifest.text.iter().flat_map(|text| text.iter());
        let files = shards.chain(kernels.map(|kernel| &kernel.file));
        for file in files.chain(texts.map(|text| &text.file)) {
            check_path(file)?;
        }
        crate::model::check_manifest(&manifest)?;
        Ok(Self {
            source,
            manifest,
            digest: Digest::of(&text),
        })
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 of the manifest's text: what [`Trust`](crate::Trust) goes by.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn source(&self) -> &S {
        &self.source
    }

    /// A file of text, compared with its checksum: a tokenizer, a template, a kernel.
    ///
    /// # Errors
    /// As for [`file`](Self::file), and a file that is not what the compiler wrote.
    pub async fn text(&self, file: &str, sha256: &str) -> Result<String, Error> {
        checked_text(file, self.file(file).await?, sha256)
    }

    /// The text of a kernel, compared with its checksum.
    pub(crate) async fn kernel(&self, file: &str, sha256: &str) -> Result<String, Error> {
        checked_text(file, read_all(&self.source, file, MAX_KERNEL_BYTES).await?, sha256)
    }

    /// A whole file, as it is.
    ///
    /// # Errors
    /// A path that leaves the bundle, or an unreadable file.
    pub async fn file(&self, file: &str) -> Result<Vec<u8>, Error> {
        read_all(&self.source, file, MAX_TEXT_BYTES).await
    }
}

fn checked_text(file: &str, bytes: Vec<u8>, sha256: &str) -> Result<String, Error> {
    let found = sha256_hex(&bytes);
    if found != sha256 {
        return Err(Error::Checksum {
            file: file.to_string(),
            expected: sha256.to_string(),
            found,
        });
    }
    String::from_utf8(bytes).map_err(|_| Error::Read {
        file: file.to_string(),
        cause: std::io::Error::other("it is not UTF-8"),
    })
}

async fn read_all(source: &impl BundleSource, file: &str, most: u64) -> Result<Vec<u8>, Error> {
    check_path(file)?;
    let read = |cause| Error::Read {
        file: file.to_string(),
        cause,
    };
    let size = source.size(file).await.map_err(read)?;
    if size > most {
        return Err(read(std::io::Error::other(format!(
            "it has {size} bytes, at most {most} are possible"
        ))));
    }
    let mut bytes = vec![0; size as usize];
    source.read(file, 0, &mut bytes).await.map_err(read)?;
    Ok(bytes)
}

/// A path of the manifest must stay below the bundle's folder on every system.
fn check_path(path: &str) -> Result<(), Error> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', ':', '\0']);
    if path.split('/').all(plain) {
        Ok(())
    } else {
        Err(Error::UnsafePath { path: path.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        for good in ["manifest.json", "kernels/base/a.wgsl", "weights-0.safetensors"] {
            assert!(check_path(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/etc/passwd",
            "../a",
            "a/../../b",
            "a//b",
            "./a",
            "C:/a",
            "a\\..\\b",
            "a/",
        ] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
    }
}
