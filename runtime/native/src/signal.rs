//! A value that a callback delivers once and a future waits for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

struct Slot<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

/// Both ends of it: one clone goes into the callback.
pub(crate) struct Signal<T>(Arc<Mutex<Slot<T>>>);

impl<T> Clone for Signal<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Signal<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Slot {
            value: None,
            waker: None,
        })))
    }

    pub(crate) fn set(&self, value: T) {
        let mut slot = self.slot();
        slot.value = Some(value);
        if let Some(waker) = slot.waker.take() {
            drop(slot);
            waker.wake();
        }
    }

    /// Takes the value if it is there.
    pub(crate) fn take(&self) -> Option<T> {
        self.slot().value.take()
    }

    /// Waits for the value and takes it.
    pub(crate) async fn wait(&self) -> T {
        std::future::poll_fn(|context| {
            let mut slot = self.slot();
            match slot.value.take() {
                Some(value) => Poll::Ready(value),
                None => {
                    slot.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn slot(&self) -> MutexGuard<'_, Slot<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
