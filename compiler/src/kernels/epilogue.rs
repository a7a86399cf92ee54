//! What is done to the elements of a matrix product before they are stored.

use kiln_bundle::Access;

use super::activation::{gate_name, gated, softcap, unary};
use super::builder::{Array, Builder, F32, KernelError, U32};
use super::names::number;
use super::{Epilogue, Prologue};
use crate::graph::Gate;

/// The bound operands and the output of a matrix product.
pub struct Tail<'b> {
    /// Acts on single weight rows.
    before: Vec<Bound<'b>>,
    /// With `Glu`: the gate's function, and what acts on outputs.
    glu: Option<(Gate, Vec<Bound<'b>>)>,
    columns: u32,
    part: OutputPart,
    out: Array<'b, f32>,
}

/// Where the outputs of a matrix lie in those of the whole that it may be a part of.
#[derive(Clone, Copy)]
pub struct OutputPart {
    pub offset: u32,
    pub columns: u32,
}

#[derive(Clone)]
struct Bound<'b> {
    epilogue: Epilogue,
    operand: Option<Array<'b, f32>>,
}

/// Operands that are bound, the output still missing (the step buffer may lie between them).
pub struct EpilogueOperands<'b> {
    b: &'b Builder,
    entries: Vec<Bound<'b>>,
    rows: u32,
}

impl<'b> EpilogueOperands<'b> {
    /// Binds the operands of `list` in its order.
    pub fn bind(b: &'b Builder, list: &[Epilogue], rows: u32) -> Self {
        let entries = list
            .iter()
            .map(|epilogue| Bound {
                epilogue: epilogue.clone(),
                operand: match epilogue {
                    Epilogue::Bias => Some(b.storage("bias", Access::Read)),
                    Epilogue::Add => Some(b.storage("addend", Access::Read)),
                    _ => None,
                },
            })
            .collect();
        EpilogueOperands { b, entries, rows }
    }

    /// Binds the output, of which this matrix makes `part`.
    pub fn output(self, part: OutputPart) -> Tail<'b> {
        let out = self.b.storage("out", Access::ReadWrite);
        let glu = self
            .entries
            .iter()
            .position(|bound| matches!(bound.epilogue, Epilogue::Glu(_)));
        let mut before = self.entries;
        let glu = glu.map(|at| {
            let after = before.split_off(at + 1);
            match before.pop().map(|bound| bound.epilogue) {
                Some(Epilogue::Glu(function)) => (function, after),
                _ => unreachable!("found above"),
            }
        });
        let columns = self.rows / if glu.is_some() { 2 } else { 1 };
        Tail {
            before,
            glu,
            columns,
            part,
            out,
        }
    }
}

impl<'b> Tail<'b> {
    /// Output columns of this matrix.
    pub fn columns(&self) -> u32 {
        self.columns
    }

    /// 2 with `Glu` (gate and up), else 1.
    pub fn rows_per_output(&self) -> u32 {
        if self.glu.is_some() { 2 } else { 1 }
    }

    /// Finishes and stores output `column` of `token`: `products` are its [`Tail::rows_per_output`] dot products.
    pub fn store(&self, token: Option<U32<'b>>, column: U32<'b>, products: &[F32<'b>]) {
        let all = |list: &[Bound<'b>], value, column, columns| {
            list.iter()
                .fold(value, |value, bound| self.apply(bound, value, token, column, columns))
        };
        let columns = self.part.columns;
        let column = column + self.part.offset;
        let value = match &self.glu {
            None => all(&self.before, products[0], column, columns),
            Some((function, after)) => {
                let gate = all(&self.before, products[0], column * 2, columns * 2).named("gate");
                let up = all(&self.before, products[1], column * 2 + 1, columns * 2).named("up");
                all(after, gated(*function, gate, up), column, columns)
            }
        };
        self.out.store(place(token, column, columns), value);
    }

    fn apply(
        &self,
        bound: &Bound<'b>,
        value: F32<'b>,
        token: Option<U32<'b>>,
        column: U32<'b>,
        columns: u32,
    ) -> F32<'b> {
        match (&bound.epilogue, bound.operand) {
            (Epilogue::Bias, Some(bias)) => value + bias.load(column),
            (Epilogue::Add, Some(addend)) => value + addend.load(place(token, column, columns)),
            (Epilogue::AddInPlace, _) => value + self.out.load(place(token, column, columns)),
            (Epilogue::Unary(function), _) => unary(*function, value),
            (Epilogue::Scale(factor), _) => value * *factor,
            (Epilogue::Softcap(cap), _) => softcap(*cap, value),
            (Epilogue::Bias | Epilogue::Add | Epilogue::Glu(_), _) => unreachable!("bound in `EpilogueOperands::bind`"),
        }
    }
}

/// Index of `column` in a row of `width`.
fn place<'b>(token: Option<U32<'b>>, column: U32<'b>, width: u32) -> U32<'b> {
    match token {
        Some(token) => token * width + column,
        None => column,
    }
}

/// Refuses lists that the documentation of [`Epilogue`] rules out.
pub fn check(list: &[Epilogue], rows: u32, kernel: &str) -> Result<(), KernelError> {
    let glus = list.iter().filter(|entry| matches!(entry, Epilogue::Glu(_))).count();
    let in_place = list.iter().position(|entry| *entry == Epilogue::AddInPlace);
    let problem = if glus > 1 {
        "more than one gated unit"
    } else if glus == 1 && !rows.is_multiple_of(2) {
        "a gated unit with an odd number of rows"
    } else if in_place.is_some_and(|at| at + 1 != list.len()) {
        "the addition in place must come last"
    } else {
        return Ok(());
    };
    Err(KernelError::Unsupported {
        kernel: kernel.to_string(),
        what: problem.to_string(),
    })
}

/// The part of a kernel's name that says what is fused into it.
pub fn suffix(prologue: &Prologue, list: &[Epilogue]) -> String {
    let mut text = match prologue {
        Prologue::Direct => String::new(),
        Prologue::Norm {
            eps,
            unit_offset: false,
        } => format!("_norm{}", number(*eps)),
        Prologue::Norm { eps, unit_offset: true } => format!("_unitnorm{}", number(*eps)),
    };
    for entry in list {
        text.push_str(&match entry {
            Epilogue::Bias => "_bias".to_string(),
            Epilogue::AddInPlace => "_accumulate".to_string(),
            Epilogue::Add => "_add".to_string(),
            Epilogue::Unary(function) => format!("_{function:?}").to_lowercase(),
            Epilogue::Scale(factor) => format!("_times{}", number(*factor)),
            Epilogue::Softcap(cap) => format!("_cap{}", number(*cap)),
            Epilogue::Glu(function) => format!("_{}", gate_name(*function)),
        });
    }
    text
}
