//! `--session FILE`: a session that lives from one run of the program to the next.

use std::path::Path;

use crate::{SavedSession, Session};

/// The file's session; `None` where there is no such file yet.
pub(super) fn read(file: Option<&Path>) -> anyhow::Result<Option<SavedSession>> {
    match file {
        Some(file) if file.try_exists()? => Ok(Some(SavedSession::read_file(file)?)),
        _ => Ok(None),
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
