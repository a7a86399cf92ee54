//! A bundle whose bytes JavaScript gives.

use std::io;

use js_sys::{Promise, Uint8Array};
use kiln_runtime::BundleSource;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

#[wasm_bindgen]
extern "C" {
    /// Where the files come from. What it rejects with stays with it: here it is only told that reading failed.
    pub type Source;

    /// Bytes in the file, as a number.
    #[wasm_bindgen(method, catch)]
    fn size(this: &Source, file: &str) -> Result<Promise, JsValue>;

    /// `length` bytes from `offset`, as a `Uint8Array`. Of weight shards the pieces are asked for in order.
    #[wasm_bindgen(method, catch)]
    fn read(this: &Source, file: &str, offset: f64, length: u32) -> Result<Promise, JsValue>;
}

/// The part of the error's text that says who knows more.
const FAILED: &str = "the host could not read it";

impl BundleSource for Source {
    async fn size(&self, file: &str) -> io::Result<u64> {
        let size = settle(Source::size(self, file)).await?;
        let size = size.as_f64().ok_or_else(|| io::Error::other(FAILED))?;
        Ok(size as u64)
    }

    async fn read(&self, file: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let length = u32::try_from(buffer.len()).map_err(io::Error::other)?;
        let bytes = settle(Source::read(self, file, offset as f64, length)).await?;
        let bytes: Uint8Array = bytes.dyn_into().map_err(|_| io::Error::other(FAILED))?;
        if bytes.length() != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.copy_to(buffer);
        Ok(())
    }
}

async fn settle(promise: Result<Promise, JsValue>) -> io::Result<JsValue> {
    let failed = |_| io::Error::other(FAILED);
    JsFuture::from(promise.map_err(failed)?).await.map_err(failed)
}
