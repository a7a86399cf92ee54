//! What a path is that should be a checkpoint and is none.

use std::path::Path;

use kiln_bundle::MANIFEST_FILE;

use super::CheckpointError;

/// The error for a path that cannot be opened as a checkpoint, if it is something else that has a way out.
pub(super) fn what_is(path: &Path) -> Option<CheckpointError> {
    let shown = |path: &Path| path.display().to_string();
    let folder = if path.is_dir() { path } else { path.parent()? };
    let folder = if folder == Path::new("") {
        Path::new(".")
    } else {
        folder
    };
    let has = |name: &str| folder.join(name).exists();
    if has("config.json") {
        return (folder != path).then(|| CheckpointError::PartOfCheckpoint {
            path: shown(path),
            folder: shown(folder),
        });
    }
    if has(MANIFEST_FILE) {
        return Some(CheckpointError::Bundle {
            path: shown(path),
            folder: shown(folder),
        });
    }
    None
}
