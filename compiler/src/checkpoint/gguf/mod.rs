//! GGUF files.

use std::path::Path;

use super::{Checkpoint, CheckpointError};

pub(super) fn open(path: &Path) -> Result<Checkpoint, CheckpointError> {
    Err(CheckpointError::Unsupported {
        file: path.display().to_string(),
        what: "GGUF".into(),
    })
}
