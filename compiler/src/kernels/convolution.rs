//! The short causal convolution of hybrid models, and the ring of inputs that it keeps from step to step.
//!
//! Each thread has one channel of one token. Inputs of the step's tokens are read where they are, and only those before
//! it from the ring; so the ring is written when all have been read: by the same thread in steps of one token, and by
//! a dispatch of its own otherwise.

use std::ops::RangeInclusive;

use kiln_bundle::{Access, StepWord};

use super::activation::unary;
use super::builder::{Array, Builder, F32, KernelError, KernelSource, U32};
use super::names::{flag, strided};
use super::step::Step;
use super::{Capability, ConvolutionSpec, ConvolutionStateSpec, Strided};

/// Threads, and channels, of a workgroup.
const THREADS: u32 = 256;

impl ConvolutionSpec {
    /// How many taps a convolution may have.
    pub const TAPS: RangeInclusive<u32> = 2..=8;

    fn name(&self) -> String {
        let ConvolutionSpec {
            channels, taps, ring, ..
        } = *self;
        let activation = self
            .activation
            .map(|function| format!("_{function:?}").to_lowercase())
            .unwrap_or_default();
        format!(
            "convolution{taps}{}{activation}{}{}{}_{channels}{}_ring{ring}",
            flag(self.bias, "_bias"),
            gate_name("gate_in", self.gate_in, channels),
            gate_name("gate_out", self.gate_out, channels),
            flag(self.writes_state, "_keep"),
            strided(self.x, channels),
        )
    }

    fn check(&self, kernel: &str) -> Result<(), KernelError> {
        let able = Self::TAPS;
        let what = if !able.contains(&self.taps) {
            let (fewest, most) = (able.start(), able.end());
            format!("a convolution of {} taps, {fewest} to {most} are supported", self.taps)
        } else if self.ring < self.taps - 1 {
            format!("a ring of {} inputs is too short for {} taps", self.ring, self.taps)
        } else {
            return Ok(());
        };
        Err(KernelError::Unsupported {
            kernel: kernel.to_string(),
            what,
        })
    }
}

fn gate_name(name: &str, gate: Option<Strided>, channels: u32) -> String {
    gate.map(|lies| format!("_{name}{}", strided(lies, channels)))
        .unwrap_or_default()
}

pub fn build(spec: &ConvolutionSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    let name = spec.name();
    spec.check(&name)?;
    let b = Builder::new(name, THREADS, capability);
    body(&b, spec);
    b.finish()
}

fn body(b: &Builder, spec: &ConvolutionSpec) {
    let x = Rows::bind(b, "x", spec.x);
    let weight = b.storage::<f32>("weight", Access::Read);
    let bias = spec.bias.then(|| b.storage::<f32>("bias", Access::Read));
    let gate_in = spec.gate_in.map(|lies| Rows::bind(b, "gate_in", lies));
    let gate_out = spec.gate_out.map(|lies| Rows::bind(b, "gate_out", lies));
    let step = Step::bind(b);
    let state_access = match spec.writes_state {
        true => Access::ReadWrite,
        false => Access::Read,
    };
    let ring = Ring {
        state: b.storage::<f32>("state", state_access),
        slots: spec.ring,
        channels: spec.channels,
    };
    let out = b.storage::<f32>("out", Access::ReadWrite);

    let channel = channel(b);
    let token = b.group().y().named("token");
    b.if_(channel.lt(spec.channels), || {
        let position = step.position_of(token);
        let tap = |tap: u32| weight.load(channel * spec.taps + tap);
        let newest = input(&x, &gate_in, token, channel).named("newest");
        let sum = b.variable("sum", newest * tap(spec.taps - 1));
        for back in (1..spec.taps).rev() {
            let weight = tap(spec.taps - 1 - back);
            b.if_else(
                token.ge(back),
                || sum.add(input(&x, &gate_in, token - back, channel) * weight),
                // Before the sequence there are zeros, whatever another one left in the ring.
                || {
                    b.if_(position.ge(back), || {
                        sum.add(ring.load(position - back, channel) * weight)
                    })
                },
            );
        }
        let mut value = sum.load();
        if let Some(bias) = bias {
            value = value + bias.load(channel);
        }
        if let Some(function) = spec.activation {
            value = unary(function, value);
        }
        if let Some(gate) = gate_out {
            value = value * gate.load(token, channel);
        }
        out.store(token * spec.channels + channel, value);
        if spec.writes_state {
            ring.store(position, channel, newest);
        }
    });
}

pub fn build_state(spec: &ConvolutionStateSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    let ConvolutionStateSpec { channels, ring, .. } = *spec;
    let name = format!(
        "convolution_state{}_{channels}{}_ring{ring}",
        gate_name("gate_in", spec.gate_in, channels),
        strided(spec.x, channels),
    );
    let b = Builder::new(name, THREADS, capability);
    state_body(&b, spec);
    b.finish()
}

/// One of the step's last tokens: the workgroup's `y` counts them from the end.
fn state_body(b: &Builder, spec: &ConvolutionStateSpec) {
    let x = Rows::bind(b, "x", spec.x);
    let gate_in = spec.gate_in.map(|lies| Rows::bind(b, "gate_in", lies));
    let step = Step::bind(b);
    let ring = Ring {
        state: b.storage::<f32>("state", Access::ReadWrite),
        slots: spec.ring,
        channels: spec.channels,
    };

    let channel = channel(b);
    let tokens = step.word(StepWord::Tokens).named("tokens");
    let from_end = b.group().y();
    b.if_(channel.lt(spec.channels) & from_end.lt(tokens), || {
        let token = (tokens - 1 - from_end).named("token");
        let value = input(&x, &gate_in, token, channel);
        ring.store(step.position_of(token), channel, value);
    });
}

fn channel(b: &Builder) -> U32<'_> {
    (b.group().x() * THREADS + b.thread()).named("channel")
}

/// What is convolved: `gate_in · x`.
fn input<'b>(x: &Rows<'b>, gate: &Option<Rows<'b>>, token: U32<'b>, channel: U32<'b>) -> F32<'b> {
    let x = x.load(token, channel);
    match gate {
        Some(gate) => x * gate.load(token, channel),
        None => x,
    }
}

/// An activation, a row for each token.
struct Rows<'b> {
    numbers: Array<'b, f32>,
    lies: Strided,
}

impl<'b> Rows<'b> {
    fn bind(b: &'b Builder, name: &str, lies: Strided) -> Self {
        Rows {
            numbers: b.storage::<f32>(name, Access::Read),
            lies,
        }
    }

    fn load(&self, token: U32<'b>, column: U32<'b>) -> F32<'b> {
        self.numbers.load(token * self.lies.stride + self.lies.offset + column)
    }
}

/// The state: `[slots][channels]`.
struct Ring<'b> {
    state: Array<'b, f32>,
    slots: u32,
    channels: u32,
}

impl<'b> Ring<'b> {
    fn load(&self, position: U32<'b>, channel: U32<'b>) -> F32<'b> {
        self.state.load(self.index(position, channel))
    }

    fn store(&self, position: U32<'b>, channel: U32<'b>, value: F32<'b>) {
        self.state.store(self.index(position, channel), value);
    }

    fn index(&self, position: U32<'b>, channel: U32<'b>) -> U32<'b> {
        position % self.slots * self.channels + channel
    }
}
