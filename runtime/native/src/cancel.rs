use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::Error;

/// Ends what runs with it, from any thread. Clones are one token.
///
/// A cancel ends **once** what each session (or load) that obeys the token is doing, or else what it does next, with
/// [`Error::Canceled`]: within a token while generating, within a step while feeding. The session is at a token
/// boundary then ([`crate::Session::position`] says which) and goes on as if nothing had happened.
///
/// It takes a lock, so a raw signal handler may not call it; the `ctrlc` crate and executors run theirs on ordinary
/// threads.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Calls of `cancel` so far.
    asked: AtomicU64,
    /// Those of them that `clear` took back.
    cleared: AtomicU64,
    waiting: Mutex<Vec<(u64, Waker)>>,
    waits: AtomicU64,
}

impl CancelToken {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn cancel(&self) {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        let waiting = std::mem::take(&mut *self.0.waiting());
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Whether it was canceled since it was made or cleared, obeyed already or not.
    pub fn is_canceled(&self) -> bool {
        self.0.asked.load(Ordering::SeqCst) > self.0.cleared.load(Ordering::SeqCst)
    }

    /// Takes back a cancel that came too late for what it was meant to end.
    pub fn clear(&self) {
        let asked = self.0.asked.load(Ordering::SeqCst);
        self.0.cleared.fetch_max(asked, Ordering::SeqCst);
    }

    /// # Errors
    /// [`Error::Canceled`] as long as [`CancelToken::is_canceled`].
    pub fn check(&self) -> Result<(), Error> {
        if self.is_canceled() {
            Err(Error::Canceled)
        } else {
            Ok(())
        }
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Vec<(u64, Waker)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who obeys a token: each cancel ends one operation.
#[derive(Debug, Default)]
pub(crate) struct Obeyed {
    token: CancelToken,
    /// Calls of `cancel` that ended an operation.
    done: AtomicU64,
}

impl Obeyed {
    pub(crate) fn new(token: CancelToken) -> Self {
        Self {
            token,
            done: AtomicU64::new(0),
        }
    }

    pub(crate) fn token(&self) -> &CancelToken {
        &self.token
    }

    /// # Errors
    /// [`Error::Canceled`], once for each cancel.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let shared = &self.token.0;
        let asked = shared.asked.load(Ordering::SeqCst);
        let before = self.done.fetch_max(asked, Ordering::SeqCst);
        if asked > before.max(shared.cleared.load(Ordering::SeqCst)) {
            Err(Error::Canceled)
        } else {
            Ok(())
        }
    }

    /// Does work that can be dropped halfway.
    ///
    /// # Errors
    /// The work's, or [`Error::Canceled`] at once when that comes first.
    pub(crate) async fn unless_canceled<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let wait = Wait::new(&self.token.0);
        let mut work = pin!(work);
        std::future::poll_fn(|context| {
            wait.wake(context.waker());
            match self.check() {
                Ok(()) => work.as_mut().poll(context),
                Err(canceled) => Poll::Ready(Err(canceled)),
            }
        })
        .await
    }
}

/// An entry in the token's list of those to wake.
struct Wait<'a> {
    shared: &'a Shared,
    number: u64,
}

impl<'a> Wait<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            number: shared.waits.fetch_add(1, Ordering::Relaxed),
        }
    }

    fn wake(&self, waker: &Waker) {
        let mut waiting = self.shared.waiting();
        match waiting.iter_mut().find(|(number, _)| *number == self.number) {
            Some((_, known)) => known.clone_from(waker),
            None => waiting.push((self.number, waker.clone())),
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.shared.waiting().retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancel_ends_one_operation_of_each_who_obeys() {
        let token = CancelToken::new();
        let (one, two) = (Obeyed::new(token.clone()), Obeyed::new(token.clone()));
        assert!(one.check().is_ok());
        token.cancel();
        assert!(one.check().is_err());
        assert!(one.check().is_ok(), "once");
        assert!(two.check().is_err(), "the other one, too");
        assert!(token.is_canceled() && token.check().is_err());
        token.cancel();
        token.clear();
        assert!(one.check().is_ok() && !token.is_canceled());
        token.cancel();
        assert!(one.check().is_err() && two.check().is_err());
    }

    #[cfg(not(target_arch = "wasm32"))]
    #[test]
    fn a_cancel_wakes_what_waits_and_leaves_nothing_behind() {
        let token = CancelToken::new();
        let obeyed = Obeyed::new(token.clone());
        let canceling = token.clone();
        let thread = std::thread::spawn(move || {
            while canceling.0.waiting().is_empty() {
                std::thread::yield_now();
            }
            canceling.cancel();
        });
        let outcome = pollster::block_on(obeyed.unless_canceled(std::future::pending::<Result<(), Error>>()));
        assert!(matches!(outcome, Err(Error::Canceled)));
        thread.join().unwrap();
        assert_eq!(pollster::block_on(obeyed.unless_canceled(async { Ok(3) })).unwrap(), 3);
        assert!(token.0.waiting().is_empty());
    }
}
