//! A conversation's state, and generation through a callback.

use js_sys::{Function, Promise};
use kiln_runtime::{CancelToken, Error, GenerateOptions, GenerationReport, Sampling, Session, StopReason, TokenRule};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use crate::Cancel;
use crate::error::to_js;
use crate::model::milliseconds;
use crate::object::{get, object};

/// A session. One operation at a time: the host waits for each before it begins the next.
#[wasm_bindgen]
pub struct WebSession(Session);

impl WebSession {
    pub(crate) fn new(session: Session) -> Self {
        Self(session)
    }
}

#[wasm_bindgen]
impl WebSession {
    #[wasm_bindgen(getter)]
    pub fn context(&self) -> u32 {
        self.0.context()
    }

    #[wasm_bindgen(getter)]
    pub fn position(&self) -> u32 {
        self.0.position()
    }

    /// The tokens in the state.
    #[wasm_bindgen(getter)]
    pub fn tokens(&self) -> Vec<u32> {
        self.0.tokens().to_vec()
    }

    /// Appends tokens and waits until the device has taken them.
    pub async fn feed(&mut self, ids: Vec<u32>, cancel: &Cancel) -> Result<(), JsValue> {
        self.0.set_cancel_token(cancel.0.clone());
        self.0.feed(&ids).await.map_err(to_js)?;
        self.0.synchronize().await.map_err(to_js)?;
        self.0.set_cancel_token(CancelToken::new());
        Ok(())
    }

    /// Makes the state that of `ids`, feeding only what it does not hold yet. Returns how many were fed. At `opening` begins
    /// what the next turn may leave out again.
    #[wasm_bindgen(js_name = feedTurn)]
    pub async fn feed_turn(&mut self, ids: Vec<u32>, opening: u32, cancel: &Cancel) -> Result<u32, JsValue> {
        self.0.set_cancel_token(cancel.0.clone());
        let fed = self.0.feed_turn(&ids, opening as usize).await.map_err(to_js)?;
        self.0.set_cancel_token(CancelToken::new());
        Ok(fed as u32)
    }

    /// Of each state the position before which its entries are lost.
    #[wasm_bindgen(getter, js_name = intactFrom)]
    pub fn intact_from(&self) -> Vec<f64> {
        self.0.intact_from().map(|position| position as f64).collect()
    }

    /// A part of a state.
    #[wasm_bindgen(js_name = readState)]
    pub async fn read_state(&self, index: usize, offset: f64, bytes: u32) -> Result<Vec<u8>, JsValue> {
        self.0
            .read_state(index, offset as u64, bytes.into())
            .await
            .map_err(to_js)
    }

    /// Overwrites a part of a state. The device has taken it when its queue is done.
    #[wasm_bindgen(js_name = writeState)]
    pub fn write_state(&mut self, index: usize, offset: f64, bytes: &[u8]) {
        self.0.write_state(index, offset as u64, bytes);
    }

    /// The states that were written are those of these tokens. Feed next, if only nothing.
    #[wasm_bindgen(js_name = continueWith)]
    pub fn continue_with(&mut self, tokens: Vec<u32>, intact_from: Vec<f64>) {
        let intact_from = intact_from.into_iter().map(|position| position as u64);
        self.0.continue_with(tokens, intact_from);
    }

    /// Forgets everything.
    pub fn reset(&mut self) -> Result<(), JsValue> {
        self.0.reset().map_err(to_js)
    }

    /// Goes back to an earlier position; returns where the session is then.
    pub fn rewind(&mut self, position: u32) -> Result<u32, JsValue> {
        self.0.rewind(position).map_err(to_js)
    }

    /// Continues after the tokens fed, with the fields of [`GenerateOptions`] in JavaScript's spelling. Each id goes to
    /// `on_token`; a promise that it returns is awaited, and `false` ends the generation.
    pub async fn generate(
        &mut self,
        options: JsValue,
        cancel: &Cancel,
        on_token: Function,
    ) -> Result<JsValue, JsValue> {
        self.0.set_cancel_token(cancel.0.clone());
        let model = Sampling::of(&self.0.model().manifest().model);
        let mut generation = self.0.generate(read_options(&options, model)).map_err(to_js)?;
        let mut stopped = false;
        while !stopped {
            let id = match generation.next().await {
                Ok(Some(id)) => id,
                // The report tells it: what was said before is an answer, too.
                Ok(None) | Err(Error::Canceled) => break,
                Err(error) => return Err(to_js(error)),
            };
            let mut answer = on_token.call1(&JsValue::UNDEFINED, &id.into())?;
            if let Some(promise) = answer.dyn_ref::<Promise>() {
                answer = JsFuture::from(promise.clone()).await?;
            }
            stopped = answer == JsValue::FALSE;
        }
        let report = generation.report();
        drop(generation);
        self.0.set_cancel_token(CancelToken::new());
        Ok(describe(report))
    }
}

/// Options of a generation; `sampling` says what they leave open.
fn read_options(options: &JsValue, mut sampling: Sampling) -> GenerateOptions {
    let number = |name: &str| get(options, name).as_f64();
    let default = GenerateOptions::default();
    let integer = |name: &str, absent: u32| number(name).map_or(absent, |value| value as u32);
    for (name, value) in [
        ("temperature", &mut sampling.temperature),
        ("topP", &mut sampling.top_p),
        ("minP", &mut sampling.min_p),
        ("repetitionPenalty", &mut sampling.repetition_penalty),
        ("presencePenalty", &mut sampling.presence_penalty),
        ("frequencyPenalty", &mut sampling.frequency_penalty),
    ] {
        *value = number(name).map_or(*value, |value| value as f32);
    }
    for (name, value) in [
        ("topK", &mut sampling.top_k),
        ("seed", &mut sampling.seed),
        ("noRepeatNgram", &mut sampling.no_repeat_ngram),
        ("minTokens", &mut sampling.min_tokens),
    ] {
        *value = integer(name, *value);
    }
    // Pairs of id and bias.
    if let Ok(biases) = get(options, "logitBias").dyn_into::<js_sys::Float64Array>() {
        sampling.rules.extend(biases.to_vec().chunks(2).map(|pair| TokenRule {
            ids: vec![pair[0] as u32],
            bias: (pair[1] != f64::NEG_INFINITY).then_some(pair[1] as f32),
            first: None,
        }));
    }
    let stop_ids = get(options, "stopIds");
    GenerateOptions {
        max_tokens: integer("maxTokens", default.max_tokens),
        sampling,
        stop_ids: stop_ids
            .dyn_ref::<js_sys::Uint32Array>()
            .map(js_sys::Uint32Array::to_vec),
        steps_in_flight: integer("stepsInFlight", default.steps_in_flight),
    }
}

fn describe(report: GenerationReport) -> JsValue {
    let stop = match report.stop {
        StopReason::EndOfText => "end-of-text",
        StopReason::MaxTokens => "max-tokens",
        StopReason::ContextFull => "context-full",
        StopReason::Canceled => "canceled",
        StopReason::StopText => "stop-text",
        StopReason::Dropped => "dropped",
    };
    object([
        ("stop", stop.into()),
        ("tokens", report.tokens.into()),
        ("steps", report.steps.into()),
        ("firstTokenMs", milliseconds(report.first_token)),
        ("totalMs", milliseconds(report.total)),
        ("encodingMs", milliseconds(report.encoding)),
    ])
}
