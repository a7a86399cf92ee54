//! Bundles that were compiled on this machine, remembered by their digests.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::Digest;

/// A file with a digest a line. `compile-model` adds each bundle that it makes; `run-model` runs the kernels of those without
/// bounds checks. Nothing that lies in a bundle can get into it.
///
/// Lines that are no digest (the rest of an interrupted write, say) are passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustStore {
    file: PathBuf,
}

/// About a million bundles: a larger file is no store.
const MAX_BYTES: u64 = 64 << 20;

impl TrustStore {
    /// The user's: `kiln/trusted` in `$XDG_STATE_HOME` (by default `~/.local/state`), on macOS in
    /// `~/Library/Application Support`, on Windows in `%LOCALAPPDATA%`. `None` where there is no such folder.
    pub fn of_user() -> Option<Self> {
        let folder = dirs::state_dir().or_else(dirs::data_local_dir)?;
        Some(Self::at(folder.join("kiln").join("trusted")))
    }

    /// In this file, which need not exist.
    pub fn at(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into() }
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Remembers a bundle. Several processes may do so at once. The folder and the file are made for the user alone.
    ///
    /// # Errors
    /// As [`TrustStore::contains`]; a folder or file that cannot be made or written.
    pub fn add(&self, digest: Digest) -> io::Result<()> {
        if self.contains(digest)? {
            return Ok(());
        }
        if let Some(folder) = self.file.parent() {
            private_folder().create(folder)?;
        }
        let mut file = private_file().open(&self.file)?;
        // One write, so that lines of several processes do not mix; the first line end closes a line that broke off.
        file.write_all(format!("\n{digest}\n").as_bytes())
    }

    /// Whether the bundle was remembered; `false` where there is no store yet.
    ///
    /// # Errors
    /// A file that cannot be read, is too large for a store, or may be written to by other users.
    pub fn contains(&self, digest: Digest) -> io::Result<bool> {
        let file = match File::open(&self.file) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() > MAX_BYTES {
            return Err(io::Error::other("it is no list of digests; remove it"));
        }
        if others_may_write(&metadata) {
            return Err(io::Error::other(
                "other users may write to it; remove it, or chmod 600 it",
            ));
        }
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes)?;
        let mut lines = bytes.split(|byte| *byte == b'\n');
        Ok(lines.any(|line| std::str::from_utf8(line).ok().and_then(|line| line.parse().ok()) == Some(digest)))
    }
}

fn private_folder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(unix)]
fn others_may_write(metadata: &std::fs::Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o022 != 0
}

/// Elsewhere the user's folders are the user's by inheritance.
#[cfg(not(unix))]
fn others_may_write(_: &std::fs::Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, TrustStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = TrustStore::at(folder.path().join("state").join("kiln").join("trusted"));
        (folder, store)
    }

    #[test]
    fn what_was_added_is_there_and_nothing_else() {
        let (_folder, store) = store();
        let [one, two] = [Digest::of(b"1"), Digest::of(b"2")];
        assert!(!store.contains(one).unwrap(), "no store yet");
        store.add(one).unwrap();
        assert!(store.contains(one).unwrap() && !store.contains(two).unwrap());
        let before = std::fs::read(store.file()).unwrap();
        store.add(one).unwrap();
        assert_eq!(std::fs::read(store.file()).unwrap(), before, "once is enough");
    }

    #[test]
    fn many_writers_at_once_lose_nothing() {
        let (_folder, store) = store();
        let digest = |writer: u32, number: u32| Digest::of(&[writer.to_le_bytes(), number.to_le_bytes()].concat());
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let store = &store;
                scope.spawn(move || (0..25).for_each(|number| store.add(digest(writer, number)).unwrap()));
            }
        });
        for writer in 0..8 {
            assert!((0..25).all(|number| store.contains(digest(writer, number)).unwrap()));
        }
    }

    #[test]
    fn a_damaged_store_still_takes_and_gives() {
        let (_folder, store) = store();
        let [one, two, torn] = [Digest::of(b"1"), Digest::of(b"2"), Digest::of(b"3")];
        store.add(one).unwrap();
        let mut bytes = std::fs::read(store.file()).unwrap();
        bytes.extend(b"\xff\xfe\0 no digest\n");
        bytes.extend(&torn.to_string().as_bytes()[..40]);
        std::fs::write(store.file(), bytes).unwrap();
        store.add(two).unwrap();
        assert!(store.contains(one).unwrap() && store.contains(two).unwrap());
        assert!(!store.contains(torn).unwrap());
    }

    #[test]
    fn a_store_that_is_none_is_an_error() {
        let (folder, _) = store();
        let store = TrustStore::at(folder.path());
        assert!(store.contains(Digest::of(b"1")).is_err());
        assert!(store.add(Digest::of(b"1")).is_err());
        let below_a_file = folder.path().join("file");
        std::fs::write(&below_a_file, "").unwrap();
        assert!(
            TrustStore::at(below_a_file.join("trusted"))
                .add(Digest::of(b"1"))
                .is_err()
        );
    }

    #[cfg(unix)]
    #[test]
    fn it_is_the_users_alone() {
        use std::os::unix::fs::PermissionsExt;
        let (_folder, store) = store();
        let one = Digest::of(b"1");
        store.add(one).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(store.file()), 0o600);
        assert_eq!(mode(store.file().parent().unwrap()), 0o700);
        // What others may have written is not believed.
        std::fs::set_permissions(store.file(), PermissionsExt::from_mode(0o622)).unwrap();
        assert!(store.contains(one).unwrap_err().to_string().contains("chmod 600"));
        assert!(store.add(Digest::of(b"2")).is_err());
    }
}
