//! The router of one token, in one dispatch.

use kiln_codegen_tests::Data;
use kiln_compiler::graph::{RouteSpec, Scoring};
use kiln_compiler::kernels::{KernelSpec, Prologue, RouterSpec};
use kiln_compiler::weights::WeightFormat;

use crate::matrix::{FORMATS, Matrix};
use crate::product::normalize;
use crate::route::{check_routing, reference, route};
use crate::support::Random;

const NORM: Prologue = Prologue::Norm {
    eps: 1e-5,
    unit_offset: false,
};

fn spec(experts: u32, cols: u32, k: u32) -> RouterSpec {
    RouterSpec {
        experts,
        cols,
        format: WeightFormat::Bf16,
        prologue: NORM,
        bias: true,
        route: route(k, Scoring::SoftmaxChosen),
        selection_bias: false,
    }
}

/// Everything that the router reads.
struct Inputs {
    x: Vec<f32>,
    norm_weight: Vec<f32>,
    matrix: Matrix,
    bias: Vec<f32>,
    selection_bias: Vec<f32>,
}

impl Inputs {
    fn random(spec: &RouterSpec, random: &mut Random) -> Self {
        let (experts, cols) = (spec.experts as usize, spec.cols as usize);
        Inputs {
            x: random.numbers(cols),
            norm_weight: random.numbers(cols),
            matrix: Matrix::random(spec.format, experts, cols, random),
            bias: random.numbers(experts),
            selection_bias: random.numbers(experts),
        }
    }

    fn scores(&self, spec: &RouterSpec) -> Vec<f64> {
        let mut x: Vec<f64> = self.x.iter().map(|&x| x.into()).collect();
        if let Prologue::Norm { eps, unit_offset } = spec.prologue {
            normalize(&mut x, &self.norm_weight, eps, unit_offset);
        }
        let rows = self.matrix.values.chunks(spec.cols as usize).zip(&self.bias);
        rows.map(|(row, &bias)| {
            let product: f64 = row.iter().zip(&x).map(|(w, x)| w * x).sum();
            product + if spec.bias { f64::from(bias) } else { 0.0 }
        })
        .collect()
    }

    fn check(&self, spec: &RouterSpec) {
        let mut buffers: Vec<Data> = vec![(&self.x).into()];
        if spec.prologue != Prologue::Direct {
            buffers.push((&self.norm_weight).into());
        }
        buffers.extend(self.matrix.bindings.iter().cloned());
        if spec.bias {
            buffers.push((&self.bias).into());
        }
        let selection_bias = spec.selection_bias.then_some(self.selection_bias.as_slice());
        buffers.extend(selection_bias.map(Data::from));
        buffers.push((&vec![u32::MAX; 2 * spec.route.experts_per_token as usize]).into());
        let expected = reference(&self.scores(spec), selection_bias, &spec.route);
        check_routing(&KernelSpec::Router(spec.clone()), &buffers, &[expected]);
    }
}

fn case(spec: RouterSpec) {
    let mut random = Random(u64::from(spec.experts * 11 + spec.cols));
    Inputs::random(&spec, &mut random).check(&spec);
}

#[test]
fn router_of_odd_sizes() {
    for (experts, cols, k) in [
        (32, 2880, 4),
        (128, 2048, 8),
        (1, 37, 1),
        (5, 24, 5),
        (3, 40, 1),
        (33, 32, 3),
        (100, 61, 7),
        (130, 33, 2),
        (256, 96, 8),
        (512, 64, 10),
        // More columns than fit in workgroup memory.
        (8, 4999, 2),
        (60, 8192, 4),
    ] {
        case(spec(experts, cols, k));
    }
}

#[test]
fn router_in_every_format() {
    for format in FORMATS {
        for (cols, prologue, bias) in [(61, NORM, false), (200, Prologue::Direct, true)] {
            case(RouterSpec {
                format,
                prologue,
                bias,
                ..spec(20, cols, 4)
            });
        }
    }
}

#[test]
fn router_by_every_scoring() {
    for scoring in [Scoring::SoftmaxChosen, Scoring::SoftmaxAll, Scoring::Sigmoid] {
        for selection_bias in [false, true] {
            case(RouterSpec {
                prologue: Prologue::Norm {
                    eps: 1e-6,
                    unit_offset: true,
                },
                route: RouteSpec {
                    normalize: selection_bias.then_some(1e-6),
                    scale: 2.5,
                    ..route(6, scoring)
                },
                selection_bias,
                ..spec(64, 160, 6)
            });
        }
    }
}

#[test]
fn router_without_a_difference_takes_the_first() {
    for experts in [4, 32, 100] {
        let spec = spec(experts, 64, 4);
        let mut inputs = Inputs::random(&spec, &mut Random(3));
        inputs.x.fill(0.0);
        inputs.bias.fill(0.75);
        inputs.check(&spec);
    }
}
