use kiln_codegen_tests::Random;
use kiln_compiler::kernels::{Capability, GatedDeltaSpec, KernelSpec, Strided, build};

use crate::reference::step_at;
use crate::support::{self, close_numbers, numbers, run_step};

/// Some hundred tokens of sums of up to 256 products in f32, each as large as the state.
const TOLERANCE: f64 = 5e-6;

/// Elements between q, k and v in their row, which are of no one.
const GAP: u32 = 3;

/// Heads for keys and values, and their sizes.
fn spec(key_heads: u32, value_heads: u32, key_dim: u32, value_dim: u32) -> GatedDeltaSpec {
    let keys = key_heads * key_dim + GAP;
    let stride = 2 * keys + value_heads * value_dim;
    GatedDeltaSpec {
        key_heads,
        value_heads,
        key_dim,
        value_dim,
        q: Strided { stride, offset: 0 },
        k: Strided { stride, offset: keys },
        v: Strided {
            stride,
            offset: 2 * keys,
        },
        a: Strided {
            stride: 2 * value_heads,
            offset: value_heads,
        },
        b: Strided {
            stride: value_heads,
            offset: 0,
        },
        single: false,
    }
}

/// The state of the kernel, and of the formula.
struct Session {
    spec: GatedDeltaSpec,
    variant: Capability,
    random: Random,
    position: u32,
    parameters: Vec<f32>,
    state: Vec<f32>,
    expected_state: Vec<f64>,
}

impl Session {
    fn new(spec: &GatedDeltaSpec, variant: Capability) -> Self {
        let heads = spec.value_heads;
        let state_size = (heads * spec.key_dim * spec.value_dim) as usize;
        let mut random = Random(u64::from(spec.key_dim * 7 + spec.value_dim));
        // From heads that remember hundreds of tokens to heads that forget at once.
        let a_log = (0..heads).map(|head| [-5.0, 0.0, 2.5][head as usize % 3]);
        let parameters = a_log.chain((0..heads).map(|_| random.number())).collect();
        let state = random.numbers(state_size);
        Session {
            spec: spec.clone(),
            variant,
            random,
            position: 0,
            parameters,
            expected_state: state.iter().map(|&x| x.into()).collect(),
            state,
        }
    }

    /// Some more tokens, by the kernel for such steps.
    fn step(&mut self, tokens: u32) {
        self.step_with(tokens == 1, tokens);
    }

    fn step_with(&mut self, single: bool, tokens: u32) {
        let spec = GatedDeltaSpec {
            single,
            ..self.spec.clone()
        };
        let rows = |lies: Strided| (tokens * lies.stride) as usize;
        let qkv = self.random.numbers(rows(spec.q));
        let b: Vec<f32> = self.random.numbers(rows(spec.b)).iter().map(|x| 4.0 * x).collect();
        // Now and then a token that lets nothing fade, or everything.
        let a: Vec<f32> = (0..rows(spec.a))
            .map(|_| self.random.number() * [3.0, 3.0, 3.0, 40.0][self.random.below(4)])
            .collect();
        let expected = self.expected(&qkv, &a, &b, tokens);
        let out = vec![f32::NAN; expected.len()];
        let mut buffers = vec![(&qkv).into(), (&a).into(), (&b).into(), (&self.parameters).into()];
        if !single {
            buffers.push(step_at(self.position, tokens));
        }
        let state_at = buffers.len();
        buffers.extend([(&self.state).into(), (&out).into()]);
        let what = format!("{:?} {spec:?} at {}, {tokens} tokens", self.variant, self.position);
        let outputs = run_step(&KernelSpec::GatedDelta(spec), self.variant, &buffers, tokens);
        self.state = numbers(&outputs[state_at]);
        close_numbers(
            &format!("out of {what}"),
            &numbers(&outputs[state_at + 1]),
            &expected,
            TOLERANCE,
        );
        close_numbers(
            &format!("state of {what}"),
            &self.state,
            &self.expected_state,
            TOLERANCE,
        );
        self.position += tokens;
    }

