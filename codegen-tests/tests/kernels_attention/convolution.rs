use kiln_codegen_tests::Random;
use kiln_compiler::graph::Unary;
use kiln_compiler::kernels::{Capability, ConvolutionSpec, ConvolutionStateSpec, KernelSpec, Strided, build};

use crate::reference::step_at;
use crate::support::{close_numbers, numbers, run_step, variants};

/// Sums of up to eight products in f32, then an activation.
const TOLERANCE: f64 = 2e-6;

/// What a layer does with a convolution, but for its place in the sequence.
#[derive(Clone, Debug)]
struct Layer {
    channels: u32,
    taps: u32,
    ring: u32,
    gates: bool,
    bias: bool,
    activation: Option<Unary>,
}

impl Layer {
    fn plain(channels: u32, taps: u32, ring: u32) -> Self {
        Layer {
            channels,
            taps,
            ring,
            gates: false,
            bias: false,
            activation: None,
        }
    }

    /// x, then the gates, with something before and after that is none of them.
    fn lies(&self, part: u32) -> Strided {
        Strided {
            stride: 3 * self.channels + 7,
            offset: part * self.channels + 2,
        }
    }

    fn spec(&self, writes_state: bool) -> ConvolutionSpec {
        ConvolutionSpec {
            channels: self.channels,
            taps: self.taps,
            ring: self.ring,
            x: self.lies(0),
            gate_in: self.gates.then(|| self.lies(1)),
            gate_out: self.gates.then(|| self.lies(2)),
            bias: self.bias,
            activation: self.activation,
            writes_state,
        }
    }

    fn state_spec(&self) -> ConvolutionStateSpec {
        ConvolutionStateSpec {
            channels: self.channels,
            ring: self.ring,
            x: self.lies(0),
            gate_in: self.gates.then(|| self.lies(1)),
        }
    }
}

/// A layer, its weights, and what of a sequence it has seen.
struct Session {
    layer: Layer,
    weight: Vec<f32>,
    bias: Vec<f32>,
    variant: Capability,
    /// Rows of the sequence so far.
    rows: Vec<Vec<f32>>,
    state: Vec<f32>,
    random: Random,
}

impl Session {
    fn new(layer: &Layer, variant: Capability) -> Self {
        let mut random = Random(u64::from(layer.channels * 10 + layer.taps));
        Session {
            layer: layer.clone(),
            weight: random.numbers((layer.channels * layer.taps) as usize),
            bias: random.numbers(layer.channels as usize),
            variant,
            rows: Vec::new(),
            // As another sequence may leave it.
            state: vec![f32::NAN; (layer.ring * layer.channels) as usize],
            random,
        }
    }

    /// Some more tokens: runs what a step of the model would, and compares.
    fn step(&mut self, tokens: u32) {
        let stride = self.layer.lies(0).stride as usize;
        let position = self.rows.len() as u32;
        let x = self.random.numbers(tokens as usize * stride);
        self.rows.extend(x.chunks(stride).map(<[f32]>::to_vec));
        let spec = KernelSpec::Convolution(self.layer.spec(tokens == 1));

        let mut buffers = vec![(&x).into(), (&self.weight).into()];
        if self.layer.bias {
            buffers.push((&self.bias).into());
        }
        if self.layer.gates {
            buffers.extend([(&x).into(), (&x).into()]);
        }
        let out = vec![f32::NAN; (tokens * self.layer.channels) as usize];
        buffers.extend([step_at(position, tokens), (&self.state).into(), (&out).into()]);
        let outputs = run_step(&spec, self.variant, &buffers, tokens);
        let [.., state, out] = outputs.as_slice() else {
            unreachable!("as many as there were buffers")
        };
        let expected: Vec<f64> = (position..position + tokens)
            .flat_map(|token| self.expected(token))
            .collect();
        let what = format!("{:?} at {position}, {tokens} tokens", self.layer);
        close_numbers(&what, &numbers(out), &expected, TOLERANCE);

        self.state = numbers(state);
        if tokens > 1 {
            let mut buffers = vec![(&x).into()];
            if self.layer.gates {
                buffers.push((&x).into());
            }
            buffers.extend([step_at(position, tokens), (&self.state).into()]);
            let spec = KernelSpec::ConvolutionState(self.layer.state_spec());
            let outputs = run_step(&spec, self.variant, &buffers, tokens);
            self.state = numbers(outputs.last().expect("the state"));
        }
    }

    /// Forgets the last tokens.
    fn rewind(&mut self, tokens: usize) {
        self.rows.truncate(self.rows.len() - tokens);
    }

