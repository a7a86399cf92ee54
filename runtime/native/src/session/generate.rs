//! The decode loop. It stays on the device: a sampled token feeds the next step there, steps are submitted ahead,
//! and their ids come back through a ring while later steps run.

use std::collections::VecDeque;
use std::time::Duration;

use kiln_bundle::{Feature, NOT_FINITE, RULED_OUT, StepWord};

use super::sampling::{Sampling, history_entries};
use super::{Session, record};
use crate::Error;
use crate::clock::Stopwatch;
use crate::device::{Readback, Reading};
use crate::helper::pause;

#[derive(Clone, Debug)]
pub struct GenerateOptions {
    pub max_tokens: u32,
    pub sampling: Sampling,
    /// Ids that end the generation; absent: the model's end tokens.
    pub stop_ids: Option<Vec<u32>>,
    /// Steps submitted before the first of them is read.
    pub steps_in_flight: u32,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_tokens: u32::MAX,
            sampling: Sampling::default(),
            stop_ids: None,
            steps_in_flight: 4,
        }
    }
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// An end token.
    EndOfText,
    MaxTokens,
    /// The session's context is full.
    ContextFull,
    /// The session's cancel token.
    Canceled,
    /// A stop text of the caller.
    StopText,
    /// The caller stopped asking.
    Dropped,
}

/// What a generation did. Times are of the host's clock.
#[derive(Clone, Copy, Debug)]
pub struct GenerationReport {
    pub tokens: u32,
    pub stop: StopReason,
    /// From the start (after the prompt was submitted) to the first token in the host's hands.
    pub first_token: Duration,
    /// From the start to the last token.
    pub total: Duration,
    /// Encoding and submitting, all steps together.
    pub encoding: Duration,
    /// Steps submitted, also those that ran past the end.
    pub steps: u32,
}

impl GenerationReport {
    /// Mean time of a token after the first; `None` with fewer than two.
    pub fn per_token(&self) -> Option<Duration> {
        let steps = self.tokens.checked_sub(1).filter(|steps| *steps > 0)?;
        Some((self.total - self.first_token) / steps)
    }
}

/// A running generation. Dropping it leaves the session at the last token taken: what steps that ran past it have
/// written lies beyond the session's position, is never read, and is overwritten by what is fed next. Recurrent states
/// are taken back to a copy made before, and the session to its position (see [`Session::rewind`]).
pub struct Generation<'s> {
    session: &'s mut Session,
    stop_ids: Vec<u32>,
    /// Tokens that may be sampled.
    limit: u32,
    limit_reason: StopReason,
    ahead: usize,
    /// Whether the logits are adjusted before a token is picked.
    adjusts: bool,
    greedy: bool,
    /// Tokens on their way, the next one first.
    flights: VecDeque<Reading>,
    submitted: u32,
    last: Option<u32>,
    /// Landed, and not yet given to the caller: a future dropped in between loses no token.
    landed: Option<u32>,
    watch: Stopwatch,
    report: GenerationReport,
    stopped: bool,
}

impl Session {
    /// Continues after the tokens fed.
    ///
    /// # Errors
    /// Nothing was fed since the last reset, rewind or generation; sampling that means nothing (see [`Sampling`]).
    pub fn generate(&mut self, options: GenerateOptions) -> Result<Generation<'_>, Error> {
        let rows = self.rows()?;
        let facts = &self.model.manifest().model;
        let sampling = options.sampling;
        sampling.check(facts.vocab_size)?;
        let stop_ids = options.stop_ids.unwrap_or_else(|| facts.eos_token_ids.clone());
        let adjusts = self.write_adjustments(&sampling, &stop_ids)?;
        // All words, in their order: an earlier generation may have advanced the first ones.
        let words: [u32; StepWord::COUNT] = [
            self.position() - rows.end,
            rows.end,
            rows.end - 1,
            0,
            sampling.seed,
            sampling.temperature.to_bits(),
            sampling.top_k,
            sampling.top_p.to_bits(),
            sampling.min_p.to_bits(),
        ];
        self.write_words(StepWord::Position, &words);
        // The last token sampled needs no position.
        let room = self.context - self.position() + 1;
        let (limit, limit_reason) = if options.max_tokens <= room {
            (options.max_tokens, StopReason::MaxTokens)
        } else {
            (room, StopReason::ContextFull)
        };
        // Rings bear only so many steps past the end; the output ring must not lap itself.
        let ahead = options
            .steps_in_flight
            .min(self.replay.states.ring_slack().unwrap_or(u32::MAX))
            .min(self.replay.output_slots)
            .max(1);
        Ok(Generation {
            stop_ids,
            limit,
            limit_reason,
            ahead: ahead as usize,
            adjusts,
            greedy: sampling.is_greedy(),
            flights: VecDeque::new(),
            submitted: 0,
            last: None,
            landed: None,
            watch: Stopwatch::start(),
            report: GenerationReport {
                tokens: 0,
                stop: StopReason::Dropped,
                first_token: Duration::ZERO,
                total: Duration::ZERO,
                encoding: Duration::ZERO,
                steps: 0,
            },
            stopped: false,
            session: self,
        })
    }

    /// Writes what the device needs to adjust logits, and says whether it has to: the settings, and the tokens so far, which
    /// it continues by itself.
    fn write_adjustments(&self, sampling: &Sampling, stop_ids: &[u32]) -> Result<bool, Error> {
        let vocab = self.model.manifest().model.vocab_size;
        let Some(words) = sampling.adjustments(stop_ids, self.position(), vocab) else {
            return Ok(false);
        };
        let (bytes, most) = (words.len() as u64 * 4, self.replay.rules.size());
        if bytes > most {
            return Err(Error::TooManyRules { bytes, most });
        }
        let entries = history_entries(&self.history, vocab)?;
        // In the order of what is submitted, not at once.
        let device = &self.model.device;
        device.write(&self.replay.rules, 0, bytemuck::cast_slice(&words).to_vec());
        device.write(&self.replay.history, 0, bytemuck::cast_slice(&entries).to_vec());
        Ok(true)
    }
}

