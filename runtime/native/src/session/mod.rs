//! One conversation with a model: its state on the device, and the tokens that the state stands for.

mod generate;
mod logits;
mod parts;
mod profile;
mod replay;
mod sampling;
// In browsers JavaScript reads and writes saved sessions, in pieces.
#[cfg(not(target_arch = "wasm32"))]
mod save;
#[cfg(not(target_arch = "wasm32"))]
mod saved;
mod states;

use std::collections::VecDeque;
use std::sync::Arc;

use kiln_bundle::StepWord;

use crate::cancel::Obeyed;
use crate::device::{Fence, OwnedBuffer, Readback};
use crate::helper::apart;
use crate::{CancelToken, Error, Model};
pub use generate::{GenerateOptions, Generation, GenerationReport, StopReason};
pub use profile::KernelTime;
use replay::{Call, Replay, record};
pub use sampling::Sampling;
#[cfg(not(target_arch = "wasm32"))]
pub use saved::{SavedSession, SavedSessionError};
pub(crate) use states::MAX_SNAPSHOTS;
use states::WayBack;

/// One conversation with a model: its state on the device, and the tokens that the state stands for. Sessions of one
/// model take turns on the device; each keeps its own state.
///
/// Every future of a session may be dropped halfway: the session is then as after a cancel, at a position that
/// [`Session::position`] tells, and goes on from there.
pub struct Session {
    model: Arc<Model>,
    replay: Replay,
    context: u32,
    /// The tokens in the state; its length is the position.
    history: Vec<u32>,
    /// Tokens in the last step, as long as `Hidden` holds its rows.
    rows: Option<u32>,
    /// The numbers 0, 1, 2 ..: sources for the step buffer's row word.
    row_numbers: OwnedBuffer,
    /// Readback buffers not in use, for one token id each.
    spare: Vec<Readback>,
    logits_readback: Option<Readback>,
    /// Prefill steps submitted and perhaps not finished.
    running: VecDeque<Fence>,
    cancel: Obeyed,
}

/// Prefill steps submitted before the device must have finished those before them: enough to keep it busy, few
/// enough to stop soon when canceled.
const CHUNKS_IN_FLIGHT: usize = 2;

impl Session {
    /// A session for at most `context` positions (absent: the model's default).
    ///
    /// # Errors
    /// A context beyond the model's or the device's, exhausted device memory, a damaged manifest.
    pub async fn new(model: Arc<Model>, context: Option<u32>) -> Result<Self, Error> {
        let facts = &model.manifest().model;
        let asked = context.unwrap_or_else(|| facts.default_context.min(facts.max_context));
        if asked > facts.max_context || asked == 0 {
            return Err(Error::ContextLength {
                asked,
                max: facts.max_context,
            });
        }
        let chunk = facts.chunk;
        let making = Arc::clone(&model);
        let replay = apart("session", async move { Replay::new(&making, asked).await }).await?;
        let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let row_numbers = model.device.buffer("row numbers", u64::from(chunk) * 4, usage).await?;
        let numbers: Vec<u32> = (0..chunk).collect();
        let numbers = bytemuck::cast_slice(&numbers).to_vec();
        model.device.write(&row_numbers.buffer, 0, numbers);
        Ok(Self {
            model,
            replay,
            context: asked,
            history: Vec::new(),
            rows: None,
            row_numbers,
            spare: Vec::new(),
            logits_readback: None,
            running: VecDeque::new(),
            cancel: Obeyed::default(),
        })
    }

    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Most positions that the session can hold.
    pub fn context(&self) -> u32 {
        self.context
    }

    /// Tokens in the state. The token sampled last is not yet among them.
    pub fn position(&self) -> u32 {
        self.history.len() as u32
    }

    /// The tokens in the state.
    pub fn tokens(&self) -> &[u32] {
        &self.history
    }

    /// Ends what the session is doing, from any thread.
    pub fn cancel_token(&self) -> CancelToken {
        self.cancel.token().clone()
    }

    /// Obeys this token from now on.
    pub fn set_cancel_token(&mut self, cancel: CancelToken) {
        self.cancel = Obeyed::new(cancel);
    }

    /// Appends tokens, in steps of at most the model's chunk. Does not wait for the last steps to finish.
    ///
    /// # Errors
    /// Too many tokens for the context or an unknown id (nothing was run then); cancelation (the position says how
    /// many tokens were taken); a lost device.
    pub async fn feed(&mut self, ids: &[u32]) -> Result<(), Error> {
        self.check_tokens(ids)?;
        let chunk = self.model.manifest().model.chunk as usize;
        for ids in ids.chunks(chunk) {
            self.cancel.check()?;
            if self.running.len() >= CHUNKS_IN_FLIGHT
                && let Some(fence) = self.running.pop_front()
            {
                self.wait(&fence).await?;
            }
            let fence = self.step(ids)?;
            self.running.push_back(fence);
        }
        if self.replay.states.is_recurrent() {
            self.mark().await?;
        }
        Ok(())
    }

    /// Waits until all that was submitted is done.
    ///
    /// # Errors
    /// A lost device, or an operation that it refused; cancelation.
    pub async fn synchronize(&self) -> Result<(), Error> {
        self.wait(&self.model.device.submit(None)).await
    }