    /// The outputs of a token of the sequence, which is seen from its start.
    fn expected(&self, token: u32) -> Vec<f64> {
        let Layer { channels, taps, .. } = self.layer;
        let at = |token: u32, part: u32, channel: u32| {
            f64::from(self.rows[token as usize][(self.layer.lies(part).offset + channel) as usize])
        };
        let gate = |token, part, channel| match self.layer.gates {
            true => at(token, part, channel),
            false => 1.0,
        };
        let output = |channel: u32| {
            let mut sum = if self.layer.bias {
                f64::from(self.bias[channel as usize])
            } else {
                0.0
            };
            for tap in 0..taps {
                if let Some(token) = (token + tap + 1).checked_sub(taps) {
                    let weight = f64::from(self.weight[(channel * taps + tap) as usize]);
                    sum += weight * at(token, 0, channel) * gate(token, 1, channel);
                }
            }
            let activated = match self.layer.activation {
                None => sum,
                Some(Unary::Silu) => sum / (1.0 + (-sum).exp()),
                Some(other) => panic!("{other:?} is not among the cases"),
            };
            gate(token, 2, channel) * activated
        };
        (0..channels).map(output).collect()
    }
}

/// As LFM2 and as Qwen3-Next have it, with the fewest and with the most taps, and more channels than threads.
fn layers() -> [Layer; 4] {
    [
        Layer {
            gates: true,
            ..Layer::plain(40, 3, 9)
        },
        Layer {
            activation: Some(Unary::Silu),
            ..Layer::plain(300, 4, 3)
        },
        Layer {
            bias: true,
            activation: Some(Unary::Silu),
            gates: true,
            ..Layer::plain(7, 8, 20)
        },
        Layer {
            bias: true,
            ..Layer::plain(257, 2, 1)
        },
    ]
}

#[test]
fn steps_of_any_lengths_are_one_sequence() {
    for layer in layers() {
        for variant in variants() {
            let mut session = Session::new(&layer, variant);
            for tokens in [1, 1, 2, layer.taps, 1, layer.ring + 5, 1, 2, 1, layer.ring] {
                session.step(tokens);
            }
        }
    }
}

#[test]
fn sequences_begin_with_many_tokens_too() {
    for layer in layers() {
        let mut session = Session::new(&layer, Capability::Base);
        session.step(layer.taps + 2);
        session.step(1);
    }
}

#[test]
fn rewinding_as_far_as_the_ring_is_longer_than_needed() {
    for layer in layers() {
        let spare = (layer.ring + 1 - layer.taps) as usize;
        let mut session = Session::new(&layer, Capability::Base);
        session.step(layer.ring + 3);
        session.rewind(spare);
        session.step(2);
        session.step(1);
        session.rewind(spare.min(1));
        session.step(layer.taps);
        // To the start: nothing of the old sequence may be seen.
        session.rewind(session.rows.len());
        session.step(2);
        session.step(1);
    }
}

#[test]
fn what_a_convolution_cannot_do_is_named() {
    let refusal = |layer: Layer| {
        build(&KernelSpec::Convolution(layer.spec(false)), Capability::Base)
            .expect_err("the spec is wrong")
            .to_string()
    };
    assert!(refusal(Layer::plain(8, 9, 20)).contains("9 taps, 2 to 8"));
    assert!(refusal(Layer::plain(8, 1, 20)).contains("1 taps, 2 to 8"));
    assert!(refusal(Layer::plain(8, 4, 2)).contains("a ring of 2 inputs is too short for 4 taps"));
}

#[test]
fn different_convolutions_have_different_names() {
    let whole = Strided { stride: 40, offset: 0 };
    let plain = ConvolutionSpec {
        x: whole,
        ..Layer::plain(40, 4, 9).spec(false)
    };
    let gated = |gate_in, gate_out| ConvolutionSpec {
        gate_in,
        gate_out,
        ..plain.clone()
    };
    let specs = [
        plain.clone(),
        gated(Some(whole), None),
        gated(None, Some(whole)),
        gated(Some(whole), Some(whole)),
        gated(Some(plain.x), Some(Strided { stride: 80, offset: 40 })),
        gated(Some(Strided { stride: 80, offset: 40 }), Some(plain.x)),
        ConvolutionSpec {
            bias: true,
            ..plain.clone()
        },
        ConvolutionSpec {
            writes_state: true,
            ..plain.clone()
        },
        ConvolutionSpec {
            taps: 3,
            ..plain.clone()
        },
        ConvolutionSpec {
            ring: 8,
            ..plain.clone()
        },
        ConvolutionSpec {
            activation: Some(Unary::Silu),
            ..plain.clone()
        },
    ];
    let names: std::collections::BTreeSet<String> = specs
        .iter()
        .map(|spec| {
            build(&KernelSpec::Convolution(spec.clone()), Capability::Base)
                .expect("a valid spec")
                .name
        })
        .collect();
    assert_eq!(names.len(), specs.len(), "{names:#?}");
}