impl Generation<'_> {
    /// The next token, or `None` when it ended; an end token is given, too. Other tasks of the executor have their turn
    /// before each token. The future may be dropped halfway: the next one gives the same token.
    ///
    /// # Errors
    /// Logits that are no numbers, or no token that is not ruled out; cancelation, a lost device, an operation that it
    /// refused; the generation has ended then. All tokens given before stay.
    pub async fn next(&mut self) -> Result<Option<u32>, Error> {
        if self.landed.is_none() && !self.stopped {
            let landed = self.land().await;
            if let Err(error) = landed {
                self.stop(match error {
                    Error::Canceled => StopReason::Canceled,
                    _ => self.report.stop,
                });
                return Err(error);
            }
        }
        if self.landed.is_some() && !self.stopped {
            // The device must not wait for the caller.
            self.submit_ahead().await?;
        }
        Ok(self.landed.take())
    }

    /// Waits for the next token, if there is one.
    async fn land(&mut self) -> Result<(), Error> {
        pause().await;
        self.session.cancel.check()?;
        self.submit_ahead().await?;
        let device = &self.session.model.device;
        let Some(flight) = self.flights.front() else {
            self.stop(self.limit_reason);
            return Ok(());
        };
        self.session.cancel.unless_canceled(flight.arrive(device)).await?;
        // Nothing is awaited from here on.
        let Some(flight) = self.flights.pop_front() else {
            return Ok(());
        };
        let (id, readback) = flight.take(bytemuck::pod_read_unaligned::<u32>)?;
        self.session.spare.push(readback);
        if let NOT_FINITE | RULED_OUT = id {
            return Err(self.no_token(id));
        }
        if let Some(before) = self.last.replace(id) {
            self.session.history.push(before);
        }
        self.landed = Some(id);
        self.report.total = self.watch.elapsed();
        if self.report.tokens == 0 {
            self.report.first_token = self.report.total;
        }
        self.report.tokens += 1;
        if self.stop_ids.contains(&id) {
            self.stop(StopReason::EndOfText);
        } else if self.report.tokens == self.limit {
            self.stop(self.limit_reason);
        }
        Ok(())
    }

    /// What it did so far.
    pub fn report(&self) -> GenerationReport {
        self.report
    }

    fn stop(&mut self, reason: StopReason) {
        self.stopped = true;
        self.report.stop = reason;
    }

    async fn submit_ahead(&mut self) -> Result<(), Error> {
        while self.flights.len() < self.ahead && self.submitted < self.limit {
            let spare = self.session.spare.pop();
            let readback = match spare {
                Some(readback) => readback,
                None => Readback::new(&self.session.model.device, 4).await?,
            };
            if self.session.replay.states.is_snapshot_due() {
                let session = &mut *self.session;
                session.replay.states.take_snapshot(&session.model.device, true).await?;
            }
            self.submit(readback)?;
        }
        Ok(())
    }

    /// Submits the sampling of one token: after the prompt, or after a step for the token sampled before.
    fn submit(&mut self, readback: Readback) -> Result<(), Error> {
        let watch = Stopwatch::start();
        let session = &mut *self.session;
        let model = &session.model;
        let mut encoder = session.encoder();
        let replay = &session.replay;
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            // The first token follows from the last row of the step that was fed, the others from steps of one.
            let tokens = if self.submitted == 0 {
                session.rows.unwrap_or(1)
            } else {
                1
            };
            if self.submitted > 0 {
                record(model, &mut pass, &replay.decode, 1);
            }
            record(model, &mut pass, &replay.head, tokens);
            if self.adjusts {
                record(model, &mut pass, &replay.adjust, 1);
            }
            let sample = if self.greedy { &replay.greedy } else { &replay.sample };
            record(model, &mut pass, sample, 1);
        }
        let slot = u64::from(self.submitted % replay.output_slots) * 4;
        encoder.copy_buffer_to_buffer(&replay.output, slot, readback.buffer(), 0, 4);
        let flight = readback.submit(&model.device, encoder.finish(), 4);
        model.device.check()?;
        if self.submitted > 0 {
            session.rows = None;
            // At this moment the history lacks the tokens in flight and the last one taken.
            let position = session.position() + self.flights.len() as u32 + 1;
            session.replay.states.advance_to(position);
        }
        self.flights.push_back(flight);
        self.submitted += 1;
        self.report.steps = self.submitted;
        self.report.encoding += watch.elapsed();
        Ok(())
    }

    /// Why the sampler gave this in place of a token.
    fn no_token(&self, report: u32) -> Error {
        if report == RULED_OUT {
            return Error::AllTokensRuledOut;
        }
        let model = &self.session.model;
        let is_half = |variant: &kiln_bundle::Variant| variant.features.contains(&Feature::ShaderF16);
        let full = model.manifest().variants.iter().find(|variant| !is_half(variant));
        Error::LogitsNotFinite {
            variant: model.variant().name.clone(),
            instead: full.filter(|_| is_half(model.variant())).map(|full| full.name.clone()),
        }
    }
}

impl Drop for Generation<'_> {
    fn drop(&mut self) {
        self.session.come_back();
    }
}
