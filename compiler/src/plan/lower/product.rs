//! Matrix products: matrix-vector for one token, tiled for a chunk.

use egg::Id;

use super::{Columns, Lowering};
use crate::graph::Gate;
use crate::kernels::{Epilogue, GemmSpec, KernelSpec, MatvecSpec, Prologue};
use crate::plan::calls::{Extent, Operand, ValueId};
use crate::plan::matvec_shape::matvec_shape;
use crate::plan::weights::split_rows;
use crate::term::{Arrangement, LeafDef, MatrixLeaf, Phase, Term};

/// A product's epilogue: what is done, the operands it reads, and the residual among them.
#[derive(Default)]
struct LoweredEpilogue {
    steps: Vec<Epilogue>,
    operands: Vec<Operand>,
    residual: Option<ValueId>,
}

impl Lowering<'_> {
    /// A linear map that no rule has touched.
    pub(super) fn linear(&mut self, w: Id, x: Id, bias: Option<Id>) -> Columns {
        let mut tail = LoweredEpilogue::default();
        if let Some(bias) = bias {
            self.bias(bias, Arrangement::Concat, &mut tail);
        }
        let input = self.whole(x);
        self.product(w, input, Prologue::Direct, None, tail)
    }

    pub(super) fn matmul(&mut self, w: Id, prologue: Id, epilogue: Id) -> Columns {
        let arrangement = self.matrix(w).arrangement;
        let mut tail = LoweredEpilogue::default();
        self.tail(epilogue, arrangement, &mut tail);
        let (input, prologue, norm) = self.prologue(prologue);
        self.product(w, input, prologue, norm, tail)
    }

    /// The input of a product, what is done to it, and the operand that this takes.
    pub(super) fn prologue(&mut self, id: Id) -> (ValueId, Prologue, Option<Operand>) {
        match self.rewritten.term(id).clone() {
            Term::Direct([x]) => (self.whole(x), Prologue::Direct, None),
            Term::Normed([x, g, eps, unit_offset]) => {
                let prologue = Prologue::Norm {
                    eps: self.number(eps),
                    unit_offset: self.flag(unit_offset),
                };
                (self.whole(x), prologue, self.vector(g, Arrangement::Concat))
            }
            other => unreachable!("{other} is no prologue"),
        }
    }

    pub(super) fn matrix(&self, w: Id) -> MatrixLeaf {
        match self.rewritten.leaf(w) {
            LeafDef::Matrix(matrix) => matrix.clone(),
            other => unreachable!("a matrix, found {other:?}"),
        }
    }

    fn tail(&mut self, epilogue: Id, arrangement: Arrangement, tail: &mut LoweredEpilogue) {
        match self.rewritten.term(epilogue).clone() {
            Term::Store => {}
            Term::PlusBias([e, b]) => {
                self.tail(e, arrangement, tail);
                self.bias(b, arrangement, tail);
            }
            Term::Plus([e, r]) => {
                self.tail(e, arrangement, tail);
                let residual = self.whole(r);
                tail.steps.push(Epilogue::Add);
                tail.operands.push(Operand::Read(residual));
                tail.residual = Some(residual);
            }
            Term::ThenUnary([kind, e]) => {
                self.tail(e, arrangement, tail);
                tail.steps.push(Epilogue::Unary(self.activation_kind(kind)));
            }
            Term::ThenScale([factor, e]) => {
                self.tail(e, arrangement, tail);
                tail.steps.push(Epilogue::Scale(self.number(factor)));
            }
            Term::ThenSoftcap([cap, e]) => {
                self.tail(e, arrangement, tail);
                tail.steps.push(Epilogue::Softcap(self.number(cap)));
            }
            Term::ThenGlu([kind, e]) => {
                self.tail(e, arrangement, tail);
                tail.steps
                    .push(Epilogue::Glu(Gate::Activated(self.activation_kind(kind))));
            }
            other => unreachable!("{other} is no epilogue"),
        }
    }

    fn bias(&mut self, bias: Id, arrangement: Arrangement, tail: &mut LoweredEpilogue) {
        let LeafDef::Vector { parts, .. } = self.rewritten.leaf(bias).clone() else {
            unreachable!("a bias is a vector")
        };
        tail.steps.push(Epilogue::Bias);
        tail.operands.push(Operand::Vector(parts, arrangement));
    }

    fn product(
        &mut self,
        w: Id,
        input: ValueId,
        prologue: Prologue,
        norm: Option<Operand>,
        tail: LoweredEpilogue,
    ) -> Columns {
        let matrix = self.matrix(w);
        let mut reads = vec![Operand::Read(input)];
        reads.extend(norm);
        let halves = tail.steps.iter().any(|step| matches!(step, Epilogue::Glu(_)));
        let columns = |rows: u32| if halves { rows / 2 } else { rows };
        let width = columns(matrix.rows);
        let per_token = matches!(self.plan.values[input.0], Extent::PerToken(_));
        // The head works on one row of the hidden states; the first product selects it.
        let row_from_step = self.phase == Phase::Head && per_token;
        let out = self.plan.value(match self.phase {
            Phase::Head => Extent::Fixed(width),
            _ => Extent::PerToken(width),
        });
        let label = self.matrix_label(&matrix);
        for rows in split_rows(matrix.rows, matrix.cols, matrix.format, self.options.binding_limit) {
            let count = rows.end - rows.start;
            let out_offset = columns(rows.start);
            let mut operands = reads.clone();
            operands.push(Operand::Matrix(matrix.clone(), rows));
            operands.extend(tail.operands.iter().cloned());
            let spec = if self.phase == Phase::Prefill {
                operands.push(Operand::Step);
                KernelSpec::Gemm(GemmSpec {
                    rows: count,
                    cols: matrix.cols,
                    format: matrix.format,
                    prologue: prologue.clone(),
                    epilogue: tail.steps.clone(),
                    out_offset,
                    out_columns: width,
                })
            } else {
                if row_from_step {
                    operands.push(Operand::Step);
                }
                let shape = matvec_shape(&self.options.profile, count, matrix.cols, matrix.format);
                KernelSpec::Matvec(MatvecSpec {
                    rows: count,
                    cols: matrix.cols,
                    format: matrix.format,
                    prologue: prologue.clone(),
                    epilogue: tail.steps.clone(),
                    row_from_step,
                    out_offset,
                    workgroup: shape.workgroup,
                    rows_per_workgroup: shape.rows,
                    lane_words: shape.lane_words,
                })
            };
            operands.push(Operand::Write(out));
            self.call(spec, operands, label.clone(), tail.residual);
        }
        self.all_columns(out, width)
    }

    pub(super) fn matrix_label(&self, matrix: &MatrixLeaf) -> String {
        let short = |id: &crate::graph::WeightId| self.vector_label(std::slice::from_ref(id));
        matrix.parts.iter().map(short).collect::<Vec<_>>().join("+")
    }
}
