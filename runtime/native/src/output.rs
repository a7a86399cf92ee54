//! Files that are never half-written, whatever their name stands for.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// An output. A plain file is written aside: it takes its name when it is complete, and is removed when it never is. A link
/// stays a link, and what it leads to gets the content. Pipes, terminals and the like are written as they are.
pub(crate) struct OutputFile {
    /// `None` once it is closed.
    writer: Option<BufWriter<Box<dyn Write>>>,
    /// `None` for what is written as it is.
    aside: Option<Aside>,
}

/// A plain file in the making.
struct Aside {
    path: PathBuf,
    target: PathBuf,
    /// The target has other names too, so that it must stay the file that it is.
    shared: bool,
    /// There was no target; an empty one was made, to find the place that a link leads to.
    made: bool,
}

impl OutputFile {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        if let Some(stream) = standard_stream(path) {
            return Ok(Self::direct(stream));
        }
        let (metadata, made) = match fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => match fs::symlink_metadata(path) {
                // A link that leads to nothing yet.
                Ok(_) => (Some(File::create(path)?.metadata()?), true),
                Err(_) => (None, false),
            },
            found => (Some(found?), false),
        };
        let Some(metadata) = metadata else {
            let name = path.file_name();
            name.ok_or_else(|| io::Error::other("it has no file name"))?;
            return Self::aside(path.to_path_buf(), None, made);
        };
        if metadata.is_dir() {
            return Err(io::Error::other("it is a folder; name a file"));
        }
        if is_disk(&metadata) {
            return Err(io::Error::other("it is a disk; name a file"));
        }
        if !metadata.is_file() {
            let direct = OpenOptions::new().write(true).open(path)?;
            return Ok(Self::direct(Box::new(direct)));
        }
        match Self::aside(fs::canonicalize(path)?, Some(&metadata), made) {
            // The file may be changed, its folder may not.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                Ok(Self::direct(Box::new(File::create(path)?)))
            }
            begun => begun,
        }
    }

    fn direct(to: Box<dyn Write>) -> Self {
        Self {
            writer: Some(BufWriter::new(to)),
            aside: None,
        }
    }

    /// `existing`: of the file that will be replaced.
    fn aside(target: PathBuf, existing: Option<&Metadata>, made: bool) -> io::Result<Self> {
        let (file, path) = new_file_beside(&target)?;
        let aside = Aside {
            path,
            target,
            shared: existing.is_some_and(has_other_names),
            made,
        };
        if let Some(existing) = existing {
            file.set_permissions(existing.permissions())?;
        }
        Ok(Self {
            writer: Some(BufWriter::new(Box::new(file))),
            aside: Some(aside),
        })
    }

    /// Gives the file its name, in place of one that has it.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.writer = None;
        let Some(aside) = &mut self.aside else {
            return Ok(());
        };
        if aside.shared {
            fs::copy(&aside.path, &aside.target)?;
        } else {
            fs::rename(&aside.path, &aside.target)?;
        }
        aside.made = false;
        Ok(())
    }

    fn open(&mut self) -> io::Result<&mut BufWriter<Box<dyn Write>>> {
        self.writer.as_mut().ok_or_else(|| io::Error::other("it is closed"))
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.open()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.open()?.flush()
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // After `finish` there is nothing of this name.
        let _ = fs::remove_file(&self.path);
        if self.made {
            let _ = fs::remove_file(&self.target);
        }
    }
}

/// Makes a file whose name nobody else has, in this process or another.
fn new_file_beside(target: &Path) -> io::Result<(File, PathBuf)> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    loop {
        let mut name = target.file_name().unwrap_or_default().to_os_string();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        name.push(format!(".{}-{number}.partial", std::process::id()));
        let path = target.with_file_name(name);
        match File::create_new(&path) {
            // Left over from another process of the same id.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return made.map(|file| (file, path)),
        }
    }
}

/// Paths that stand for this process's own streams. What is behind them may be a file that others write to as well: it is
/// neither opened again, which would begin at its start, nor replaced.
fn standard_stream(path: &Path) -> Option<Box<dyn Write>> {
    let is = |names: [&str; 3]| cfg!(unix) && names.iter().any(|name| path == Path::new(name));
    if is(["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"]) {
        return Some(Box::new(io::stdout()));
    }
    if is(["/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"]) {
        return Some(Box::new(io::stderr()));
    }
    None
}

/// Writing to it would destroy what is on it.
#[cfg(unix)]
fn is_disk(metadata: &Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    metadata.file_type().is_block_device()
}

#[cfg(not(unix))]
fn is_disk(_: &Metadata) -> bool {
    false
}

#[cfg(unix)]
fn has_other_names(metadata: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    metadata.nlink() > 1
}

#[cfg(not(unix))]
fn has_other_names(_: &Metadata) -> bool {
    false
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn write(path: &Path, text: &str) {
        let mut file = OutputFile::create(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.finish().unwrap();
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn links_stay_and_what_they_lead_to_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("real")).unwrap();
        symlink("real/file", at("link")).unwrap();
        symlink("link", at("second")).unwrap();
        for (name, text) in [("second", "into nothing"), ("link", "again"), ("second", "once more")] {
            write(&at(name), text);
            assert!(fs::symlink_metadata(at(name)).unwrap().is_symlink());
            assert_eq!(read(&at("real/file")), text);
        }
        assert_eq!(names(&at("real")), ["file"]);
        assert_eq!(names(folder.path()), ["link", "real", "second"]);
    }

    #[test]
    fn a_file_keeps_its_other_names_and_its_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write(&at("one"), "1");
        fs::set_permissions(at("one"), fs::Permissions::from_mode(0o600)).unwrap();
        write(&at("one"), "2");
        assert_eq!(fs::metadata(at("one")).unwrap().mode() & 0o777, 0o600);
        fs::hard_link(at("one"), at("two")).unwrap();
        write(&at("one"), "3");
        assert_eq!([read(&at("one")), read(&at("two"))], ["3", "3"]);
        assert_eq!(names(folder.path()), ["one", "two"]);
    }

    #[test]
    fn pipes_and_devices_are_written_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || read(&pipe)
        });
        write(&pipe, "through");
        assert_eq!(reader.join().unwrap(), "through");
        assert_eq!(names(folder.path()), ["pipe"]);
        // Not the device itself: a test that fails would replace it, where it may.
        symlink("/dev/null", folder.path().join("null")).unwrap();
        write(&folder.path().join("null"), "gone");
        assert!(!fs::metadata(folder.path().join("null")).unwrap().is_file());
        let refused = OutputFile::create(folder.path()).err().unwrap();
        assert!(refused.to_string().contains("folder"), "{refused}");
    }

    #[test]
    fn many_at_once_do_not_collide() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        // As a killed process of this id would leave it.
        fs::write(folder.path().join(format!("file.{}-0.partial", std::process::id())), "").unwrap();
        let texts: Vec<String> = (0..8).map(|number| number.to_string().repeat(10_000)).collect();
        std::thread::scope(|scope| {
            for text in &texts {
                scope.spawn(|| write(&path, text));
            }
        });
        assert!(texts.contains(&read(&path)));
        assert_eq!(names(folder.path()).len(), 2);
    }

    #[test]
    fn what_is_never_complete_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write(&at("old"), "old");
        symlink("nothing", at("link")).unwrap();
        for name in ["old", "new", "link"] {
            let mut file = OutputFile::create(&at(name)).unwrap();
            file.write_all(b"half").unwrap();
        }
        assert_eq!(read(&at("old")), "old");
        assert_eq!(names(folder.path()), ["link", "old"]);
    }
}