    /// The formula, token by token; moves the expected state on.
    fn expected(&mut self, qkv: &[f32], a: &[f32], b: &[f32], tokens: u32) -> Vec<f64> {
        let spec = &self.spec;
        let (rows, columns) = (spec.key_dim as usize, spec.value_dim as usize);
        let mut out = Vec::new();
        for token in 0..tokens {
            let number = |numbers: &[f32], lies: Strided, index: u32| {
                f64::from(numbers[(token * lies.stride + lies.offset + index) as usize])
            };
            let head_of = |lies: Strided, head: u32, width: u32| -> Vec<f64> {
                (0..width).map(|i| number(qkv, lies, head * width + i)).collect()
            };
            for head in 0..spec.value_heads {
                let key_head = head / (spec.value_heads / spec.key_heads);
                let q = l2(head_of(spec.q, key_head, spec.key_dim));
                let k = l2(head_of(spec.k, key_head, spec.key_dim));
                let v = head_of(spec.v, head, spec.value_dim);
                let parameter = |index: u32| f64::from(self.parameters[index as usize]);
                let softplus = (number(a, spec.a, head) + parameter(head + spec.value_heads))
                    .exp()
                    .ln_1p();
                let decay = (-parameter(head).exp() * softplus).exp();
                let beta = 1.0 / (1.0 + (-number(b, spec.b, head)).exp());

                let state = &mut self.expected_state[head as usize * rows * columns..][..rows * columns];
                state.iter_mut().for_each(|s| *s *= decay);
                for column in 0..columns {
                    let read = |vector: &[f64], state: &[f64]| -> f64 {
                        (0..rows).map(|row| state[row * columns + column] * vector[row]).sum()
                    };
                    let write = beta * (v[column] - read(&k, state));
                    for row in 0..rows {
                        state[row * columns + column] += k[row] * write;
                    }
                    out.push(read(&q, state) / (rows as f64).sqrt());
                }
            }
        }
        out
    }
}

/// `x / sqrt(Σ x² + 1e-6)`
fn l2(x: Vec<f64>) -> Vec<f64> {
    let norm = (x.iter().map(|x| x * x).sum::<f64>() + 1e-6).sqrt();
    x.into_iter().map(|x| x / norm).collect()
}

/// The `f16` variant has nothing of its own here.
fn variants() -> impl Iterator<Item = Capability> {
    support::variants()
        .into_iter()
        .filter(|&variant| variant != Capability::F16)
}

#[test]
fn delta_rule_in_steps_of_any_lengths() {
    for (key_heads, value_heads, key_dim, value_dim) in [(2, 4, 32, 32), (1, 3, 24, 20), (3, 3, 30, 45), (1, 2, 7, 5)] {
        for variant in variants() {
            let mut session = Session::new(&spec(key_heads, value_heads, key_dim, value_dim), variant);
            for tokens in [1, 1, 2, 8, 37, 1, 4] {
                session.step(tokens);
            }
        }
    }
}

#[test]
fn delta_rule_of_large_heads() {
    for (key_dim, value_dim, tokens) in [(128, 128, 300), (256, 40, 11), (130, 33, 11)] {
        for variant in variants() {
            let mut session = Session::new(&spec(1, 2, key_dim, value_dim), variant);
            session.step(tokens);
            session.step(1);
        }
    }
}

#[test]
fn kernels_for_many_tokens_may_have_one() {
    for variant in support::variants() {
        let mut session = Session::new(&spec(2, 2, 32, 32), variant);
        session.step_with(false, 1);
        session.step_with(false, 1);
    }
}

#[test]
fn different_delta_rules_have_different_names() {
    let plain = spec(2, 4, 32, 32);
    let moved = |lies: Strided| Strided {
        offset: lies.offset + 1,
        ..lies
    };
    let specs = [
        plain.clone(),
        spec(4, 4, 32, 32),
        spec(2, 4, 16, 32),
        spec(2, 4, 32, 16),
        GatedDeltaSpec {
            single: true,
            ..plain.clone()
        },
        GatedDeltaSpec {
            q: moved(plain.q),
            ..plain.clone()
        },
        GatedDeltaSpec {
            k: moved(plain.k),
            ..plain.clone()
        },
        GatedDeltaSpec {
            v: moved(plain.v),
            ..plain.clone()
        },
        GatedDeltaSpec {
            a: moved(plain.a),
            ..plain.clone()
        },
        GatedDeltaSpec {
            b: moved(plain.b),
            ..plain.clone()
        },
    ];
    let name = |spec: &GatedDeltaSpec| {
        build(&KernelSpec::GatedDelta(spec.clone()), Capability::Base)
            .expect("a valid spec")
            .name
    };
    let names: std::collections::BTreeSet<String> = specs.iter().map(name).collect();
    assert_eq!(names.len(), specs.len(), "{names:#?}");
}

#[test]
fn what_a_delta_rule_cannot_do_is_named() {
    let refusal = |spec| {
        build(&KernelSpec::GatedDelta(spec), Capability::Base)
            .expect_err("the spec is wrong")
            .to_string()
    };
    assert!(refusal(spec(1, 1, 260, 32)).contains("keys of 1 to 256 elements are supported, not 260"));
    assert!(refusal(spec(2, 3, 32, 32)).contains("3 value heads cannot share 2 key heads evenly"));
}
