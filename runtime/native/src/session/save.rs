//! Sessions to host memory and back.

use super::Session;
use super::saved::{Header, SavedSession, SavedSessionError, StateHeader};
use super::states::StateKind;
use crate::Error;

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
        for (index, state) in self.replay.states.all().iter().enumerate() {
            let bytes = state.kind.used_bytes(tokens.into());
            headers.push(StateHeader {
                name: state.name.clone(),
                bytes,
                intact_from: state.intact_from,
            });
            let mut state = Vec::new();
            for offset in (0..bytes).step_by(PIECE as usize) {
                state.extend(self.read_state(index, offset, PIECE.min(bytes - offset)).await?);
            }
            states.push(state);
        }
        Ok(SavedSession {
            header: Header::new(&self.model, self.context, tokens, headers),
            tokens: self.history.clone(),
            states,
        })
    }

    /// Takes up a saved session in place of what this one holds. What comes next is fed as usual; there are no logits
    /// until then.
    ///
    /// # Errors
    /// Saved with another model or variant, longer than this session's context, or damaged (the session is as it was
    /// then); cancelation, as also when the future is dropped halfway (the session holds nothing then); a lost device.
    pub async fn restore(&mut self, saved: &SavedSession) -> Result<(), Error> {
        self.check_saved(saved)?;
        self.reset()?;
        let mut half = HalfRestored(Some(self));
        if let Some(session) = &mut half.0 {
            session.write_states(saved).await?;
        }
        match half.0.take() {
            Some(session) => session.feed(&[]).await,
            None => Ok(()),
        }
    }

    async fn write_states(&mut self, saved: &SavedSession) -> Result<(), Error> {
        for (index, bytes) in saved.states.iter().enumerate() {
            for (piece, offset) in bytes.chunks(PIECE as usize).zip((0..).step_by(PIECE as usize)) {
                self.write_state(index, offset, piece);
                // Keeps the memory that writes wait in bounded.
                self.synchronize().await?;
            }
        }
        let intact = saved.header.states.iter().map(|state| state.intact_from);
        self.continue_with(saved.tokens.clone(), intact);
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

impl StateKind {
    /// Bytes from the start that hold something after so many tokens.
    fn used_bytes(self, tokens: u64) -> u64 {
        match self {
            Self::Growing { entry } => entry * tokens,
            Self::Ring { entry, slots, .. } => entry * slots.min(tokens),
            Self::Recurrent { bytes } => bytes,
        }
    }
}

/// A session whose states are being overwritten. Dropped before they all are, it forgets everything.
struct HalfRestored<'s>(Option<&'s mut Session>);

impl Drop for HalfRestored<'_> {
    fn drop(&mut self) {
        if let Some(session) = &mut self.0 {
            // A lost device is reported by whatever comes next.
            let _ = session.reset();
        }
    }
}
