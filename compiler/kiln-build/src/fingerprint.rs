//! Whether a bundle was made from what is there now.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_bundle::{MANIFEST_FILE, Manifest};
use kiln_compiler::compile::{COMPILER, CompileOptions};
use serde::{Deserialize, Serialize};

/// All that a bundle depends on. Equal fingerprints mean equal bundles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    compiler: String,
    options: String,
    /// SHA-256 of the graph that an architecture of the author's own gives.
    definition: Option<String>,
    /// The files that were read.
    files: Vec<InputFile>,
    /// Names of all files beside them: one that is added might be read.
    names: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct InputFile {
    path: PathBuf,
    bytes: u64,
    /// Time of the last change, in nanoseconds since 1970; `None` where the system does not tell.
    changed: Option<u64>,
}

impl Fingerprint {
    /// `files`: those that are read to compile with these options.
    pub fn new(options: &CompileOptions, definition: Option<String>, files: &[PathBuf]) -> Self {
        Fingerprint {
            compiler: COMPILER.to_string(),
            options: format!("{options:?}"),
            definition,
            files: files.iter().map(|path| InputFile::of(path)).collect(),
            names: names(&options.source),
        }
    }
}

impl InputFile {
    fn of(path: &Path) -> Self {
        let metadata = fs::metadata(path).ok();
        let changed = metadata.as_ref().and_then(|metadata| metadata.modified().ok());
        InputFile {
            path: path.to_path_buf(),
            bytes: metadata.map_or(0, |metadata| metadata.len()),
            changed: changed.map(nanoseconds),
        }
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
}

/// Sorted; empty for a source that is one file.
fn names(source: &Path) -> Vec<String> {
    let entries = fs::read_dir(source).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}

/// The note beside a bundle that says what it was made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stamp {
    pub fingerprint: Fingerprint,
    manifest_sha256: String,
}

impl Stamp {
    pub fn new(fingerprint: Fingerprint, manifest_sha256: String) -> Self {
        Stamp {
            fingerprint,
            manifest_sha256,
        }
    }

    /// `None` if there is none that this version understands.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    pub fn write(&self, path: &Path) -> io::Result<()> {
        fs::write(path, serde_json::to_vec(self)?)
    }

    /// The files that were read to make the bundle.
    pub fn files(&self) -> Vec<PathBuf> {
        self.fingerprint.files.iter().map(|file| file.path.clone()).collect()
    }

    /// The manifest of the bundle in this folder, if it is the one of this stamp and whole.
    pub fn bundle(&self, folder: &Path) -> Option<Manifest> {
        let text = fs::read(folder.join(MANIFEST_FILE)).ok()?;
        if kiln_bundle::sha256_hex(&text) != self.manifest_sha256 {
            return None;
        }
        let manifest = Manifest::from_json(&text, MANIFEST_FILE).ok()?;
        let whole = |file: &str, bytes| fs::metadata(folder.join(file)).is_ok_and(|found| found.len() == bytes);
        let shards = manifest.shards.iter().all(|shard| whole(&shard.file, shard.bytes));
        shards.then_some(manifest)
    }
}
