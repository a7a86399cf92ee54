//! Mixtures of experts: routing, and the kernels of each plan.

use egg::Id;

use super::bank::BankPart;
use super::{Columns, Lowering};
use crate::cost::tile_height;
use crate::graph::{Gate, RouteSpec};
use crate::kernels::{
    CombineSpec, DenseDownSpec, Epilogue, ExpertDownSpec, ExpertUpSpec, GemmSpec, GroupSpec, GroupedDownSpec,
    GroupedUpSpec, KernelSpec, MatvecSpec, Prologue, Residual, RouteKernelSpec, RouterSpec, Slots,
};
use crate::plan::calls::{Extent, Operand, ValueId};
use crate::plan::matvec_shape::{MatvecShape, matvec_shape};
use crate::term::{Arrangement, BankLeaf, LeafDef, Phase, Term};

/// A mixture's sizes and gate.
#[derive(Clone, Copy)]
struct Mixture {
    experts: u32,
    k: u32,
    gate: Gate,
}

impl Lowering<'_> {
    pub(super) fn route(&mut self, spec: Id, scores: Id, bias: Id) -> Columns {
        let from = self.columns(scores);
        let (route, experts) = self.route_spec(spec);
        let bias = self.vector(bias, Arrangement::Concat);
        let spec = RouteKernelSpec {
            experts,
            route,
            scores: from.layout,
            selection_bias: bias.is_some(),
        };
        let width = 2 * route.experts_per_token;
        let out = self.plan.value(self.like(from.value, width));
        let mut operands = vec![Operand::Read(from.value)];
        operands.extend(bias);
        operands.push(Operand::Write(out));
        self.call(KernelSpec::Route(spec), operands, "routing", None);
        self.all_columns(out, width)
    }

    pub(super) fn router(&mut self, spec: Id, w: Id, prologue: Id, epilogue: Id, selection: Id) -> Columns {
        let matrix = self.matrix(w);
        let (route, experts) = self.route_spec(spec);
        let (x, prologue, norm) = self.prologue(prologue);
        let bias = match self.rewritten.term(epilogue).clone() {
            Term::PlusBias([_, b]) => self.vector(b, Arrangement::Concat),
            _ => None,
        };
        let selection = self.vector(selection, Arrangement::Concat);
        let spec = RouterSpec {
            experts,
            cols: matrix.cols,
            format: matrix.format,
            prologue,
            bias: bias.is_some(),
            route,
            selection_bias: selection.is_some(),
        };
        let width = 2 * route.experts_per_token;
        let out = self.plan.value(self.like(x, width));
        let mut operands = vec![Operand::Read(x)];
        operands.extend(norm);
        operands.push(Operand::Matrix(matrix.clone(), 0..matrix.rows));
        operands.extend(bias);
        operands.extend(selection);
        operands.push(Operand::Write(out));
        self.call(KernelSpec::Router(spec), operands, "router", None);
        self.all_columns(out, width)
    }

    pub(super) fn expert_up(&mut self, mixture: Id, routing: Id, prologue: Id, w: Id, b: Id) -> Columns {
        let (bank, Mixture { k, gate, .. }) = (self.bank(w), self.mixture(mixture));
        let routing = self.whole(routing);
        let (x, prologue, norm) = self.prologue(prologue);
        let bias = self.vector(b, Arrangement::Interleave);
        let width = k * bank.rows() / 2;
        let out = self.plan.value(self.like(x, width));
        let label = self.matrix_label(&bank.matrix);
        let others = 3 + usize::from(norm.is_some()) + usize::from(bias.is_some());
        for part in self.bank_parts(&bank, others) {
            let shape = self.shape(&bank);
            let spec = ExpertUpSpec {
                bank: part.spec,
                k,
                prologue: prologue.clone(),
                gate,
                bias: bias.is_some(),
                workgroup: shape.workgroup,
                rows_per_workgroup: shape.rows,
                lane_words: shape.lane_words,
            };
            let mut operands = vec![Operand::Read(x)];
            operands.extend(norm.clone());
            operands.push(Operand::Read(routing));
            operands.extend(part.operands);
            operands.extend(bias.clone());
            operands.push(Operand::Write(out));
            self.call(KernelSpec::ExpertUp(spec), operands, label.clone(), None);
        }
        self.all_columns(out, width)
    }

    pub(super) fn expert_down(&mut self, mixture: Id, routing: Id, a: Id, w: Id, b: Id, e: Id) -> Columns {
        let (bank, k) = (self.bank(w), self.mixture(mixture).k);
        let parts = |lowering: &Self, others| lowering.bank_parts(&bank, others);
        self.down(&bank, [routing, a, b, e], 3, parts, |lowering, part, bias, residual| {
            let shape = lowering.shape(&bank);
            KernelSpec::ExpertDown(ExpertDownSpec {
                bank: part,
                k,
                slots: Slots::Routed,
                bias,
                residual,
                workgroup: shape.workgroup,
                rows_per_workgroup: shape.rows,
                lane_words: shape.lane_words,
            })
        })
    }

    pub(super) fn dense_down(&mut self, mixture: Id, routing: Id, a: Id, w: Id, b: Id, e: Id) -> Columns {
        let (bank, k) = (self.bank(w), self.mixture(mixture).k);
        let tiled = self.phase == Phase::Prefill;
        let parts = |lowering: &Self, others| match tiled {
            true => lowering.bank_parts_of(&bank, 1),
            false => lowering.bank_parts(&bank, others),
        };
        self.down(&bank, [routing, a, b, e], 3, parts, |lowering, part, bias, residual| {
            if tiled {
                return KernelSpec::DenseDown(DenseDownSpec {
                    bank: part,
                    k,
                    bias,
                    residual,
                });
            }
            let shape = lowering.shape(&bank);
            KernelSpec::ExpertDown(ExpertDownSpec {
                bank: part,
                k,
                slots: Slots::All,
                bias,
                residual,
                workgroup: shape.workgroup,
                rows_per_workgroup: shape.rows,
                lane_words: shape.lane_words,
            })
        })
    }

    /// The dispatches that sum over experts; all but the first add to what is there.
    fn down(
        &mut self,
        bank: &BankLeaf,
        [routing, a, b, epilogue]: [Id; 4],
        bindings: usize,
        parts: impl Fn(&Self, usize) -> Vec<BankPart>,
        spec: impl Fn(&Self, crate::kernels::BankSpec, bool, Residual) -> KernelSpec,
    ) -> Columns {
        let routing = self.whole(routing);
        let a = self.whole(a);
        let bias = self.vector(b, Arrangement::Concat);
        let residual = self.residual(epilogue);
        let width = bank.rows();
        let out = self.plan.value(self.like(a, width));
        let label = self.matrix_label(&bank.matrix);
        let others = bindings + usize::from(bias.is_some()) + usize::from(residual.is_some());
        for (index, part) in parts(self, others).into_iter().enumerate() {
            let (how, added) = match residual {
                _ if index > 0 => (Residual::InPlace, None),
                Some(residual) => (Residual::Add, Some(residual)),
                None => (Residual::None, None),
            };
            let spec = spec(self, part.spec, bias.is_some(), how);
            let mut operands = vec![Operand::Read(a), Operand::Read(routing)];
            operands.extend(part.operands);
            operands.extend(bias.clone());
            if matches!(spec, KernelSpec::DenseDown(_)) {
                operands.push(Operand::Step);
            }
            operands.extend(added.map(Operand::Read));
            operands.push(Operand::Write(out));
            self.call(spec, operands, label.clone(), added);
        }
        self.all_columns(out, width)
    }

    pub(super) fn dense_up(&mut self, mixture: Id, x: Id, w: Id, b: Id) -> Columns {
        let (bank, gate) = (self.bank(w), self.mixture(mixture).gate);
        let matrix = &bank.matrix;
        let x = self.whole(x);
        let bias = self.vector(b, Arrangement::Interleave);
        let width = matrix.rows / 2;
        let out = self.plan.value(self.like(x, width));
        let label = self.matrix_label(matrix);
        let mut epilogue: Vec<Epilogue> = bias.iter().map(|_| Epilogue::Bias).collect();
        epilogue.push(Epilogue::Glu(gate));
        for part in self.bank_parts_of(&bank, 1) {
            let rows = part.spec.first * bank.rows()..(part.spec.first + part.spec.experts) * bank.rows();
            let (count, out_offset) = (rows.end - rows.start, rows.start / 2);
            let mut operands = vec![Operand::Read(x), Operand::Elements(matrix.clone(), rows.clone())];
            operands.extend(matrix.format.block().map(|_| Operand::Scales(matrix.clone(), rows)));
            operands.extend(bias.clone());
            let spec = if self.phase == Phase::Prefill {
                operands.push(Operand::Step);
                KernelSpec::Gemm(GemmSpec {
                    rows: count,
                    cols: matrix.cols,
                    format: matrix.format,
                    prologue: Prologue::Direct,
                    epilogue: epilogue.clone(),
                    out_offset,
                    out_columns: width,
                })
            } else {
                let shape = matvec_shape(&self.options.profile, count, matrix.cols, matrix.format);
                KernelSpec::Matvec(MatvecSpec {
                    rows: count,
                    cols: matrix.cols,
                    format: matrix.format,
                    prologue: Prologue::Direct,
                    epilogue: epilogue.clone(),
                    row_from_step: false,
                    out_offset,
                    workgroup: shape.workgroup,
                    rows_per_workgroup: shape.rows,
                    lane_words: shape.lane_words,
                })
            };
            operands.push(Operand::Write(out));
            self.call(spec, operands, label.clone(), None);
        }
        self.all_columns(out, width)
    }

    pub(super) fn group(&mut self, mixture: Id, routing: Id) -> Columns {
        let spec = self.group_spec(mixture);
        let routing = self.whole(routing);
        let words = spec.words();
        let out = self.plan.value(Extent::Fixed(words));
        let operands = vec![Operand::Read(routing), Operand::Step, Operand::Write(out)];
        self.call(KernelSpec::Group(spec), operands, "tokens by expert", None);
        self.all_columns(out, words)
    }

    pub(super) fn grouped_up(&mut self, mixture: Id, groups: Id, x: Id, w: Id, b: Id) -> Columns {
        let (bank, Mixture { k, gate, .. }) = (self.bank(w), self.mixture(mixture));
        let group = self.group_spec(mixture);
        self.grouped(&bank, [groups, x, b], k * bank.rows() / 2, |part, bias| {
            KernelSpec::GroupedUp(GroupedUpSpec {
                bank: part,
                group: group.clone(),
                gate,
                bias,
            })
        })
    }

    pub(super) fn grouped_down(&mut self, mixture: Id, groups: Id, a: Id, w: Id, b: Id) -> Columns {
        let (bank, k) = (self.bank(w), self.mixture(mixture).k);
        let group = self.group_spec(mixture);
        self.grouped(&bank, [groups, a, b], k * bank.rows(), |part, bias| {
            KernelSpec::GroupedDown(GroupedDownSpec {
                bank: part,
                group: group.clone(),
                bias,
            })
        })
    }

    fn grouped(
        &mut self,
        bank: &BankLeaf,
        [groups, x, b]: [Id; 3],
        width: u32,
        spec: impl Fn(crate::kernels::BankSpec, bool) -> KernelSpec,
    ) -> Columns {
        let (groups, x) = (self.whole(groups), self.whole(x));
        let arrangement = match bank.matrix.parts.len() {
            1 => Arrangement::Concat,
            _ => Arrangement::Interleave,
        };
        let bias = self.vector(b, arrangement);
        let out = self.plan.value(self.like(x, width));
        let label = self.matrix_label(&bank.matrix);
        for part in self.bank_parts(bank, 3 + usize::from(bias.is_some())) {
            let mut operands = vec![Operand::Read(x), Operand::Read(groups)];
            operands.extend(part.operands);
            operands.extend(bias.clone());
            operands.push(Operand::Write(out));
            self.call(spec(part.spec, bias.is_some()), operands, label.clone(), None);
        }
        self.all_columns(out, width)
    }

    pub(super) fn combine(&mut self, mixture: Id, routing: Id, y: Id, e: Id) -> Columns {
        let k = self.mixture(mixture).k;
        let (routing, from) = (self.whole(routing), self.columns(y));
        let residual = self.residual(e);
        let width = from.width / k;
        let out = self.plan.value(self.like(from.value, width));
        let spec = CombineSpec {
            width,
            k,
            residual: match residual {
                Some(_) => Residual::Add,
                None => Residual::None,
            },
        };
        let mut operands = vec![Operand::Read(from.value), Operand::Read(routing)];
        operands.extend(residual.map(Operand::Read));
        operands.push(Operand::Write(out));
        self.call(KernelSpec::Combine(spec), operands, "sum over experts", residual);
        self.all_columns(out, width)
    }

    /// What the epilogue adds, if anything.
    fn residual(&mut self, epilogue: Id) -> Option<ValueId> {
        match self.rewritten.term(epilogue).clone() {
            Term::Plus([_, residual]) => Some(self.whole(residual)),
            _ => None,
        }
    }

    fn shape(&self, bank: &BankLeaf) -> MatvecShape {
        matvec_shape(&self.options.profile, bank.rows(), bank.matrix.cols, bank.matrix.format)
    }

    fn group_spec(&self, mixture: Id) -> GroupSpec {
        let Mixture { experts, k, .. } = self.mixture(mixture);
        let tokens = match self.phase {
            Phase::Prefill => self.options.chunk,
            _ => 1,
        };
        GroupSpec {
            experts,
            k,
            tokens,
            tile: tile_height(u64::from(tokens) * u64::from(k), experts.into()) as u32,
        }
    }

    fn mixture(&self, id: Id) -> Mixture {
        match *self.rewritten.leaf(id) {
            LeafDef::Mixture { experts, k, gate } => Mixture { experts, k, gate },
            ref other => unreachable!("a mixture, found {other:?}"),
        }
    }

    fn route_spec(&self, id: Id) -> (RouteSpec, u32) {
        match *self.rewritten.leaf(id) {
            LeafDef::Route { spec, experts } => (spec, experts),
            ref other => unreachable!("a route, found {other:?}"),
        }
    }
}
