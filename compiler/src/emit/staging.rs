//! A folder that is written aside and appears under its name only when it is whole.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::EmitError;
use kiln_bundle::MANIFEST_FILE;

/// Begins the names of folders that are being written, and of old ones that are being removed.
const PARTIAL: &str = ".partial-";
/// Folders are renamed again when another process has put a bundle there in between; each time one of them succeeds.
const ATTEMPTS: usize = 100;

/// Removed with all it holds unless [`Staging::publish`] puts it in its place.
#[derive(Debug)]
pub struct Staging {
    folder: PathBuf,
    /// The folder itself where a link was given.
    target: PathBuf,
    place: Place,
}

/// Where the files are until they are complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In a folder of the same parent, which is then renamed.
    Beside,
    /// In the target itself. So it stays the folder that it is: it may be a mount point, have owners and permissions of
    /// its own, or lie where nothing else may be written.
    Inside,
}

impl Staging {
    /// Begins a folder that will become `target`. Links to folders stay links.
    ///
    /// # Errors
    /// `target` exists, is not empty and is no bundle (it is never overwritten), is no folder, or cannot be made.
    pub fn begin(target: &Path) -> Result<Self, EmitError> {
        let given = target;
        let error = |source| EmitError::io(given, source);
        let exists = given.exists();
        if exists && !given.is_dir() {
            return Err(EmitError::NoFolder {
                path: given.display().to_string(),
            });
        }
        let target = behind_links(given).map_err(error)?;
        let old_bundle = target.join(MANIFEST_FILE).exists();
        if exists && !old_bundle && !is_empty_folder(&target) {
            return Err(EmitError::Occupied {
                path: given.display().to_string(),
            });
        }
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(|source| EmitError::io(parent, source))?;
        }
        let beside = target.file_name().map(|name| {
            let mut name = name.to_os_string();
            name.push(PARTIAL);
            target.with_file_name(name)
        });
        let begun = match beside {
            Some(beside) if old_bundle || !exists => match new_folder(&beside) {
                Err(refused) if exists && is_refusal(&refused) => None,
                made => Some(made),
            },
            _ => None,
        };
        let (folder, place) = match begun {
            Some(made) => (made, Place::Beside),
            None => (new_folder(&target.join(PARTIAL)), Place::Inside),
        };
        Ok(Staging {
            folder: folder.map_err(error)?,
            target,
            place,
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

    /// Puts the folder in its place, instead of an older bundle if there is one. Of several that do so at once, the last
    /// one stays.
    pub fn publish(self) -> Result<(), EmitError> {
        let done = match self.place {
            Place::Beside => self.publish_beside(),
            Place::Inside => self.publish_inside(&self.folder),
        };
        done.map_err(|source| EmitError::io(&self.target, source))
    }

    fn publish_beside(&self) -> io::Result<()> {
        for _ in 0..ATTEMPTS {
            match fs::rename(&self.folder, &self.target) {
                Err(error) if self.target.exists() => drop(error),
                done => return done,
            }
            let mut old = self.folder.clone().into_os_string();
            old.push("-old");
            match fs::rename(&self.target, &old) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                // A mount point cannot be renamed.
                Err(_) => return self.publish_into_mount(),
            }
            let renamed = fs::rename(&self.folder, &self.target);
            if renamed.is_err() && !self.target.exists() {
                // Put the old bundle back; the new one is removed on drop.
                let _ = fs::rename(&old, &self.target);
                return renamed;
            }
            fs::remove_dir_all(&old)?;
            if renamed.is_ok() {
                return Ok(());
            }
        }
        Err(io::Error::other("other programs keep writing to the same folder"))
    }

    /// The target lies on another file system than its parent: the files are copied there first.
    fn publish_into_mount(&self) -> io::Result<()> {
        let inside = new_folder(&self.target.join(PARTIAL))?;
        let done = copy_tree(&self.folder, &inside).and_then(|()| self.publish_inside(&inside));
        let _ = fs::remove_dir_all(&inside);
        done
    }

    /// Moves the files of a folder in the target up to it. The manifest goes first and comes last: without one a folder is
    /// no bundle.
    fn publish_inside(&self, folder: &Path) -> io::Result<()> {
        // One at a time, where the system can lock a folder.
        let _lock = File::open(&self.target).and_then(|folder| folder.lock().map(|()| folder));
        remove(&self.target.join(MANIFEST_FILE))?;
        for entry in entries(&self.target)?.into_iter().filter(|name| !is_foreign(name)) {
            remove(&self.target.join(entry))?;
        }
        let mut names = entries(folder)?;
        names.sort_by_key(|name| name == MANIFEST_FILE);
        for name in names {
            fs::rename(folder.join(&name), self.target.join(&name))?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Published, it is gone or empty. Otherwise the error that led here is already on its way.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What the links at the end of a path lead to, there or not yet.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    /// As many as Linux follows.
    const MOST_LINKS: usize = 40;
    // Without a slash at the end, which would name what is behind the link.
    let mut path: PathBuf = path.components().collect();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            Ok(to) => path = path.parent().unwrap_or(Path::new("")).join(to),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many links"))
}

/// Makes a folder whose name begins so and that nobody else has or had, in this process or another.
fn new_folder(beginning: &Path) -> io::Result<PathBuf> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    loop {
        let mut path = beginning.to_path_buf().into_os_string();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        path.push(format!("{}-{number}", std::process::id()));
        match fs::create_dir(&path) {
            // Left over from another process of the same id.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return made.map(|()| path.into()),
        }
    }
}

/// Another place may allow what this one does not.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::CrossesDevices
    )
}

