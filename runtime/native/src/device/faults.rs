//! Errors that a device reports on its own, kept until the next check.

use std::sync::{Arc, Mutex, PoisonError};

use crate::Error;

#[derive(Default)]
pub(super) struct Faults(Mutex<State>);

#[derive(Default)]
struct State {
    lost: Option<String>,
    /// The first error outside any error scope; whatever follows is a consequence of it.
    refused: Option<String>,
}

impl Faults {
    /// Registers the callbacks (without them wgpu panics on an error).
    pub(super) fn watch(device: &wgpu::Device) -> Arc<Self> {
        let faults = Arc::new(Self::default());
        let lost = Arc::clone(&faults);
        device.set_device_lost_callback(move |reason, message| {
            // Dropping the last handle is reported as a loss, too: nobody looks at it then.
            let text = if message.is_empty() {
                format!("{reason:?}")
            } else {
                message
            };
            lost.lose(text);
        });
        let refused = Arc::clone(&faults);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            refused.state().refused.get_or_insert(error.to_string());
        }));
        faults
    }

    /// Notes a loss; the first reason stays.
    pub(super) fn lose(&self, reason: String) {
        self.state().lost.get_or_insert(reason);
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let state = self.state();
        if let Some(reason) = &state.lost {
            return Err(Error::DeviceLost { reason: reason.clone() });
        }
        match &state.refused {
            Some(message) => Err(Error::Device {
                message: message.clone(),
            }),
            None => Ok(()),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
