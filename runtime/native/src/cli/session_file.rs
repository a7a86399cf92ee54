//! `--session FILE`: a session that lives from one run of the program to the next.

use std::path::Path;

use crate::{SavedSession, Session};

/// The file's session; `None` where there is none yet: no such file, an empty one, or a device like /dev/null.
pub(super) fn read(file: Option<&Path>) -> anyhow::Result<Option<SavedSession>> {
    let Some(file) = file.filter(|file| !holds_nothing(file)) else {
        return Ok(None);
    };
    Ok(Some(SavedSession::read_file(file)?))
}

fn holds_nothing(file: &Path) -> bool {
    match std::fs::metadata(file) {
        Ok(metadata) => !metadata.is_dir() && (!metadata.is_file() || metadata.len() == 0),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// Saves the session with a note.
pub(super) async fn write(file: Option<&Path>, session: &Session, note: serde_json::Value) -> anyhow::Result<()> {
    if let Some(file) = file {
        let mut saved = session.save().await?;
        saved.set_note(note);
        saved.write_file(file)?;
    }
    Ok(())
}
