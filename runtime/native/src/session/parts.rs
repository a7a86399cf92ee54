//! Parts of states, between the device and the host: what saving and restoring sessions is made of.

use super::Session;
use crate::Error;
use crate::device::Readback;

impl Session {
    /// Of each state, in the variant's order, the position before which its entries are lost. With [`Session::read_state`] a
    /// host saves in pieces what it cannot hold whole.
    pub fn intact_from(&self) -> impl Iterator<Item = u64> {
        self.replay.states.all().iter().map(|state| state.intact_from)
    }

    /// Copies a part of a state to the host.
    ///
    /// # Errors
    /// A lost device, or an operation that it refused.
    pub async fn read_state(&self, index: usize, offset: u64, bytes: u64) -> Result<Vec<u8>, Error> {
        let device = &self.model.device;
        let state = &self.replay.states.all()[index];
        let readback = Readback::new(device, bytes).await?;
        let mut encoder = self.encoder();
        encoder.copy_buffer_to_buffer(&state.buffer, offset, readback.buffer(), 0, bytes);
        let reading = readback.submit(device, encoder.finish(), bytes);
        let (part, _) = reading.read(device, <[u8]>::to_vec).await?;
        Ok(part)
    }

    /// Copies a part of a state to the device. The session is nothing to use until [`Session::continue_with`], or
    /// [`Session::reset`].
    pub fn write_state(&mut self, index: usize, offset: u64, bytes: &[u8]) {
        let buffer = &self.replay.states.all()[index].buffer;
        self.model.device.write(buffer, offset, bytes.to_vec());
    }

    /// The states are those of these tokens now; `intact_from` as [`Session::intact_from`] gave it. Feed next, if only
    /// nothing: that makes this a position to come back to, where the states need it.
    pub fn continue_with(&mut self, tokens: Vec<u32>, intact_from: impl IntoIterator<Item = u64>) {
        self.history = tokens;
        self.replay.states.continue_at(self.position(), intact_from);
    }
}
