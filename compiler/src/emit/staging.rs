//! A folder that is written aside and appears under its name only when it is whole.

use std::fs;
use std::path::{Path, PathBuf};

use super::EmitError;
use kiln_bundle::MANIFEST_FILE;

/// Removed with all it holds unless [`Staging::publish`] is reached.
#[derive(Debug)]
pub struct Staging {
    folder: PathBuf,
    target: PathBuf,
    published: bool,
}

impl Staging {
    /// Begins a folder that will become `target`.
    ///
    /// # Errors
    /// `target` exists and is no bundle (it is never overwritten), or the folder cannot be made.
    pub fn begin(target: &Path) -> Result<Self, EmitError> {
        if target.exists() && !target.join(MANIFEST_FILE).exists() {
            return Err(EmitError::Occupied {
                path: target.display().to_string(),
            });
        }
        let mut name = target.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".partial-{}", std::process::id()));
        let folder = target.with_file_name(name);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(|source| EmitError::io(parent, source))?;
        }
        fs::create_dir(&folder).map_err(|source| EmitError::io(&folder, source))?;
        Ok(Staging {
            folder,
            target: target.to_path_buf(),
            published: false,
        })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a file, making the folders it lies in.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), EmitError> {
        let path = self.folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|source| EmitError::io(parent, source))?;
        }
        fs::write(&path, content).map_err(|source| EmitError::io(&path, source))
    }

    /// Puts the folder in its place, instead of an older bundle if there is one.
    pub fn publish(mut self) -> Result<(), EmitError> {
        let error = |source| EmitError::io(&self.target, source);
        if self.target.exists() {
            let mut old = self.folder.clone().into_os_string();
            old.push(".old");
            fs::rename(&self.target, &old).map_err(error)?;
            if let Err(source) = fs::rename(&self.folder, &self.target) {
                // Put the old bundle back; the new one is removed on drop.
                let _ = fs::rename(&old, &self.target);
                return Err(error(source));
            }
            self.published = true;
            return fs::remove_dir_all(&old).map_err(error);
        }
        fs::rename(&self.folder, &self.target).map_err(error)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.published {
            // Nothing to report to: the error that led here is already on its way.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}
