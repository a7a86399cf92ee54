//! Elementwise operators: chains of them become one kernel.

use egg::Id;

use super::{Columns, Lowering, MAX_BINDINGS};
use crate::graph::Binary;
use crate::kernels::{KernelSpec, PointwiseExpr, PointwiseSpec};
use crate::plan::calls::{Operand, ValueId};
use crate::rewrite::OptLevel;
use crate::term::Term;

/// Storage bindings that a chain may read: all but the output.
const MAX_INPUTS: usize = MAX_BINDINGS - 1;

impl Lowering<'_> {
    pub(super) fn pointwise(&mut self, id: Id) -> Columns {
        let mut inputs = Vec::new();
        let expression = self.expression(id, true, 0, &mut inputs);
        self.elementwise(inputs, expression, "elementwise")
    }

    /// A copy without what lies around it.
    pub(super) fn copy(&mut self, from: Columns) -> ValueId {
        self.elementwise(vec![from], PointwiseExpr::Input(0), "copy").value
    }

    fn elementwise(&mut self, inputs: Vec<Columns>, expression: PointwiseExpr, label: &str) -> Columns {
        let width = inputs[0].width;
        let out = self.plan.value(self.like(inputs[0].value, width));
        let spec = PointwiseSpec {
            width,
            inputs: inputs.iter().map(|input| input.layout).collect(),
            expression,
            in_place: false,
        };
        let mut operands: Vec<Operand> = inputs.iter().map(|input| Operand::Read(input.value)).collect();
        operands.push(Operand::Write(out));
        self.call(KernelSpec::Pointwise(spec), operands, label, None);
        self.all_columns(out, width)
    }

    /// The expression of a class. An elementwise operand that nothing else uses is spliced in, as long as there are
    /// bindings for its own operands. `reserved`: bindings that operands still to come need in any case.
    fn expression(&mut self, id: Id, root: bool, reserved: usize, inputs: &mut Vec<Columns>) -> PointwiseExpr {
        let id = self.rewritten.egraph.find(id);
        let term = self.rewritten.term(id).clone();
        let needed = match term {
            Term::Add(_) | Term::Sub(_) | Term::Mul(_) | Term::ScaleRows(_) => 2,
            _ => 1,
        };
        let splices = || {
            let alone = self.options.level == OptLevel::Full && self.uses[&id] == 1;
            alone && inputs.len() + needed + reserved <= MAX_INPUTS
        };
        if root || splices() {
            let of_one = |lowering: &mut Self, x: Id, inputs: &mut Vec<Columns>| {
                Box::new(lowering.expression(x, false, reserved, inputs))
            };
            let binary = |lowering: &mut Self, kind, [a, b]: [Id; 2], inputs: &mut Vec<Columns>| {
                let a = lowering.expression(a, false, reserved + 1, inputs);
                let b = lowering.expression(b, false, reserved, inputs);
                PointwiseExpr::Binary(kind, Box::new(a), Box::new(b))
            };
            match term {
                Term::Add(pair) => return binary(self, Binary::Add, pair, inputs),
                Term::Sub(pair) => return binary(self, Binary::Sub, pair, inputs),
                Term::Mul(pair) => return binary(self, Binary::Mul, pair, inputs),
                Term::Unary([kind, x]) => {
                    return PointwiseExpr::Unary(self.activation_kind(kind), of_one(self, x, inputs));
                }
                Term::Scale([factor, x]) => {
                    return PointwiseExpr::Scale(self.number(factor), of_one(self, x, inputs));
                }
                Term::Clamp([limit, x]) => {
                    return PointwiseExpr::Clamp(self.number(limit), of_one(self, x, inputs));
                }
                Term::Softcap([cap, x]) => {
                    return PointwiseExpr::Softcap(self.number(cap), of_one(self, x, inputs));
                }
                Term::ScaleRows([x, s]) => {
                    let x = self.expression(x, false, reserved + 1, inputs);
                    let s = self.columns(s);
                    // Always an input of its own: the kernel reads it in another way.
                    inputs.push(s);
                    let s = PointwiseExpr::TokenInput(inputs.len() - 1);
                    return PointwiseExpr::Binary(Binary::Mul, Box::new(x), Box::new(s));
                }
                _ => {}
            }
        }
        let columns = self.columns(id);
        let known = inputs
            .iter()
            .position(|input| input.value == columns.value && input.layout == columns.layout);
        PointwiseExpr::Input(known.unwrap_or_else(|| {
            inputs.push(columns);
            inputs.len() - 1
        }))
    }
}
