//! Reading a checkpoint's files, and remembering which were read.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::CheckpointError;
use super::store::MappedFile;
use super::unreadable::is_lfs_pointer;

/// Reads files. A build script must know them all, to run again when one of them changes.
#[derive(Debug, Default)]
pub(super) struct Files {
    read: RefCell<BTreeSet<PathBuf>>,
}

impl Files {
    /// The file's text; `None` if there is no such file.
    pub fn text(&self, path: &Path) -> Result<Option<String>, CheckpointError> {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                self.note(path);
                Ok(Some(text))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CheckpointError::io(path, error)),
        }
    }

    /// The file's bytes; `None` if there is no such file.
    pub fn bytes(&self, path: &Path) -> Result<Option<Vec<u8>>, CheckpointError> {
        match std::fs::read(path) {
            Ok(bytes) => {
                self.note(path);
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CheckpointError::io(path, error)),
        }
    }

    /// The file's JSON; `None` if there is no such file.
    ///
    /// # Errors
    /// What the file is instead: clones and downloads that went wrong leave other things under its name.
    pub fn json(&self, path: &Path) -> Result<Option<Value>, CheckpointError> {
        let Some(text) = self.text(path)? else {
            return Ok(None);
        };
        serde_json::from_str(&text).map(Some).map_err(|cause| {
            let file = path.display().to_string();
            match something_else(&text, &cause) {
                Some(what) => CheckpointError::NotJson { file, what },
                None => CheckpointError::Json { file, cause },
            }
        })
    }

    /// The file's bytes, paged in as they are used.
    pub fn map(&self, path: &Path) -> Result<MappedFile, CheckpointError> {
        let file = MappedFile::open(path)?;
        self.note(path);
        Ok(file)
    }

    /// All that were read, in alphabetical order.
    pub fn into_paths(self) -> Vec<PathBuf> {
        self.read.into_inner().into_iter().collect()
    }

    fn note(&self, path: &Path) {
        self.read.borrow_mut().insert(path.to_path_buf());
    }
}

fn something_else(text: &str, error: &serde_json::Error) -> Option<&'static str> {
    let text = text.trim_start();
    if is_lfs_pointer(text.as_bytes()) {
        Some("a Git LFS pointer and not the file itself, as clones without LFS have (`git lfs pull` fetches it)")
    } else if text.is_empty() {
        Some("empty")
    } else if text.starts_with('<') {
        Some("a web page and not the file itself")
    } else if error.is_eof() {
        Some("cut off, it ends within its JSON")
    } else {
        None
    }
}
