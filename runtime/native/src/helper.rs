//! Threads that do for futures what would block: wait for the device, read files, compile kernels, hash weights.
//!
//! A future of this crate never blocks the thread that polls it for long, whichever executor that belongs to: it hands
//! such work to a helper thread, which wakes it afterwards. Browsers have no threads and nothing that blocks; there a
//! helper does its work at once.

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use threaded::{Helper, Outcome, apart};

#[cfg(target_arch = "wasm32")]
pub(crate) use inline::{Helper, Outcome, apart};

/// Lets other tasks of the executor run once.
pub(crate) async fn pause() {
    let mut paused = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut paused, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

#[cfg(not(target_arch = "wasm32"))]
mod threaded {
    use std::panic::AssertUnwindSafe;
    use std::sync::mpsc;
    use std::thread::{self, JoinHandle};

    use crate::signal::Signal;

    type Job = Box<dyn FnOnce() + Send>;

    /// Compilers of shaders recurse as deeply as the text that they are given; only what is used becomes memory.
    const STACK_BYTES: usize = 16 << 20;

    /// A thread that does one job after another. It ends with its last job once the helper is dropped, which does not wait
    /// for it.
    pub(crate) struct Helper {
        /// `None` where the system gives no thread: the jobs then run where they are asked for.
        thread: Option<(mpsc::Sender<Job>, JoinHandle<()>)>,
    }

    impl Helper {
        pub(crate) fn start(name: &str) -> Self {
            let (jobs, queue) = mpsc::channel::<Job>();
            let thread = thread::Builder::new()
                .name(format!("kiln {name}"))
                .stack_size(STACK_BYTES)
                .spawn(move || queue.into_iter().for_each(|job| job()));
            Self {
                thread: thread.ok().map(|thread| (jobs, thread)),
            }
        }

        /// Queues a job. Nobody needs to wait for its outcome.
        pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Outcome<T> {
            let done = Signal::new();
            let delivered = done.clone();
            let job = move || delivered.set(std::panic::catch_unwind(AssertUnwindSafe(job)));
            match &self.thread {
                // The thread lives as long as the sender.
                Some((jobs, _)) => drop(jobs.send(Box::new(job))),
                None => job(),
            }
            Outcome(done)
        }

        /// Waits for the jobs queued so far; what is asked for later runs where it is asked for.
        pub(crate) fn join(&mut self) {
            if let Some((jobs, thread)) = self.thread.take() {
                drop(jobs);
                // Whatever is dropped by a job of this thread cannot wait for the thread.
                if thread.thread().id() != thread::current().id() {
                    let _ = thread.join();
                }
            }
        }
    }

    /// What a job gives.
    pub(crate) struct Outcome<T>(Signal<thread::Result<T>>);

    impl<T> Outcome<T> {
        /// Waits for it and takes it; a panic of the job goes on here.
        pub(crate) async fn wait(&self) -> T {
            match self.0.wait().await {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    }

    /// Drives a future on a thread of its own, for work that blocks inside.
    pub(crate) async fn apart<T: Send + 'static>(name: &str, work: impl Future<Output = T> + Send + 'static) -> T {
        let outcome = Helper::start(name).run(move || pollster::block_on(work));
        outcome.wait().await
    }
}

#[cfg(target_arch = "wasm32")]
mod inline {
    pub(crate) struct Helper;

    impl Helper {
        pub(crate) fn start(_name: &str) -> Self {
            Self
        }

        pub(crate) fn run<T>(&self, job: impl FnOnce() -> T) -> Outcome<T> {
            Outcome(std::cell::Cell::new(Some(job())))
        }
    }

    pub(crate) struct Outcome<T>(std::cell::Cell<Option<T>>);

    impl<T> Outcome<T> {
        pub(crate) async fn wait(&self) -> T {
            match self.0.take() {
                Some(value) => value,
                None => std::future::pending().await,
            }
        }
    }

    pub(crate) async fn apart<T>(_name: &str, work: impl Future<Output = T>) -> T {
        work.await
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, mpsc};

    use super::*;

    #[test]
    fn jobs_run_in_their_order_and_join_waits_for_them() {
        let mut helper = Helper::start("test");
        let (send, receive) = mpsc::channel();
        let done = Arc::new(AtomicU32::new(0));
        for number in 0..20 {
            let (send, done) = (send.clone(), Arc::clone(&done));
            helper.run(move || {
                done.fetch_add(1, Ordering::Relaxed);
                send.send(number)
            });
        }
        helper.join();
        assert_eq!(done.load(Ordering::Relaxed), 20);
        assert!(receive.try_iter().eq(0..20));
    }

    #[test]
    fn a_panic_goes_on_where_the_outcome_is_awaited_and_the_helper_lives() {
        let helper = Helper::start("test");
        let outcome = helper.run(|| panic!("of the job"));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| -> () {
            pollster::block_on(outcome.wait());
        }));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"of the job"));
        assert_eq!(pollster::block_on(helper.run(|| 7).wait()), 7);
    }

    #[test]
    fn a_helper_dropped_by_its_own_job_does_not_wait_for_itself() {
        let helper = Arc::new(std::sync::Mutex::new(Some(Helper::start("test"))));
        let inner = Arc::clone(&helper);
        let outcome = helper.lock().unwrap().as_ref().map(|helper| {
            helper.run(move || {
                if let Some(mut helper) = inner.lock().unwrap().take() {
                    helper.join();
                }
            })
        });
        pollster::block_on(outcome.unwrap().wait());
    }
}
