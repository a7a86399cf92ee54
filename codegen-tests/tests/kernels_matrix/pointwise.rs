use kiln_compiler::graph::{Binary, Unary};
use kiln_compiler::kernels::{KernelSpec, PointwiseExpr as Expr, PointwiseSpec, Strided};

use crate::scalar::unary;
use crate::support::{Random, check};

/// A few roundings; the approximation of erf alone is within 1.5e-7.
const TOLERANCE: f64 = 1e-6;

fn evaluate(expression: &Expr, inputs: &[f64]) -> f64 {
    match expression {
        Expr::Input(index) => inputs[*index],
        Expr::Unary(function, x) => unary(*function, evaluate(x, inputs)),
        Expr::Binary(operator, left, right) => {
            let (left, right) = (evaluate(left, inputs), evaluate(right, inputs));
            match operator {
                Binary::Add => left + right,
                Binary::Sub => left - right,
                Binary::Mul => left * right,
            }
        }
        Expr::Scale(factor, x) => evaluate(x, inputs) * f64::from(*factor),
        Expr::TokenInput(index) => inputs[*index],
        Expr::Clamp(limit, x) => evaluate(x, inputs).clamp(-f64::from(*limit), f64::from(*limit)),
        Expr::Softcap(cap, x) => f64::from(*cap) * (evaluate(x, inputs) / f64::from(*cap)).tanh(),
    }
}

fn case(spec: PointwiseSpec, tokens: u32, size: f32) {
    case_with(spec, tokens, size, None);
}

/// `one_a_token`: the input that the expression reads as one number a token.
fn case_with(spec: PointwiseSpec, tokens: u32, size: f32, one_a_token: Option<usize>) {
    let mut random = Random(u64::from(spec.width));
    let inputs: Vec<Vec<f32>> = spec
        .inputs
        .iter()
        .map(|lies| (0..tokens * lies.stride).map(|_| random.number() * size).collect())
        .collect();
    let mut expected = Vec::new();
    for token in 0..tokens {
        for column in 0..spec.width {
            let values: Vec<f64> = inputs
                .iter()
                .zip(&spec.inputs)
                .enumerate()
                .map(|(index, (input, lies))| {
                    let column = if one_a_token == Some(index) { 0 } else { column };
                    input[(token * lies.stride + lies.offset + column) as usize].into()
                })
                .collect();
            expected.push(evaluate(&spec.expression, &values));
        }
    }
    let mut buffers: Vec<_> = inputs.iter().map(|input| input.into()).collect();
    let out = if spec.in_place { buffers.pop() } else { None };
    buffers.push(out.unwrap_or_else(|| (&vec![5f32; expected.len()]).into()));
    check(&KernelSpec::Pointwise(spec), &buffers, tokens, &expected, TOLERANCE);
}

fn input(index: usize) -> Box<Expr> {
    Box::new(Expr::Input(index))
}

#[test]
fn every_function() {
    let functions = [
        Unary::Silu,
        Unary::GeluTanh,
        Unary::GeluErf,
        Unary::Sigmoid,
        Unary::Relu,
        Unary::Tanh,
    ];
    for function in functions {
        for size in [4.0, 500.0] {
            let whole = Strided { stride: 300, offset: 0 };
            let expression = Expr::Unary(function, input(0));
            case(
                PointwiseSpec {
                    width: 300,
                    inputs: vec![whole],
                    expression,
                    in_place: false,
                },
                2,
                size,
            );
        }
    }
}

#[test]
fn a_gate_in_slices_of_a_wider_row() {
    let gate = Box::new(Expr::Unary(Unary::Silu, input(0)));
    let spec = PointwiseSpec {
        width: 77,
        inputs: vec![
            Strided { stride: 154, offset: 0 },
            Strided {
                stride: 154,
                offset: 77,
            },
        ],
        expression: Expr::Binary(Binary::Mul, gate, input(1)),
        in_place: false,
    };
    case(spec, 3, 3.0);
}

#[test]
fn a_residual_in_place() {
    let capped = Box::new(Expr::Softcap(2.0, Box::new(Expr::Scale(0.5, input(0)))));
    let whole = Strided { stride: 515, offset: 0 };
    let spec = PointwiseSpec {
        width: 515,
        inputs: vec![whole, whole],
        expression: Expr::Binary(Binary::Sub, capped, input(1)),
        in_place: true,
    };
    case(spec, 2, 3.0);
}

#[test]
fn numbers_of_the_token_and_clamps() {
    let lies = |stride, offset| Strided { stride, offset };
    let gate = Box::new(Expr::Unary(Unary::Sigmoid, Box::new(Expr::TokenInput(1))));
    let spec = PointwiseSpec {
        width: 70,
        inputs: vec![lies(70, 0), lies(9, 4)],
        expression: Expr::Binary(Binary::Mul, Box::new(Expr::Clamp(1.5, input(0))), gate),
        in_place: false,
    };
    case_with(spec, 5, 4.0, Some(1));
}
