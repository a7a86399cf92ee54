//! Files that one file was split into: `NAME-00001-of-00003.gguf`.

use std::path::{Path, PathBuf};

use super::CheckpointError;

/// What the name of a part says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part<'n> {
    stem: &'n str,
    count: u32,
    extension: &'n str,
}

impl<'n> Part<'n> {
    fn of(name: &'n str) -> Option<Self> {
        let (rest, extension) = name.rsplit_once('.')?;
        let (rest, count) = rest.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        let (number, count): (u32, u32) = match digits(number) && digits(count) {
            true => (number.parse().ok()?, count.parse().ok()?),
            false => return None,
        };
        (1..=count).contains(&number).then_some(Part { stem, count, extension })
    }

    fn name(&self, number: u32) -> String {
        format!("{}-{number:05}-of-{:05}.{}", self.stem, self.count, self.extension)
    }
}

/// A file's name without its number and extension, if it is a part of several.
pub(super) fn stem(name: &str) -> Option<&str> {
    Part::of(name).map(|part| part.stem)
}

/// All parts of the file of which `path` is one, in order; just `path` if it is whole.
///
/// # Errors
/// Parts that do not lie beside it, by name.
pub(super) fn all(path: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some(part) = Part::of(&name) else {
        return Ok(vec![path.to_path_buf()]);
    };
    let names = (1..=part.count).map(|number| part.name(number));
    present(path.parent().unwrap_or(Path::new("")), names)
}

/// The files of these names in a folder.
///
/// # Errors
/// The names of those that are not there.
pub(super) fn present(folder: &Path, names: impl IntoIterator<Item = String>) -> Result<Vec<PathBuf>, CheckpointError> {
    let (present, missing): (Vec<_>, Vec<_>) = names
        .into_iter()
        .map(|name| folder.join(name))
        .partition(|path| path.exists());
    if missing.is_empty() {
        return Ok(present);
    }
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Err(CheckpointError::MissingParts {
        missing: missing.iter().map(name).collect(),
        parts: present.len() + missing.len(),
    })
}

/// The first part of each file in a folder with this extension: whole ones, and such as were split.
pub(super) fn firsts(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, CheckpointError> {
    let entries = std::fs::read_dir(folder).map_err(|e| CheckpointError::io(folder, e))?;
    let names = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names
        .filter(|name| {
            Path::new(name)
                .extension()
                .is_some_and(|found| found.eq_ignore_ascii_case(extension))
        })
        .collect();
    names.sort();
    names.dedup_by(|next, kept| match (Part::of(next), Part::of(kept)) {
        (Some(next), Some(kept)) => next == kept,
        _ => false,
    });
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}
