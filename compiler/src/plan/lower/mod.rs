//! From a section's chosen term to kernel calls on values, in order of execution.

mod attention;
mod bank;
mod mixture;
mod pointwise;
mod product;
mod state;

use std::collections::BTreeMap;

use egg::{Id, Language};

use super::PlanOptions;
use super::calls::{Call, Extent, Operand, SectionPlan, ValueId};
use crate::graph::{ModelGraph, StateId, Unary};
use crate::kernels::{CacheType, GatherSpec, KernelSpec, NormSpec, SelectRowSpec, Strided};
use crate::rewrite::Rewritten;
use crate::term::{Arrangement, LeafDef, Phase, Term};

/// Storage buffers that every WebGPU device binds at once.
const MAX_BINDINGS: usize = 8;

/// Where the value of a class lies: columns of a value, all of them or a slice.
#[derive(Clone, Copy, Debug)]
struct Columns {
    value: ValueId,
    layout: Strided,
    width: u32,
}

/// Lowers one section. `cache` is the element type of KV caches in this variant.
pub fn lower_section(
    graph: &ModelGraph,
    rewritten: &Rewritten,
    options: &PlanOptions,
    phase: Phase,
    cache: CacheType,
) -> SectionPlan {
    let mut uses = BTreeMap::new();
    for term in rewritten.extraction.choice.values() {
        for &child in term.children() {
            *uses.entry(child).or_insert(0) += 1;
        }
    }
    let mut lowering = Lowering {
        graph,
        rewritten,
        options,
        phase,
        cache,
        uses,
        plan: SectionPlan::default(),
        lowered: BTreeMap::new(),
        caches: BTreeMap::new(),
    };
    let output = lowering.whole(rewritten.extraction.root);
    lowering.plan.output = Some(output);
    let mut plan = lowering.plan;
    // The head may run again on the same hidden states, for another row.
    super::in_place::share_residuals(&mut plan, phase != Phase::Head);
    plan
}

struct Lowering<'a> {
    graph: &'a ModelGraph,
    rewritten: &'a Rewritten,
    options: &'a PlanOptions,
    phase: Phase,
    cache: CacheType,
    /// How many chosen terms use a class.
    uses: BTreeMap<Id, usize>,
    plan: SectionPlan,
    lowered: BTreeMap<Id, Columns>,
    /// Caches whose writing call is made.
    caches: BTreeMap<Id, StateId>,
}

