//! Waiting for the device: for submitted work, and for bytes that it copied back.
//!
//! Natively, submitting may block (software devices compute in it), and callbacks come from `poll`, which blocks until a
//! submission is done. So a thread of the device submits, in the order in which it was asked to, and another one waits
//! for one submission after the other. Browsers block nowhere and call back themselves.

use std::sync::Arc;

use super::{Device, OwnedBuffer};
use crate::Error;
use crate::signal::Signal;

/// Work that was submitted.
pub(crate) struct Fence {
    done: Signal<()>,
}

impl Fence {
    /// # Errors
    /// A lost device, or an operation that it refused.
    pub(crate) async fn wait(&self, device: &Device) -> Result<(), Error> {
        self.done.wait().await;
        device.check()
    }
}

/// A mappable buffer that results are copied into, used over and over.
pub(crate) struct Readback {
    buffer: OwnedBuffer,
}

impl Readback {
    pub(crate) async fn new(device: &Arc<Device>, bytes: u64) -> Result<Self, Error> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        Ok(Self {
            buffer: device.buffer("readback", bytes, usage).await?,
        })
    }

    pub(crate) fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer.buffer
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.buffer().size()
    }

    /// Submits commands and asks for the first `bytes`, as they are after them.
    pub(crate) fn submit(self, device: &Device, commands: wgpu::CommandBuffer, bytes: u64) -> Reading {
        let mapped = Signal::new();
        let mapping = Mapping {
            buffer: self.buffer().clone(),
            bytes,
            mapped: mapped.clone(),
        };
        Reading {
            fence: device.submit_and_map(Some(commands), Some(mapping)),
            readback: self,
            bytes,
            mapped,
        }
    }
}

/// What is asked for when something is submitted.
struct Mapping {
    buffer: wgpu::Buffer,
    bytes: u64,
    mapped: Signal<Result<(), wgpu::BufferAsyncError>>,
}

/// Bytes on their way to the host.
pub(crate) struct Reading {
    readback: Readback,
    bytes: u64,
    mapped: Signal<Result<(), wgpu::BufferAsyncError>>,
    fence: Fence,
}

impl Reading {
    /// Waits for them; once. May be dropped halfway and begun again.
    pub(crate) async fn arrive(&self, device: &Device) -> Result<(), Error> {
        self.fence.wait(device).await
    }

    /// Hands the bytes, which have arrived, to `read`, and gives the buffer back.
    pub(crate) fn take<T>(self, read: impl FnOnce(&[u8]) -> T) -> Result<(T, Readback), Error> {
        let refused = |message: String| Error::Device { message };
        match self.mapped.take() {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(refused(error.to_string())),
            None => return Err(refused("a buffer was not mapped in time".to_string())),
        }
        let view = self.readback.buffer().get_mapped_range(..self.bytes);
        let value = read(&view.map_err(|error| refused(error.to_string()))?);
        self.readback.buffer().unmap();
        Ok((value, self.readback))
    }

    /// Both.
    pub(crate) async fn read<T>(self, device: &Device, read: impl FnOnce(&[u8]) -> T) -> Result<(T, Readback), Error> {
        self.arrive(device).await?;
        self.take(read)
    }
}

impl Device {
    /// Writes to a buffer, after what was submitted so far and before what is submitted next.
    pub(crate) fn write(&self, buffer: &wgpu::Buffer, offset: u64, bytes: Vec<u8>) {
        let (queue, buffer) = (self.queue.clone(), buffer.clone());
        self.submitter.run(move || queue.write_buffer(&buffer, offset, &bytes));
    }

    /// Submits, and gives a fence for it.
    pub(crate) fn submit(&self, commands: Option<wgpu::CommandBuffer>) -> Fence {
        self.submit_and_map(commands, None)
    }

    fn submit_and_map(&self, commands: Option<wgpu::CommandBuffer>, mapping: Option<Mapping>) -> Fence {
        let done = Signal::new();
        let reached = Reached(done.clone());
        let queue = self.queue.clone();
        #[cfg(not(target_arch = "wasm32"))]
        let (gpu, faults, waiter) = (self.gpu.clone(), Arc::clone(&self.faults), Arc::clone(&self.waiter));
        self.submitter.run(move || {
            #[cfg_attr(
                target_arch = "wasm32",
                expect(unused_variables, reason = "browsers call back themselves")
            )]
            let submission = queue.submit(commands);
            // Submitting polls as well, so either thread may be the one that calls back: who waits for a mapping waits for
            // its callback, or for a wait that fails.
            #[cfg(not(target_arch = "wasm32"))]
            {
                let lost = reached.0.clone();
                let reached = match mapping {
                    Some(Mapping { buffer, bytes, mapped }) => {
                        buffer.map_async(wgpu::MapMode::Read, ..bytes, move |result| {
                            mapped.set(result);
                            drop(reached);
                        });
                        None
                    }
                    None => Some(reached),
                };
                waiter.run(move || {
                    if !wait_for(&gpu, submission, &faults) {
                        lost.set(());
                    }
                    drop(reached);
                });
            }
            #[cfg(target_arch = "wasm32")]
            match mapping {
                Some(Mapping { buffer, bytes, mapped }) => {
                    buffer.map_async(wgpu::MapMode::Read, ..bytes, move |result| {
                        mapped.set(result);
                        drop(reached);
                    });
                }
                None => queue.on_submitted_work_done(move || drop(reached)),
            }
        });
        Fence { done }
    }
}

/// Tells a fence that it is reached when it is dropped: whatever goes wrong on the way, nobody waits for ever.
struct Reached(Signal<()>);

impl Drop for Reached {
    fn drop(&mut self) {
        self.0.set(());
    }
}

/// Waits, and says whether the device is still there.
#[cfg(not(target_arch = "wasm32"))]
fn wait_for(gpu: &wgpu::Device, submission: wgpu::SubmissionIndex, faults: &super::faults::Faults) -> bool {
    let wait = wgpu::PollType::Wait {
        submission_index: Some(submission),
        timeout: None,
    };
    // wgpu panics here when the device is lost while it waits; `check` reports the loss.
    let poll = std::panic::AssertUnwindSafe(|| gpu.poll(wait));
    let failed = match std::panic::catch_unwind(poll) {
        Ok(Ok(_)) => return true,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "waiting for it failed".to_string(),
    };
    faults.lose(failed);
    false
}
