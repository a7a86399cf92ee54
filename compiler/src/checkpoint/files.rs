//! Reading a checkpoint's files, and remembering which were read.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::CheckpointError;
use super::store::MappedFile;
use super::unreadable::check_is_content;

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
                check_is_content(&path.display().to_string(), text.as_bytes())?;
                self.note(path);
                Ok(Some(text))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CheckpointError::io(path, error)),
        }
    }

    /// The file's JSON; `None` if there is no such file.
    pub fn json(&self, path: &Path) -> Result<Option<Value>, CheckpointError> {
        let Some(text) = self.text(path)? else {
            return Ok(None);
        };
        match serde_json::from_str(&text) {
            Ok(value) => Ok(Some(value)),
            Err(source) => Err(CheckpointError::Json {
                file: path.display().to_string(),
                source,
            }),
        }
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