fn is_empty_folder(path: &Path) -> bool {
    entries(path).is_ok_and(|names| names.iter().all(|name| is_foreign(name)))
}

/// Neither part of a bundle nor of anything else that somebody would miss: folders that are being written, and what the
/// system keeps in the root of a volume.
fn is_foreign(name: &str) -> bool {
    name.starts_with(PARTIAL) || name == "lost+found"
}

fn entries(folder: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Removes a file or a folder with all it holds, if it is there.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&copy)?;
            copy_tree(&entry.path(), &copy)?;
        } else {
            fs::copy(entry.path(), &copy)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(target: &Path, name: &str) {
        let staging = Staging::begin(target).unwrap();
        staging.write("kernels/a.wgsl", name.as_bytes()).unwrap();
        staging.write(name, b"").unwrap();
        staging.write(MANIFEST_FILE, name.as_bytes()).unwrap();
        staging.publish().unwrap();
    }

    /// The folder holds the bundle of this name and nothing else.
    fn holds(target: &Path, name: &str) {
        let mut found = entries(target).unwrap();
        found.sort();
        let mut expected = ["kernels", MANIFEST_FILE, name];
        expected.sort_unstable();
        assert_eq!(found, expected);
        assert_eq!(fs::read_to_string(target.join(MANIFEST_FILE)).unwrap(), name);
        assert_eq!(fs::read_to_string(target.join("kernels/a.wgsl")).unwrap(), name);
    }

    #[test]
    fn an_older_bundle_is_replaced_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("deep/out");
        publish(&target, "one");
        publish(&target, "two");
        holds(&target, "two");
        assert_eq!(entries(&folder.path().join("deep")).unwrap(), ["out"]);
        let mine = folder.path().join("mine");
        fs::create_dir(&mine).unwrap();
        fs::write(mine.join("file"), "").unwrap();
        assert!(matches!(Staging::begin(&mine), Err(EmitError::Occupied { .. })));
        assert!(matches!(
            Staging::begin(&mine.join("file")),
            Err(EmitError::NoFolder { .. })
        ));
        #[cfg(unix)]
        assert!(matches!(
            Staging::begin(Path::new("/dev/stdout")),
            Err(EmitError::NoFolder { .. })
        ));
    }

    #[test]
    fn an_empty_folder_is_used_and_stays_the_folder_that_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let opened = File::open(folder.path()).unwrap();
        fs::create_dir(folder.path().join("lost+found")).unwrap();
        publish(folder.path(), "one");
        fs::remove_dir(folder.path().join("lost+found")).unwrap();
        holds(folder.path(), "one");
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let now = fs::metadata(folder.path()).unwrap();
            assert_eq!(opened.metadata().unwrap().ino(), now.ino());
        }
        // Given up, it is empty again.
        let other = tempfile::tempdir().unwrap();
        drop(Staging::begin(other.path()).unwrap());
        assert!(entries(other.path()).unwrap().is_empty());
    }

    #[test]
    fn a_bundle_in_a_mount_point_is_replaced_file_by_file() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        publish(&target, "one");
        let staging = Staging::begin(&target).unwrap();
        staging.write("kernels/a.wgsl", b"two").unwrap();
        staging.write("two", b"").unwrap();
        staging.write(MANIFEST_FILE, b"two").unwrap();
        staging.publish_into_mount().unwrap();
        drop(staging);
        holds(&target, "two");
        assert_eq!(entries(folder.path()).unwrap(), ["out"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_links() {
        let folder = tempfile::tempdir().unwrap();
        let (link, target) = (folder.path().join("link"), folder.path().join("real/out"));
        // At first it leads to nothing.
        std::os::unix::fs::symlink("real/out", &link).unwrap();
        for (name, given) in [("one", link.clone()), ("two", link.join(""))] {
            publish(&given, name);
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
            holds(&target, name);
        }
        let circle = folder.path().join("circle");
        std::os::unix::fs::symlink("circle", &circle).unwrap();
        assert!(matches!(Staging::begin(&circle), Err(EmitError::Io { .. })));
    }

    #[test]
    fn many_at_once_do_not_collide() {
        for has_bundle in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let target = folder.path().join("out");
            if has_bundle {
                publish(&target, "old");
            }
            std::thread::scope(|scope| {
                for thread in 0..8 {
                    let target = &target;
                    scope.spawn(move || (0..10).for_each(|round| publish(target, &format!("{thread}-{round}"))));
                }
            });
            let name = fs::read_to_string(target.join(MANIFEST_FILE)).unwrap();
            holds(&target, &name);
            assert_eq!(entries(folder.path()).unwrap(), ["out"]);
        }
    }
}
