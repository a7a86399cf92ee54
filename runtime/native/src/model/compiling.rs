//! Kernels on their way to pipelines.

#[cfg(target_arch = "wasm32")]
pub(super) use one_by_one::Compiling;
#[cfg(not(target_arch = "wasm32"))]
pub(super) use parallel::Compiling;

/// On as many threads as the machine runs at once.
#[cfg(not(target_arch = "wasm32"))]
mod parallel {
    use std::panic::AssertUnwindSafe;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex, PoisonError};
    use std::time::Duration;

    use kiln_bundle::Kernel;

    use crate::clock::Stopwatch;
    use crate::helper::{Helper, Outcome};
    use crate::model::kernels::{CompiledKernel, compile};
    use crate::signal::Signal;
    use crate::{Device, Error};

    /// Dropped, it stops after the kernels under way.
    pub(in crate::model) struct Compiling {
        work: Arc<Work>,
        threads: Vec<Outcome<()>>,
    }

    struct Work {
        device: Arc<Device>,
        kernels: Vec<Kernel>,
        texts: Vec<String>,
        checked: bool,
        /// The next kernel to take.
        next: AtomicUsize,
        stopped: AtomicBool,
        compiled: Mutex<Vec<Option<CompiledKernel>>>,
        /// Set when all are compiled or the first has failed.
        done: Signal<Result<Duration, Error>>,
        watch: Stopwatch,
    }

    impl Compiling {
        pub(in crate::model) fn start(
            device: &Arc<Device>,
            kernels: &[Kernel],
            texts: Vec<String>,
            checked: bool,
        ) -> Self {
            let mut compiled = Vec::new();
            compiled.resize_with(kernels.len(), || None);
            let work = Arc::new(Work {
                device: Arc::clone(device),
                kernels: kernels.to_vec(),
                texts,
                checked,
                next: AtomicUsize::new(0),
                stopped: AtomicBool::new(false),
                compiled: Mutex::new(compiled),
                done: Signal::new(),
                watch: Stopwatch::start(),
            });
            if kernels.is_empty() {
                work.done.set(Ok(Duration::ZERO));
            }
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let threads = (0..cores.min(kernels.len())).map(|_| {
                let work = Arc::clone(&work);
                Helper::start("kernels").run(move || work.run())
            });
            Self {
                threads: threads.collect(),
                work,
            }
        }

        /// All of them in their order, and how long it took.
        pub(in crate::model) async fn wait(&self) -> Result<(Vec<CompiledKernel>, Duration), Error> {
            let time = self.work.done.wait().await?;
            let mut compiled = self.work.compiled.lock().unwrap_or_else(PoisonError::into_inner);
            Ok((compiled.drain(..).flatten().collect(), time))
        }

        /// Ends it and waits for its threads.
        pub(in crate::model) async fn stop(mut self) {
            self.work.stopped.store(true, Ordering::Relaxed);
            for thread in std::mem::take(&mut self.threads) {
                thread.wait().await;
            }
        }
    }

    impl Drop for Compiling {
        fn drop(&mut self) {
            self.work.stopped.store(true, Ordering::Relaxed);
        }
    }

    impl Work {
        fn run(&self) {
            while !self.stopped.load(Ordering::Relaxed) {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                let (Some(kernel), Some(text)) = (self.kernels.get(number), self.texts.get(number)) else {
                    return;
                };
                let compiled =
                    AssertUnwindSafe(|| pollster::block_on(compile(&self.device, kernel, text, self.checked)));
                let compiled = std::panic::catch_unwind(compiled).unwrap_or_else(|_| {
                    Err(Error::Kernel {
                        file: kernel.file.clone(),
                        kernel: kernel.name.clone(),
                        message: "the shader compiler panicked".to_string(),
                    })
                });
                match compiled {
                    Ok(kernel) => self.keep(number, kernel),
                    Err(error) => {
                        self.stopped.store(true, Ordering::Relaxed);
                        self.done.set(Err(error));
                    }
                }
            }
        }

        fn keep(&self, number: usize, kernel: CompiledKernel) {
            let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
            compiled[number] = Some(kernel);
            if compiled.iter().all(Option::is_some) {
                self.done.set(Ok(self.watch.elapsed()));
            }
        }
    }
}

/// Browsers have no threads here.
#[cfg(target_arch = "wasm32")]
mod one_by_one {
    use std::sync::Arc;
    use std::time::Duration;

    use kiln_bundle::Kernel;

    use crate::clock::Stopwatch;
    use crate::model::kernels::{CompiledKernel, compile};
    use crate::{Device, Error};

    pub(in crate::model) struct Compiling {
        device: Arc<Device>,
        kernels: Vec<Kernel>,
        texts: Vec<String>,
        checked: bool,
    }

    impl Compiling {
        pub(in crate::model) fn start(
            device: &Arc<Device>,
            kernels: &[Kernel],
            texts: Vec<String>,
            checked: bool,
        ) -> Self {
            Self {
                device: Arc::clone(device),
                kernels: kernels.to_vec(),
                texts,
                checked,
            }
        }

        /// All of them in their order, and how long it took.
        pub(in crate::model) async fn wait(&self) -> Result<(Vec<CompiledKernel>, Duration), Error> {
            let watch = Stopwatch::start();
            let mut compiled = Vec::with_capacity(self.texts.len());
            for (kernel, text) in self.kernels.iter().zip(&self.texts) {
                compiled.push(compile(&self.device, kernel, text, self.checked).await?);
            }
            Ok((compiled, watch.elapsed()))
        }

        pub(in crate::model) async fn stop(self) {}
    }
}
