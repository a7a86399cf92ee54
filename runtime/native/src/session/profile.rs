//! GPU time of each kernel, by timestamps around every dispatch.

use std::collections::BTreeMap;
use std::time::Duration;

use kiln_bundle::StepWord;

use super::{Call, Session};
use crate::Error;
use crate::device::Readback;

/// What one kernel takes in one step.
#[derive(Clone, Debug)]
pub struct KernelTime {
    pub kernel: String,
    pub dispatches: u32,
    pub total: Duration,
}

/// WebGPU's limit is 4096 timestamps a set; two for each dispatch.
const DISPATCHES_IN_A_SET: usize = 2048;

impl Session {
    /// Runs one step of at most a chunk of tokens, with head and greedy sampling, each dispatch timed on its own, which
    /// keeps dispatches from overlapping; the longest kernel first. Afterwards the session is where it was, as far as
    /// it can go back there (see [`Session::rewind`]).
    ///
    /// # Errors
    /// No timestamp queries (see [`crate::DeviceOptions::timestamps`]), no token or tokens that do not fit, a lost device.
    pub async fn profile(&mut self, ids: &[u32]) -> Result<Vec<KernelTime>, Error> {
        let device = &self.model.device;
        if !device.has_timestamps() {
            return Err(Error::NoTimestamps {
                adapter: device.name().to_string(),
            });
        }
        let ids = &ids[..ids.len().min(self.model.manifest().model.chunk as usize)];
        if ids.is_empty() {
            return Err(Error::NoTokens);
        }
        self.check_tokens(ids)?;
        let tokens = ids.len() as u32;
        self.write_step(ids);
        self.write_words(StepWord::Row, &[tokens - 1]);
        self.rows = None;
        self.replay.states.advance_to(self.position() + tokens);
        let times = Excursion(self).time(tokens).await?;
        self.model.device.check()?;
        Ok(times)
    }
}

/// Steps of a session that its history does not tell of; afterwards, or dropped halfway, it is back where it was.
struct Excursion<'s>(&'s mut Session);

impl Drop for Excursion<'_> {
    fn drop(&mut self) {
        self.0.come_back();
    }
}

impl Excursion<'_> {
    async fn time(self, tokens: u32) -> Result<Vec<KernelTime>, Error> {
        let session = &*self.0;
        let parts = [
            (session.layers(tokens), tokens),
            (&session.replay.head, tokens),
            (&session.replay.greedy, 1),
        ];
        let calls: Vec<(&Call, u32)> = parts
            .into_iter()
            .flat_map(|(program, tokens)| program.iter().map(move |call| (call, tokens)))
            .collect();
        let mut times = BTreeMap::<usize, (u32, f64)>::new();
        for calls in calls.chunks(DISPATCHES_IN_A_SET) {
            for ((call, _), nanoseconds) in calls.iter().zip(session.time_calls(calls).await?) {
                let entry = times.entry(call.kernel).or_default();
                entry.0 += 1;
                entry.1 += nanoseconds;
            }
        }
        let kernels = &session.model.variant().kernels;
        let mut times: Vec<KernelTime> = times
            .into_iter()
            .map(|(kernel, (dispatches, nanoseconds))| KernelTime {
                kernel: kernels[kernel].name.clone(),
                dispatches,
                total: Duration::from_nanos(nanoseconds as u64),
            })
            .collect();
        times.sort_by_key(|time| std::cmp::Reverse(time.total));
        Ok(times)
    }
}

impl Session {
    /// Nanoseconds of each dispatch.
    async fn time_calls(&self, calls: &[(&Call, u32)]) -> Result<Vec<f64>, Error> {
        let device = &self.model.device;
        let count = calls.len() as u32 * 2;
        let bytes = u64::from(count) * 8;
        let set = device.gpu.create_query_set(&wgpu::QuerySetDescriptor {
            label: None,
            ty: wgpu::QueryType::Timestamp,
            count,
        });
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let resolved = device.buffer("timestamps", bytes, usage).await?;
        let readback = Readback::new(device, bytes).await?;
        let mut encoder = self.encoder();
        for (index, (call, tokens)) in (0..).zip(calls) {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: None,
                timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                    query_set: &set,
                    beginning_of_pass_write_index: Some(index * 2),
                    end_of_pass_write_index: Some(index * 2 + 1),
                }),
            });
            pass.set_pipeline(&self.model.kernels[call.kernel].pipeline);
            call.record(&mut pass, *tokens);
        }
        encoder.resolve_query_set(&set, 0..count, &resolved.buffer, 0);
        encoder.copy_buffer_to_buffer(&resolved.buffer, 0, readback.buffer(), 0, bytes);
        let reading = readback.submit(device, encoder.finish(), bytes);
        let period = f64::from(device.queue.get_timestamp_period());
        let nanoseconds = |bytes: &[u8]| {
            let ticks = bytemuck::pod_collect_to_vec::<u8, u64>(bytes);
            let pairs = ticks.chunks_exact(2);
            pairs
                .map(|pair| pair[1].saturating_sub(pair[0]) as f64 * period)
                .collect()
        };
        let (times, _) = reading.read(device, nanoseconds).await?;
        Ok(times)
    }
}