    async fn wait(&self, fence: &Fence) -> Result<(), Error> {
        self.cancel.unless_canceled(fence.wait(&self.model.device)).await
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// A lost device.
    pub fn reset(&mut self) -> Result<(), Error> {
        self.go(WayBack::Nothing).map(|_| ())
    }

    /// Goes back to an earlier position and returns where the session is then: `position`, or an earlier one (feed what
    /// lies between again). Earlier, perhaps 0, where windowed layers have overwritten what they would need, and where
    /// recurrent layers have no copy of their state as it was (see [`Session::mark`]).
    ///
    /// # Errors
    /// A position ahead of the session, or a lost device.
    pub fn rewind(&mut self, position: u32) -> Result<u32, Error> {
        if position > self.position() {
            return Err(Error::Rewind {
                position,
                current: self.position(),
            });
        }
        let way = match position {
            0 => WayBack::Nothing,
            _ => self.replay.states.way_back(position),
        };
        self.go(way)
    }

    /// Makes the present position one that [`Session::rewind`] can go back to, at the cost of a copy of the states on
    /// the device; of several copies the newest are kept. Costs nothing where rewinding is always possible. With
    /// recurrent layers [`Session::feed`] does so at its end.
    ///
    /// # Errors
    /// A lost device, or an operation that it refused.
    pub async fn mark(&mut self) -> Result<(), Error> {
        if !self.needs_marks() {
            return Ok(());
        }
        self.replay.states.take_snapshot(&self.model.device, false).await
    }

    /// Whether going back may need marks: see [`Session::mark`].
    pub fn needs_marks(&self) -> bool {
        self.replay.states.can_lose_the_past()
    }

    /// Takes the states back, forgets the tokens since, and returns the position.
    fn go(&mut self, way: WayBack) -> Result<u32, Error> {
        if way != WayBack::Stay {
            let mut encoder = self.encoder();
            let position = self.replay.states.go_back(way, &mut encoder);
            self.model.device.submit(Some(encoder.finish()));
            self.history.truncate(position as usize);
            self.rows = None;
            self.model.device.check()?;
        }
        Ok(self.position())
    }

    /// Takes the states back to the tokens of the history, after steps that ran beyond them.
    fn come_back(&mut self) {
        let way = self.replay.states.way_back(self.position());
        // A lost device is reported by whatever comes next.
        let _ = self.go(way);
    }

    /// Rewinds to where `ids` part from the session's tokens, and returns how many of them are in the state then:
    /// what remains is to be fed. At least the last one remains, so that there are logits after it.
    ///
    /// # Errors
    /// A lost device.
    pub fn keep_prefix(&mut self, ids: &[u32]) -> Result<usize, Error> {
        let common = self.history.iter().zip(ids).take_while(|(a, b)| a == b).count();
        let keep = common.min(ids.len().saturating_sub(1));
        Ok(self.rewind(keep as u32)? as usize)
    }

    /// [`Session::keep_prefix`], then feeds the rest. Returns how many tokens were fed.
    ///
    /// # Errors
    /// As [`Session::feed`].
    pub async fn feed_only_new(&mut self, ids: &[u32]) -> Result<usize, Error> {
        self.feed_turn(ids, ids.len()).await
    }

    /// [`Session::feed_only_new`] for a turn of a conversation: what begins at `opening` may be left out by the next turn,
    /// so this is how far that comes back.
    ///
    /// # Errors
    /// As [`Session::feed`].
    pub async fn feed_turn(&mut self, ids: &[u32], opening: usize) -> Result<usize, Error> {
        let kept = self.keep_prefix(ids)?;
        self.check_tokens(&ids[kept..])?;
        let has_mark = self.needs_marks() && kept < opening && opening < ids.len();
        let mut from = kept;
        while from < ids.len() {
            let to = if has_mark && from < opening { opening } else { ids.len() };
            self.feed(&ids[from..to]).await?;
            if to < ids.len() {
                self.mark().await?;
            }
            from = to;
        }
        Ok(ids.len() - kept)
    }

    /// Whether these tokens can be fed.
    ///
    /// # Errors
    /// An unknown id, or more than the context takes.
    pub fn check_tokens(&self, ids: &[u32]) -> Result<(), Error> {
        let vocab = self.model.manifest().model.vocab_size;
        if let Some(&id) = ids.iter().find(|id| **id >= vocab) {
            return Err(Error::TokenOutOfRange { id, vocab });
        }
        let position = self.position();
        if ids.len() > (self.context - position) as usize {
            return Err(Error::ContextOverflow {
                position,
                tokens: ids.len(),
                context: self.context,
            });
        }
        Ok(())
    }

    /// Submits one step, of at most a chunk and already checked.
    fn step(&mut self, ids: &[u32]) -> Result<Fence, Error> {
        self.write_step(ids);
        let tokens = ids.len() as u32;
        let mut encoder = self.encoder();
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            record(&self.model, &mut pass, self.layers(tokens), tokens);
        }
        let fence = self.model.device.submit(Some(encoder.finish()));
        self.history.extend_from_slice(ids);
        self.replay.states.advance_to(self.position());
        self.rows = Some(tokens);
        self.model.device.check()?;
        Ok(fence)
    }

    /// The program that runs a step of so many tokens through the layers.
    fn layers(&self, tokens: u32) -> &[Call] {
        if tokens == 1 {
            &self.replay.decode
        } else {
            &self.replay.prefill
        }
    }

    /// Token ids, position and count of the next step.
    fn write_step(&self, ids: &[u32]) {
        let ids_bytes = bytemuck::cast_slice(ids).to_vec();
        self.model.device.write(&self.replay.tokens, 0, ids_bytes);
        self.write_words(StepWord::Position, &[self.position(), ids.len() as u32, 0]);
    }

    fn write_words(&self, first: StepWord, words: &[u32]) {
        let offset = first as u64 * 4;
        let words = bytemuck::cast_slice(words).to_vec();
        self.model.device.write(&self.replay.step, offset, words);
    }

    fn encoder(&self) -> wgpu::CommandEncoder {
        let descriptor = wgpu::CommandEncoderDescriptor::default();
        self.model.device.gpu.create_command_encoder(&descriptor)
    }
}
