//! What a path is that should be a bundle and is none.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use kiln_bundle::MANIFEST_FILE;
use thiserror::Error;

use crate::SavedSession;

/// Each message names the way out.
#[derive(Debug, PartialEq, Eq, Error)]
pub(super) enum NoBundle {
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    #[error(
        "{} is a checkpoint; make a bundle of it first: compile-model {} -o {}",
        path.display(), checkpoint.display(), bundle.display()
    )]
    Checkpoint {
        path: PathBuf,
        /// What to compile: the path, or the folder that it is a file of.
        checkpoint: PathBuf,
        /// A name for the bundle.
        bundle: PathBuf,
    },
    #[error("{} is a file of a bundle; give its folder, {}", .path.display(), .folder.display())]
    FileOfBundle { path: PathBuf, folder: PathBuf },
    #[error("{} is a saved session; give the bundle first, and it with --session", .0.display())]
    Session(PathBuf),
    #[error("{} is no bundle; the bundle {} lies in it", .0.display(), .1.display())]
    Parent(PathBuf, PathBuf),
    #[error(
        "{} holds no {MANIFEST_FILE}: it is no bundle, or not all of one; bundles are folders made by compile-model",
        .0.display()
    )]
    Folder(PathBuf),
    #[error("{} is a file; bundles are folders made by compile-model", .0.display())]
    File(PathBuf),
}

/// `None` for a bundle, whole or not.
pub(super) fn what_is(path: &Path) -> Option<NoBundle> {
    let Ok(metadata) = fs::metadata(path) else {
        return Some(NoBundle::Missing(path.to_path_buf()));
    };
    if !metadata.is_dir() {
        return Some(file(path));
    }
    if path.join(MANIFEST_FILE).exists() {
        return None;
    }
    Some(folder(path))
}

fn folder(path: &Path) -> NoBundle {
    let is_gguf = |path: &PathBuf| has_extension(path, "gguf");
    let mut entries: Vec<PathBuf> = (fs::read_dir(path).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .collect();
    entries.sort();
    if is_hugging_face(path) {
        return checkpoint(path, path);
    }
    if let Some(gguf) = entries.iter().find(|path| is_gguf(path)) {
        return checkpoint(path, gguf);
    }
    match entries.into_iter().find(|path| path.join(MANIFEST_FILE).exists()) {
        Some(bundle) => NoBundle::Parent(path.to_path_buf(), bundle),
        None => NoBundle::Folder(path.to_path_buf()),
    }
}

fn file(path: &Path) -> NoBundle {
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    let parent = parent.unwrap_or(Path::new("."));
    let mut start = Vec::new();
    // An unreadable file has no start.
    let _ = File::open(path).and_then(|file| file.take(8).read_to_end(&mut start));
    if start == SavedSession::MAGIC {
        NoBundle::Session(path.to_path_buf())
    } else if start.starts_with(b"GGUF") || has_extension(path, "gguf") {
        checkpoint(path, path)
    } else if parent.join(MANIFEST_FILE).exists() {
        NoBundle::FileOfBundle {
            path: path.to_path_buf(),
            folder: parent.to_path_buf(),
        }
    } else if is_hugging_face(parent) && (has_extension(path, "json") || has_extension(path, "safetensors")) {
        checkpoint(path, parent)
    } else {
        NoBundle::File(path.to_path_buf())
    }
}

fn is_hugging_face(folder: &Path) -> bool {
    folder.join("config.json").exists()
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension()
        .is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

fn checkpoint(path: &Path, checkpoint: &Path) -> NoBundle {
    let absolute = checkpoint.canonicalize().unwrap_or_else(|_| checkpoint.to_path_buf());
    let name = match checkpoint.is_dir() {
        true => absolute.file_name(),
        false => absolute.file_stem(),
    };
    let mut bundle = name.unwrap_or("model".as_ref()).to_os_string();
    bundle.push(".kiln");
    NoBundle::Checkpoint {
        path: path.to_path_buf(),
        checkpoint: checkpoint.to_path_buf(),
        bundle: bundle.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_called_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let cases: [(&str, &[u8], &str, &str); 9] = [
            (
                "hf/config.json",
                b"{}",
                "hf",
                "checkpoint; make a bundle of it first: compile-model ",
            ),
            ("hf/model.safetensors", b"", "hf/model.safetensors", "/hf -o hf.kiln"),
            ("a.gguf", b"GGUF", "a.gguf", "/a.gguf -o a.kiln"),
            ("unnamed", b"GGUF\x03\0\0\0", "unnamed", "checkpoint"),
            ("files/b.q4.gguf", b"GGUF", "files", "/b.q4.gguf -o b.q4.kiln"),
            ("all/c.kiln/manifest.json", b"{}", "all", "c.kiln lies in it"),
            ("talk", b"kilnsess...", "talk", "saved session"),
            ("text/notes.txt", b"", "text", "holds no manifest.json"),
            ("other.bin", b"", "other.bin", "is a file"),
        ];
        for (file, content, path, expected) in cases {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), content).unwrap();
            let told = what_is(&root.join(path)).unwrap().to_string();
            assert!(told.contains(expected), "{path}: {told}");
        }
        let told = what_is(&root.join("all/c.kiln/manifest.json")).unwrap().to_string();
        assert!(told.contains("give its folder"), "{told}");
        assert_eq!(what_is(&root.join("all/c.kiln")), None);
        assert!(matches!(what_is(&root.join("nothing")), Some(NoBundle::Missing(_))));
    }
}
