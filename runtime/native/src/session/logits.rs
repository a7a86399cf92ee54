//! Logits, read back on request.

use std::ops::Range;

use kiln_bundle::StepWord;

use super::{Session, record};
use crate::Error;
use crate::device::Readback;

/// Readback memory used at once.
const READBACK_BYTES: u64 = 32 << 20;

impl Session {
    /// Logits after the last token fed: `[vocab_size]`.
    ///
    /// # Errors
    /// Nothing was fed since the last reset, rewind or generation; cancelation; a lost device.
    pub async fn logits(&mut self) -> Result<Vec<f32>, Error> {
        let rows = self.rows()?;
        self.logits_of_rows(rows.end - 1..rows.end).await
    }

    /// The rows of the last step, for [`Session::logits_of_rows`]: one for each token of the last chunk fed.
    ///
    /// # Errors
    /// As [`Session::logits`].
    pub fn rows(&self) -> Result<Range<u32>, Error> {
        Ok(0..self.rows.ok_or(Error::NothingFed)?)
    }

    /// Logits after each of these rows of the last step: `[rows, vocab_size]`, row-major.
    ///
    /// # Errors
    /// As [`Session::logits`]; rows that the last step did not have.
    pub async fn logits_of_rows(&mut self, rows: Range<u32>) -> Result<Vec<f32>, Error> {
        if rows.end > self.rows()?.end {
            return Err(Error::NothingFed);
        }
        let row_bytes = u64::from(self.model.manifest().model.vocab_size) * 4;
        let most = (READBACK_BYTES / row_bytes).max(1) as usize;
        let mut logits = Vec::new();
        let rows: Vec<u32> = rows.collect();
        for rows in rows.chunks(most) {
            self.read_rows(rows, row_bytes, &mut logits).await?;
        }
        Ok(logits)
    }

    async fn read_rows(&mut self, rows: &[u32], row_bytes: u64, to: &mut Vec<f32>) -> Result<(), Error> {
        let device = &self.model.device;
        let bytes = row_bytes * rows.len() as u64;
        let readback = match self.logits_readback.take() {
            Some(readback) if readback.bytes() >= bytes => readback,
            _ => Readback::new(device, bytes).await?,
        };
        let tokens = self.rows()?.end;
        let mut encoder = self.encoder();
        let row_word = StepWord::Row as u64 * 4;
        for (slot, row) in (0..).zip(rows) {
            let number = u64::from(*row) * 4;
            let step = &self.replay.step;
            encoder.copy_buffer_to_buffer(&self.row_numbers.buffer, number, step, row_word, 4);
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                record(&self.model, &mut pass, &self.replay.head, tokens);
            }
            let target = readback.buffer();
            encoder.copy_buffer_to_buffer(&self.replay.logits, 0, target, slot * row_bytes, row_bytes);
        }
        let reading = readback.submit(device, encoder.finish(), bytes);
        self.cancel.unless_canceled(reading.arrive(device)).await?;
        let copy = |bytes: &[u8]| to.extend(bytemuck::pod_collect_to_vec::<u8, f32>(bytes));
        let ((), readback) = reading.take(copy)?;
        self.logits_readback = Some(readback);
        Ok(())
    }
}
