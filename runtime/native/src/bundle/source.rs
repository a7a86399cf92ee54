use std::future::Future;
use std::io;
use std::sync::Arc;

/// `Send`, except in browsers, whose objects stay on their thread.
#[cfg(not(target_arch = "wasm32"))]
pub trait MaybeSend: Send {}
#[cfg(not(target_arch = "wasm32"))]
impl<T: Send + ?Sized> MaybeSend for T {}

/// `Sync`, except in browsers, whose objects stay on their thread.
#[cfg(not(target_arch = "wasm32"))]
pub trait MaybeSync: Sync {}
#[cfg(not(target_arch = "wasm32"))]
impl<T: Sync + ?Sized> MaybeSync for T {}

/// `Send`, except in browsers, whose objects stay on their thread.
#[cfg(target_arch = "wasm32")]
pub trait MaybeSend {}
#[cfg(target_arch = "wasm32")]
impl<T: ?Sized> MaybeSend for T {}

/// `Sync`, except in browsers, whose objects stay on their thread.
#[cfg(target_arch = "wasm32")]
pub trait MaybeSync {}
#[cfg(target_arch = "wasm32")]
impl<T: ?Sized> MaybeSync for T {}

/// Reads the files of one bundle: from a folder, out of memory, over HTTP, out of an archive. `file` is always a plain
/// relative path with forward slashes.
///
/// The futures may await whatever executor they run on: loading a model polls them like any other future. They are
/// dropped halfway when loading is canceled or fails.
///
/// ```
/// use std::io;
///
/// /// Files of a bundle on a server.
/// struct Remote { client: Client, folder: String }
/// # struct Client;
/// # impl Client {
/// #     async fn length(&self, _: &str) -> io::Result<u64> { Ok(0) }
/// #     async fn range(&self, _: &str, _: u64, _: &mut [u8]) -> io::Result<()> { Ok(()) }
/// # }
///
/// impl kiln_runtime::BundleSource for Remote {
///     async fn size(&self, file: &str) -> io::Result<u64> {
///         self.client.length(&format!("{}/{file}", self.folder)).await
///     }
///
///     async fn read(&self, file: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
///         self.client.range(&format!("{}/{file}", self.folder), offset, buffer).await
///     }
/// }
/// ```
pub trait BundleSource: MaybeSend + MaybeSync {
    /// Bytes in the file.
    fn size(&self, file: &str) -> impl Future<Output = io::Result<u64>> + MaybeSend;

    /// Fills `buffer` from `offset`. Of weight shards the pieces are asked for in order.
    fn read(&self, file: &str, offset: u64, buffer: &mut [u8]) -> impl Future<Output = io::Result<()>> + MaybeSend;
}

impl<S: BundleSource> BundleSource for Arc<S> {
    fn size(&self, file: &str) -> impl Future<Output = io::Result<u64>> + MaybeSend {
        S::size(self, file)
    }

    fn read(&self, file: &str, offset: u64, buffer: &mut [u8]) -> impl Future<Output = io::Result<()>> + MaybeSend {
        S::read(self, file, offset, buffer)
    }
}
