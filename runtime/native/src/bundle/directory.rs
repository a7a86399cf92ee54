use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::BundleSource;
use crate::helper::Helper;

/// A bundle in a folder. Files are read piece by piece on a thread of the source's own, so that no more of a weight
/// shard than some pieces is in memory and no future waits for a disk.
pub struct DirectorySource {
    root: PathBuf,
    /// The file that was read last.
    open: Arc<Mutex<Option<OpenFile>>>,
    reader: Helper,
}

struct OpenFile {
    path: PathBuf,
    file: File,
    /// Where the next read begins unless it seeks.
    position: u64,
}

impl DirectorySource {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            open: Arc::default(),
            reader: Helper::start("files"),
        }
    }
}

impl BundleSource for DirectorySource {
    async fn size(&self, file: &str) -> io::Result<u64> {
        let path = self.root.join(file);
        self.reader.run(move || size_of_file(&path)).wait().await
    }

    async fn read(&self, file: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let path = self.root.join(file);
        let (open, bytes) = (Arc::clone(&self.open), buffer.len());
        let read = self.reader.run(move || {
            let mut piece = vec![0; bytes];
            let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
            read_piece(&mut open, path, offset, &mut piece).map(|()| piece)
        });
        buffer.copy_from_slice(&read.wait().await?);
        Ok(())
    }
}

/// A pipe would be waited for, and a device may have no end.
fn size_of_file(path: &Path) -> io::Result<u64> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_file() {
        Ok(metadata.len())
    } else {
        Err(io::Error::other("it is no file"))
    }
}

fn read_piece(open: &mut Option<OpenFile>, path: PathBuf, offset: u64, piece: &mut [u8]) -> io::Result<()> {
    // Taken out, so that a file whose read fails is opened anew.
    let mut current = match open.take().filter(|open| open.path == path) {
        Some(current) => current,
        None => {
            size_of_file(&path)?;
            OpenFile {
                file: File::open(&path)?,
                path,
                position: 0,
            }
        }
    };
    if current.position != offset {
        current.file.seek(SeekFrom::Start(offset))?;
    }
    current.file.read_exact(piece)?;
    current.position = offset + piece.len() as u64;
    *open = Some(current);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_opened_once_for_all_its_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, b"0123456789").unwrap();
        let source = DirectorySource::new(folder.path());
        let read = |offset: u64| {
            let mut piece = [0; 4];
            pollster::block_on(source.read("a", offset, &mut piece)).map(|()| piece)
        };
        assert_eq!(&read(0).unwrap(), b"0123");
        // What is open stays readable without its name, where the system allows that at all.
        if std::fs::remove_file(&path).is_ok() {
            assert_eq!(&read(4).unwrap(), b"4567");
            assert_eq!(&read(2).unwrap(), b"2345");
            assert!(read(8).is_err(), "beyond the end");
            assert!(read(0).is_err(), "it was opened anew");
        }
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        let source = DirectorySource::new(folder.path());
        assert!(pollster::block_on(source.size("a")).is_err());
        assert!(pollster::block_on(source.read("a", 0, &mut [0; 1])).is_err());
    }
}
