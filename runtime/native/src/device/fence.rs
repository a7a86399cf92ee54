//! Waiting for the device: for submitted work, and for bytes that it copied back.

use std::sync::Arc;

use super::{Device, OwnedBuffer};
use crate::Error;
use crate::signal::Signal;

/// Work that was submitted.
pub(crate) struct Fence {
    done: Signal<()>,
    submission: wgpu::SubmissionIndex,
}

impl Fence {
    pub(crate) async fn wait(self, device: &Device) -> Result<(), Error> {
        device.block_on_submission(self.submission);
        device.check()?;
        self.done.wait().await;
        device.check()
    }
}

/// A mappable buffer that results are copied into, used over and over.
pub(crate) struct Readback {
    buffer: OwnedBuffer,
    mapped: Signal<Result<(), wgpu::BufferAsyncError>>,
}

impl Readback {
    pub(crate) async fn new(device: &Arc<Device>, bytes: u64) -> Result<Self, Error> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        Ok(Self {
            buffer: device.buffer("readback", bytes, usage).await?,
            mapped: Signal::new(),
        })
    }

    pub(crate) fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer.buffer
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.buffer().size()
    }

    /// Asks for the first `bytes`, as they are after what was submitted so far.
    pub(crate) fn request(&self, bytes: u64) {
        let mapped = self.mapped.clone();
        self.buffer()
            .map_async(wgpu::MapMode::Read, ..bytes, move |result| mapped.set(result));
    }

    /// Waits for them and hands them to `read`.
    pub(crate) async fn read(
        &self,
        device: &Device,
        submission: wgpu::SubmissionIndex,
        bytes: u64,
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Error> {
        device.block_on_submission(submission);
        device.check()?;
        let refused = |message: String| Error::Device { message };
        if let Err(error) = self.mapped.wait().await {
            device.check()?;
            return Err(refused(error.to_string()));
        }
        let view = self.buffer().get_mapped_range(..bytes);
        read(&view.map_err(|error| refused(error.to_string()))?);
        self.buffer().unmap();
        Ok(())
    }
}

impl Device {
    /// Submits, and gives a fence for it.
    pub(crate) fn submit(&self, commands: Option<wgpu::CommandBuffer>) -> Fence {
        let submission = self.queue.submit(commands);
        let done = Signal::new();
        let reached = done.clone();
        self.queue.on_submitted_work_done(move || reached.set(()));
        Fence { done, submission }
    }

    /// Natively callbacks come from here; browsers call them themselves.
    fn block_on_submission(&self, submission: wgpu::SubmissionIndex) {
        let wait = wgpu::PollType::Wait {
            submission_index: Some(submission),
            timeout: None,
        };
        // wgpu panics here when the device is lost while it waits; `check` reports the loss.
        let poll = std::panic::AssertUnwindSafe(|| self.gpu.poll(wait));
        match std::panic::catch_unwind(poll) {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => self.faults.lose(error.to_string()),
            Err(_) => self.faults.lose("waiting for it failed".to_string()),
        }
    }
}
