//! Where the files of a bundle come from.

use std::future::Future;

use kiln_bundle::{MANIFEST_FILE, Manifest, sha256_hex};

use crate::Error;

/// Reads the files of one bundle: from a folder, over HTTP, out of an archive. `file` is always a plain relative
/// path with forward slashes.
pub trait BundleSource {
    /// Bytes in the file.
    fn size(&self, file: &str) -> impl Future<Output = std::io::Result<u64>>;

    /// Fills `buffer` from `offset`.
    fn read(&self, file: &str, offset: u64, buffer: &mut [u8]) -> impl Future<Output = std::io::Result<()>>;
}

/// A source and its manifest, checked.
pub struct Bundle<S> {
    source: S,
    manifest: Manifest,
}

/// Larger files of text are no manifest and no kernel.
const MAX_TEXT_BYTES: u64 = 256 << 20;

impl<S: BundleSource> Bundle<S> {
    /// Reads the manifest.
    ///
    /// # Errors
    /// Unreadable, not a manifest, of another version, or inconsistent.
    pub async fn open(source: S) -> Result<Self, Error> {
        let text = read_all(&source, MANIFEST_FILE).await?;
        let manifest = Manifest::from_json(&text, MANIFEST_FILE)?;
        let shards = manifest.shards.iter().map(|shard| &shard.file);
        let kernels = manifest.variants.iter().flat_map(|variant| &variant.kernels);
        let texts = manifest.text.iter().flat_map(|text| text.iter());
        let files = shards.chain(kernels.map(|kernel| &kernel.file));
        for file in files.chain(texts.map(|text| &text.file)) {
            check_path(file)?;
        }
        crate::model::check_manifest(&manifest)?;
        Ok(Self { source, manifest })
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn source(&self) -> &S {
        &self.source
    }

    /// A file of text, compared with its checksum: a tokenizer, a template, a kernel.
    ///
    /// # Errors
    /// As for [`file`](Self::file), and a file that is not what the compiler wrote.
    pub async fn text(&self, file: &str, sha256: &str) -> Result<String, Error> {
        let bytes = self.file(file).await?;
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
            source: std::io::Error::other("it is not UTF-8"),
        })
    }

    /// A whole file, as it is.
    ///
    /// # Errors
    /// A path that leaves the bundle, or an unreadable file.
    pub async fn file(&self, file: &str) -> Result<Vec<u8>, Error> {
        read_all(&self.source, file).await
    }
}

async fn read_all(source: &impl BundleSource, file: &str) -> Result<Vec<u8>, Error> {
    check_path(file)?;
    let read = |source| Error::Read {
        file: file.to_string(),
        source,
    };
    let size = source.size(file).await.map_err(read)?;
    if size > MAX_TEXT_BYTES {
        return Err(read(std::io::Error::other(format!("{size} bytes are too many"))));
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

/// A bundle in a folder. Files are read piece by piece, so that no more of a weight shard than one piece is in
/// memory.
#[cfg(not(target_arch = "wasm32"))]
pub struct DirectorySource {
    root: std::path::PathBuf,
}

#[cfg(not(target_arch = "wasm32"))]
impl DirectorySource {
    pub fn new(root: impl Into<std::path::PathBuf>) -> Self {
        Self { root: root.into() }
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl BundleSource for DirectorySource {
    async fn size(&self, file: &str) -> std::io::Result<u64> {
        Ok(std::fs::metadata(self.root.join(file))?.len())
    }

    async fn read(&self, file: &str, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = std::fs::File::open(self.root.join(file))?;
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(buffer)
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
