//! Elementwise expressions over the activations of a token.

use std::fmt::Write;

use kiln_bundle::Access;

use super::activation::{softcap, unary};
use super::builder::{Array, Builder, F32, KernelError, KernelSource, U32};
use super::names::{flag, lettered, number};
use super::{Capability, PointwiseExpr, PointwiseSpec};
use crate::graph::Binary;

impl PointwiseSpec {
    /// The expression in prefix notation, then how the inputs lie where they are parts of wider rows.
    fn name(&self) -> String {
        let mut name = format!("pointwise{}", flag(self.in_place, "_accumulate"));
        write_expression(&self.expression, &mut name);
        let _ = write!(name, "_{}", self.width);
        let whole = |stride, offset| stride == self.width && offset == 0;
        if !self.inputs.iter().all(|input| whole(input.stride, input.offset)) {
            for input in &self.inputs {
                let _ = write!(name, "_at{}of{}", input.offset, input.stride);
            }
        }
        name
    }
}

fn write_expression(expression: &PointwiseExpr, name: &mut String) {
    let (word, operands): (String, Vec<&PointwiseExpr>) = match expression {
        PointwiseExpr::Input(index) => (index.to_string(), vec![]),
        PointwiseExpr::TokenInput(index) => (format!("token{index}"), vec![]),
        PointwiseExpr::Clamp(limit, x) => (format!("clamp{}", number(*limit)), vec![x]),
        PointwiseExpr::Unary(function, x) => (format!("{function:?}").to_lowercase(), vec![x]),
        PointwiseExpr::Binary(operator, left, right) => (format!("{operator:?}").to_lowercase(), vec![left, right]),
        PointwiseExpr::Scale(factor, x) => (format!("times{}", number(*factor)), vec![x]),
        PointwiseExpr::Softcap(cap, x) => (format!("cap{}", number(*cap)), vec![x]),
    };
    name.push('_');
    name.push_str(&word);
    for operand in operands {
        write_expression(operand, name);
    }
}

pub fn build(spec: &PointwiseSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    let name = spec.name();
    if let Some(index) = missing_input(&spec.expression, spec.inputs.len()) {
        let what = format!("the expression reads input {index} of {}", spec.inputs.len());
        return Err(KernelError::Unsupported { kernel: name, what });
    }
    let b = Builder::new(name, PointwiseSpec::WORKGROUP, capability);
    body(&b, spec);
    b.finish()
}

fn body(b: &Builder, spec: &PointwiseSpec) {
    let bound_inputs = spec.inputs.len() - usize::from(spec.in_place && !spec.inputs.is_empty());
    let mut inputs: Vec<Array<f32>> = (0..bound_inputs)
        .map(|i| b.storage(&lettered("input", i), Access::Read))
        .collect();
    let out = b.storage::<f32>("out", Access::ReadWrite);
    if spec.in_place {
        inputs.push(out);
    }

    let column = (b.group().x() * PointwiseSpec::WORKGROUP + b.thread()).named("column");
    let token = b.group().y();
    b.if_(column.lt(spec.width), || {
        // Each input is read once, however often the expression uses it.
        let values: Vec<F32> = inputs
            .iter()
            .zip(&spec.inputs)
            .enumerate()
            .map(|(index, (array, lies))| {
                let row = token * lies.stride + lies.offset;
                match of_the_token(&spec.expression, index) {
                    true => array.load(row),
                    false => array.load(row + column),
                }
            })
            .collect();
        let value = evaluate(&spec.expression, &values);
        // In place, the output lies as the last input does.
        let at: U32 = match spec.inputs.last() {
            Some(lies) if spec.in_place => token * lies.stride + lies.offset + column,
            _ => token * spec.width + column,
        };
        out.store(at, value);
    });
}

fn missing_input(expression: &PointwiseExpr, inputs: usize) -> Option<usize> {
    match expression {
        PointwiseExpr::Input(index) | PointwiseExpr::TokenInput(index) => (*index >= inputs).then_some(*index),
        PointwiseExpr::Unary(_, x)
        | PointwiseExpr::Scale(_, x)
        | PointwiseExpr::Softcap(_, x)
        | PointwiseExpr::Clamp(_, x) => missing_input(x, inputs),
        PointwiseExpr::Binary(_, left, right) => missing_input(left, inputs).or_else(|| missing_input(right, inputs)),
    }
}

/// Whether the expression reads this input as one number a token. An input is read in one way only.
fn of_the_token(expression: &PointwiseExpr, input: usize) -> bool {
    match expression {
        PointwiseExpr::Input(_) => false,
        PointwiseExpr::TokenInput(index) => *index == input,
        PointwiseExpr::Unary(_, x)
        | PointwiseExpr::Scale(_, x)
        | PointwiseExpr::Softcap(_, x)
        | PointwiseExpr::Clamp(_, x) => of_the_token(x, input),
        PointwiseExpr::Binary(_, left, right) => of_the_token(left, input) || of_the_token(right, input),
    }
}

fn evaluate<'b>(expression: &PointwiseExpr, inputs: &[F32<'b>]) -> F32<'b> {
    match expression {
        PointwiseExpr::Input(index) | PointwiseExpr::TokenInput(index) => inputs[*index],
        PointwiseExpr::Clamp(limit, x) => evaluate(x, inputs).max(-*limit).min(*limit),
        PointwiseExpr::Unary(function, x) => unary(*function, evaluate(x, inputs)),
        PointwiseExpr::Binary(operator, left, right) => {
            let (left, right) = (evaluate(left, inputs), evaluate(right, inputs));
            match operator {
                Binary::Add => left + right,
                Binary::Sub => left - right,
                Binary::Mul => left * right,
            }
        }
        PointwiseExpr::Scale(factor, x) => evaluate(x, inputs) * *factor,
        PointwiseExpr::Softcap(cap, x) => softcap(*cap, evaluate(x, inputs)),
    }
}