impl Lowering<'_> {
    /// Where the activation of a class lies, making the calls it needs.
    fn columns(&mut self, id: Id) -> Columns {
        let id = self.rewritten.egraph.find(id);
        if let Some(&known) = self.lowered.get(&id) {
            return known;
        }
        let columns = self.lower(id);
        self.lowered.insert(id, columns);
        columns
    }

    fn lower(&mut self, id: Id) -> Columns {
        let term = self.rewritten.term(id).clone();
        match term {
            Term::Leaf(_) => self.input(id),
            Term::Gather([table, _]) => self.gather(table, 1.0),
            Term::GatherScaled([factor, table, _]) => self.gather(table, self.number(factor)),
            Term::Linear([w, x]) => self.linear(w, x, None),
            Term::LinearBias([w, x, b]) => self.linear(w, x, Some(b)),
            Term::Matmul([w, prologue, epilogue]) => self.matmul(w, prologue, epilogue),
            Term::RmsNorm([x, g, eps, unit]) => self.norm(x, g, eps, unit, 1, None),
            Term::HeadNorm([x, g, eps, unit, heads]) => self.norm(x, g, eps, unit, self.count(heads), None),
            Term::NormAdd([x, g, eps, unit, r]) => self.norm(x, g, eps, unit, 1, Some(r)),
            Term::Slice([start, len, x]) => {
                let of = self.columns(x);
                let layout = Strided {
                    offset: of.layout.offset + self.count(start),
                    ..of.layout
                };
                Columns {
                    layout,
                    width: self.count(len),
                    ..of
                }
            }
            Term::Rope([rope, heads, x]) => self.rope(rope, heads, x),
            Term::Attention([spec, q, cache, sinks]) => self.attention(spec, q, cache, sinks),
            Term::AttentionReduce([_, partials, sinks]) => self.attention_reduce(partials, sinks),
            Term::QueriesOf([both]) => self.rope_cache(both).0,
            Term::Unary(_) | Term::Add(_) | Term::Sub(_) | Term::Mul(_) | Term::Scale(_) | Term::Softcap(_) => {
                self.pointwise(id)
            }
            Term::Clamp(_) | Term::ScaleRows(_) => self.pointwise(id),
            Term::Convolution(operands) => self.convolution(operands),
            Term::GatedDelta(operands) => self.gated_delta(operands),
            Term::Route([spec, scores, bias]) => self.route(spec, scores, bias),
            Term::Router([spec, w, prologue, epilogue, bias]) => self.router(spec, w, prologue, epilogue, bias),
            Term::ExpertUp([mixture, routing, prologue, w, b]) => self.expert_up(mixture, routing, prologue, w, b),
            Term::ExpertDown([mixture, routing, a, w, b, e]) => self.expert_down(mixture, routing, a, w, b, e),
            Term::Group([mixture, routing]) => self.group(mixture, routing),
            Term::GroupedUp([mixture, groups, x, w, b]) => self.grouped_up(mixture, groups, x, w, b),
            Term::GroupedDown([mixture, groups, a, w, b]) => self.grouped_down(mixture, groups, a, w, b),
            Term::Combine([mixture, routing, y, e]) => self.combine(mixture, routing, y, e),
            Term::DenseUp([mixture, x, w, b]) => self.dense_up(mixture, x, w, b),
            Term::DenseDown([mixture, routing, a, w, b, e]) => self.dense_down(mixture, routing, a, w, b, e),
            other => unreachable!("{other} is no activation"),
        }
    }

    /// The value of a class with nothing around it: a slice is copied out.
    fn whole(&mut self, id: Id) -> ValueId {
        let columns = self.columns(id);
        if columns.layout
            == (Strided {
                stride: columns.width,
                offset: 0,
            })
        {
            return columns.value;
        }
        self.copy(columns)
    }

    /// The rows of a value that follows from `x`: the tokens of the step, or one.
    fn like(&self, x: ValueId, width: u32) -> Extent {
        match self.plan.values[x.0] {
            Extent::PerToken(_) => Extent::PerToken(width),
            Extent::Fixed(_) => Extent::Fixed(width),
        }
    }

    fn all_columns(&self, value: ValueId, width: u32) -> Columns {
        Columns {
            value,
            layout: Strided {
                stride: width,
                offset: 0,
            },
            width,
        }
    }

    /// Adds a call; whether it runs for one row follows from what it writes.
    fn call(&mut self, spec: KernelSpec, operands: Vec<Operand>, label: impl Into<String>, residual: Option<ValueId>) {
        let single_row = operands.iter().any(
            |operand| matches!(operand, Operand::Write(value) if matches!(self.plan.values[value.0], Extent::Fixed(_))),
        );
        self.plan.calls.push(Call {
            spec,
            operands,
            label: label.into(),
            single_row,
            residual,
        });
    }

    fn input(&mut self, id: Id) -> Columns {
        let LeafDef::Input { width } = *self.rewritten.leaf(id) else {
            unreachable!("only the input is an activation without a kernel")
        };
        let value = self.plan.value(Extent::PerToken(width));
        self.plan.input = Some(value);
        if self.phase != Phase::Head || self.only_products_read(id) {
            return self.all_columns(value, width);
        }
        // The head works on one row of the hidden states. A product finds it by itself; other kernels would not.
        let row = self.plan.value(Extent::Fixed(width));
        let operands = vec![Operand::Read(value), Operand::Step, Operand::Write(row)];
        self.call(KernelSpec::SelectRow(SelectRowSpec { width }), operands, "row", None);
        self.all_columns(row, width)
    }

    /// Whether the chosen program reads a class as the input of matrix products and in no other way.
    fn only_products_read(&self, id: Id) -> bool {
        let choice = &self.rewritten.extraction.choice;
        let reads = |term: &&Term, id: Id| term.children().contains(&id);
        let in_product = |(prologue, term): (&Id, &Term)| match term {
            Term::Linear([_, x]) | Term::LinearBias([_, x, _]) => *x == id,
            Term::Direct([x]) | Term::Normed([x, ..]) if *x == id => {
                let mut users = choice.values().filter(|term| reads(term, *prologue));
                users.all(|user| matches!(user, Term::Matmul(_)))
            }
            _ => false,
        };
        let mut readers = choice.iter().filter(|(_, term)| reads(term, id));
        self.rewritten.extraction.root != id && readers.all(in_product)
    }

    fn gather(&mut self, table: Id, scale: f32) -> Columns {
        let LeafDef::Matrix(matrix) = self.rewritten.leaf(table).clone() else {
            unreachable!("an embedding table is a matrix")
        };
        let out = self.plan.value(Extent::PerToken(matrix.cols));
        let parts = super::weights::split_rows(matrix.rows, matrix.cols, matrix.format, self.options.binding_limit);
        // Beside the table: tokens and output.
        let bindings_of_a_part = 1 + usize::from(matrix.format.block().is_some());
        for together in parts.chunks((MAX_BINDINGS - 2) / bindings_of_a_part) {
            let ([first, ..], [.., last]) = (together, together) else {
                continue;
            };
            let spec = GatherSpec {
                rows: last.end - first.start,
                first_row: first.start,
                per_binding: first.end - first.start,
                width: matrix.cols,
                format: matrix.format,
                scale,
            };
            let table = together
                .iter()
                .map(|rows| Operand::Matrix(matrix.clone(), rows.clone()));
            let operands = table.chain([Operand::Tokens, Operand::Write(out)]).collect();
            self.call(KernelSpec::Gather(spec), operands, "embedding", None);
        }
        self.all_columns(out, matrix.cols)
    }

    fn norm(&mut self, x: Id, g: Id, eps: Id, unit_offset: Id, per_token: u32, residual: Option<Id>) -> Columns {
        let from = self.columns(x);
        let residual = residual.map(|residual| self.whole(residual));
        let LeafDef::Vector { parts, len } = self.rewritten.leaf(g).clone() else {
            unreachable!("a norm weight is a vector")
        };
        let label = self.vector_label(&parts);
        let out = self.plan.value(self.like(from.value, from.width));
        let spec = NormSpec {
            width: len,
            per_token,
            eps: self.number(eps),
            unit_offset: self.flag(unit_offset),
            add: residual.is_some(),
            x_stride: from.layout.stride,
            x_offset: from.layout.offset,
        };
        let operands = vec![
            Operand::Read(from.value),
            Operand::Vector(parts, Arrangement::Concat),
            Operand::Write(out),
        ];
        self.call(KernelSpec::Norm(spec), operands, label, residual);
        self.all_columns(out, from.width)
    }

    fn vector_label(&self, parts: &[crate::graph::WeightId]) -> String {
        let name = parts.first().map_or("norm", |part| &self.graph.weights[part.0].name);
        let name = name.trim_end_matches(".weight");
        name.rsplit('.').next().unwrap_or(name).to_string()
    }

    /// A vector's binding; none where it is absent.
    fn vector(&self, id: Id, arrangement: Arrangement) -> Option<Operand> {
        match self.rewritten.leaf(id) {
            LeafDef::Vector { parts, .. } => Some(Operand::Vector(parts.clone(), arrangement)),
            _ => None,
        }
    }

    fn number(&self, id: Id) -> f32 {
        match self.rewritten.leaf(id) {
            LeafDef::Number(value) => *value,
            other => unreachable!("a number, found {other:?}"),
        }
    }

    fn count(&self, id: Id) -> u32 {
        match self.rewritten.leaf(id) {
            LeafDef::Count(value) => *value,
            other => unreachable!("a count, found {other:?}"),
        }
    }

    fn flag(&self, id: Id) -> bool {
        matches!(self.rewritten.leaf(id), LeafDef::Flag(true))
    }

    fn activation_kind(&self, id: Id) -> Unary {
        match self.rewritten.leaf(id) {
            LeafDef::Activation(kind) => *kind,
            other => unreachable!("an activation, found {other:?}"),
        }
    }
}
