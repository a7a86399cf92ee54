use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

use super::BundleSource;

/// A bundle in memory: no file system is needed, and the bytes may be part of the program.
///
/// ```no_run
/// # async fn open() -> Result<(), kiln_runtime::Error> {
/// use kiln_runtime::{Bundle, MemorySource};
/// # const MANIFEST: &[u8] = b"";
/// # fn download() -> Vec<u8> { Vec::new() }
///
/// let mut source = MemorySource::new();
/// source.insert("manifest.json", MANIFEST); // e.g. of `include_bytes!`
/// source.insert("kernels/norm_576.wgsl", download());
/// let bundle = Bundle::open(source).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemorySource {
    files: BTreeMap<Cow<'static, str>, Cow<'static, [u8]>>,
}

impl MemorySource {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file, under its path within the bundle; one that is there already is replaced. Static bytes are not copied.
    pub fn insert(&mut self, file: impl Into<Cow<'static, str>>, bytes: impl Into<Cow<'static, [u8]>>) {
        self.files.insert(file.into(), bytes.into());
    }

    fn bytes(&self, file: &str) -> io::Result<&[u8]> {
        let bytes = self.files.get(file).map(AsRef::as_ref);
        bytes.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it is not among the files in memory"))
    }
}

impl<N, B> FromIterator<(N, B)> for MemorySource
where
    N: Into<Cow<'static, str>>,
    B: Into<Cow<'static, [u8]>>,
{
    fn from_iter<I: IntoIterator<Item = (N, B)>>(files: I) -> Self {
        let files = files.into_iter().map(|(file, bytes)| (file.into(), bytes.into()));
        Self { files: files.collect() }
    }
}

impl BundleSource for MemorySource {
    async fn size(&self, file: &str) -> io::Result<u64> {
        Ok(self.bytes(file)?.len() as u64)
    }

    async fn read(&self, file: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes(file)?;
        let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..));
        let piece = rest.and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(piece.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}
