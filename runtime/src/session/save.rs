//! Sessions to host memory and back.

use super::Session;
use super::saved::{Header, SavedSession, SavedSessionError, StateHeader};
use super::states::State;
use crate::Error;
use crate::device::Readback;

/// Bytes copied between host and device at once.
const PIECE: u64 = 16 << 20;

impl Session {
    /// Copies tokens and states to the host: only what the tokens so far take, however long the context.
    ///
    /// # Errors
    /// A lost device, or an operation that it refused.
    pub async fn save(&self) -> Result<SavedSession, Error> {
        let tokens = self.position();
        let (mut headers, mut states) = (Vec::new(), Vec::new());
        let readback = Readback::new(&self.model.device, PIECE).await?;
        for state in self.replay.states.all() {
            let bytes = state.kind.used_bytes(tokens.into());
            headers.push(StateHeader {
                name: state.name.clone(),
                bytes,
                intact_from: state.intact_from,
            });
            states.push(self.download(state, bytes, &readback).await?);
        }
        Ok(SavedSession {
            header: Header::new(&self.model, self.context, tokens, headers),
            tokens: self.history.clone(),
            states,
        })
    }

    async fn download(&self, state: &State, bytes: u64, readback: &Readback) -> Result<Vec<u8>, Error> {
        let device = &self.model.device;
        let mut all = Vec::new();
        for offset in (0..bytes).step_by(PIECE as usize) {
            let piece = PIECE.min(bytes - offset);
            let mut encoder = self.encoder();
            encoder.copy_buffer_to_buffer(&state.buffer, offset, readback.buffer(), 0, piece);
            let submission = device.queue.submit([encoder.finish()]);
            readback.request(piece);
            let append = |bytes: &[u8]| all.extend_from_slice(bytes);
            readback.read(device, submission, piece, append).await?;
        }
        Ok(all)
    }

    /// Takes up a saved session in place of what this one holds. What comes next is fed as usual; there are no logits
    /// until then.
    ///
    /// # Errors
    /// Saved with another model or variant, longer than this session's context, or damaged (the session is as it was
    /// then); a lost device.
    pub async fn restore(&mut self, saved: &SavedSession) -> Result<(), Error> {
        self.check_saved(saved)?;
        self.reset()?;
        let device = self.model.device.clone();
        for (state, bytes) in self.replay.states.all().iter().zip(&saved.states) {
            for (piece, offset) in bytes.chunks(PIECE as usize).zip((0..).step_by(PIECE as usize)) {
                device.queue.write_buffer(&state.buffer, offset, piece);
                // Keeps the memory that writes wait in bounded.
                device.submit(None).wait(&device).await?;
            }
        }
        self.history.clone_from(&saved.tokens);
        let intact = saved.header.states.iter().map(|state| state.intact_from);
        self.replay.states.continue_at(self.position(), intact);
        if self.replay.states.is_recurrent() {
            self.mark().await?;
        }
        Ok(())
    }

    fn check_saved(&self, saved: &SavedSession) -> Result<(), SavedSessionError> {
        let (header, model) = (&saved.header, &self.model);
        if header.fingerprint != model.fingerprint() {
            return Err(SavedSessionError::OtherModel {
                saved: header.model.clone(),
                model: model.manifest().model.name.clone(),
            });
        }
        if header.variant != model.variant().name {
            return Err(SavedSessionError::OtherVariant {
                saved: header.variant.clone(),
                running: model.variant().name.clone(),
            });
        }
        let tokens = saved.tokens.len();
        if tokens > self.context as usize {
            return Err(SavedSessionError::Context {
                tokens: header.tokens,
                context: self.context,
            });
        }
        let mismatch = |what: String| Err(SavedSessionError::Mismatch { what });
        let vocab = model.manifest().model.vocab_size;
        if let Some(id) = saved.tokens.iter().find(|id| **id >= vocab) {
            return mismatch(format!("token id {id} is outside the vocabulary of {vocab}"));
        }
        let states = self.replay.states.all();
        if states.len() != saved.states.len() || header.states.len() != saved.states.len() {
            return mismatch(format!(
                "it has {} states, the model {}",
                saved.states.len(),
                states.len()
            ));
        }
        for ((state, header), bytes) in states.iter().zip(&header.states).zip(&saved.states) {
            let expected = state.kind.used_bytes(tokens as u64);
            if bytes.len() as u64 != expected || header.intact_from > tokens as u64 {
                return mismatch(format!("{} bytes of {}, expected {expected}", bytes.len(), state.name));
            }
        }
        Ok(())
    }
}
