//! The runtime as WebAssembly: what `runtime/js` calls.
//!
//! Everything here is a thin shell: bytes of the bundle are pulled from a JavaScript object, token ids go back through a
//! callback, errors become objects with a code. Choosing an adapter, downloading, caching and text are
//! JavaScript's part.
//!
//! Empty elsewhere: what waits for JavaScript cannot move between threads, as native futures of the runtime must.
#![cfg(target_arch = "wasm32")]

mod error;
mod model;
mod object;
mod session;
mod source;

use kiln_runtime::CancelToken;
use wasm_bindgen::prelude::*;

pub use model::WebModel;
pub use session::WebSession;

#[wasm_bindgen]
extern "C" {
    /// Given by the host before anything else is called. A panic ends the task that it happens in, so the promises
    /// that wait for the task would stay open forever: the host rejects them.
    #[wasm_bindgen(js_namespace = globalThis, js_name = __kilnPanicked)]
    fn panicked(message: &str);
}

#[wasm_bindgen(start)]
fn start() {
    std::panic::set_hook(Box::new(|panic| panicked(&panic.to_string())));
}

/// Stops loading, feeding or generating at the next step.
#[wasm_bindgen]
#[derive(Default)]
pub struct Cancel(CancelToken);

#[wasm_bindgen]
impl Cancel {
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    pub fn cancel(&self) {
        self.0.cancel();
    }
}
