//! Files that are never half-written.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A file written aside: it takes its name when it is complete, and is removed when it never is.
pub(crate) struct AsideFile {
    writer: Option<BufWriter<File>>,
    aside: PathBuf,
    path: PathBuf,
}

impl AsideFile {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let name = path.file_name();
        let mut name = name
            .ok_or_else(|| io::Error::other("it has no file name"))?
            .to_os_string();
        name.push(format!(".{}.partial", std::process::id()));
        let aside = path.with_file_name(name);
        Ok(Self {
            writer: Some(BufWriter::new(File::create_new(&aside)?)),
            aside,
            path: path.to_path_buf(),
        })
    }

    /// Gives the file its name, in place of one that has it.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.writer = None;
        std::fs::rename(&self.aside, &self.path)
    }

    fn open(&mut self) -> io::Result<&mut BufWriter<File>> {
        self.writer.as_mut().ok_or_else(|| io::Error::other("it is closed"))
    }
}

impl Write for AsideFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.open()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.open()?.flush()
    }
}

impl Drop for AsideFile {
    fn drop(&mut self) {
        // After `finish` there is nothing of this name.
        let _ = std::fs::remove_file(&self.aside);
    }
}
