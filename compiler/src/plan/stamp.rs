//! Stamps the section plans over the layers: whole programs of calls, each with the targets of its bindings.

use std::collections::BTreeMap;

use kiln_bundle::{Access, Dispatch, Grid, Programs};

use super::calls::{Extent, Operand, SectionPlan, ValueId};
use super::lower::lower_section;
use super::sampler::{BEFORE_GREEDY, adjuster, sampler};
use super::weights::{Portion, WeightTable};
use super::{PlanError, PlanOptions, RewrittenModel, VariantPlan};
use crate::graph::{ModelGraph, StateId};
use crate::kernels::{self, CacheType, Capability, KernelSource, KernelSpec};
use crate::term::Phase;

/// The buffers that occur once; they come first, in this order.
#[derive(Clone, Copy)]
pub(super) enum Single {
    Step,
    Tokens,
    Output,
    Hidden,
    Logits,
    History,
    Rules,
}

impl Single {
    /// How many there are.
    pub(super) const COUNT: u32 = Single::Rules as u32 + 1;
}

/// Where a binding points before buffers have numbers.
#[derive(Clone, Copy)]
pub(super) enum Bound {
    Single(Single),
    Value(usize),
    State(usize),
    Weight(u32),
}

pub(super) struct Resolved {
    pub(super) kernel: usize,
    pub(super) targets: Vec<(Bound, Access)>,
    pub(super) grid: [Grid; 3],
    pub(super) label: String,
}

/// One program while it is put together.
#[derive(Default)]
pub(super) struct Program {
    pub(super) calls: Vec<Resolved>,
    /// Bytes of each value.
    pub(super) bytes: Vec<u64>,
    /// Values that are a buffer of their own.
    pub(super) pinned: BTreeMap<usize, Single>,
}

/// The programs of one variant while they are put together.
pub(super) struct Stamp<'a> {
    pub(super) graph: &'a ModelGraph,
    pub(super) model: &'a RewrittenModel,
    pub(super) options: &'a PlanOptions,
    pub(super) capability: Capability,
    pub(super) weights: &'a mut WeightTable,
    pub(super) kernels: Vec<(KernelSpec, KernelSource)>,
    pub(super) states: Vec<(StateId, usize)>,
    pub(super) used_weights: Vec<u32>,
    pub(super) arenas: Vec<u64>,
}

impl<'a> Stamp<'a> {
    pub fn new(
        graph: &'a ModelGraph,
        model: &'a RewrittenModel,
        options: &'a PlanOptions,
        capability: Capability,
        weights: &'a mut WeightTable,
    ) -> Self {
        Stamp {
            graph,
            model,
            options,
            capability,
            weights,
            kernels: Vec::new(),
            states: Vec::new(),
            used_weights: Vec::new(),
            arenas: Vec::new(),
        }
    }

    pub fn run(mut self) -> Result<VariantPlan, PlanError> {
        let programs = [
            self.layers_program(Phase::Prefill)?,
            self.layers_program(Phase::Decode)?,
            self.head_program()?,
            self.program_on_logits(&adjuster(self.vocab()))?,
            self.program_on_logits(&sampler(self.vocab()))?,
        ];
        let placed: Vec<_> = programs.iter().map(|program| self.place(program)).collect();
        let [prefill, decode, head, adjust, sample]: [Vec<Dispatch>; 5] = std::array::from_fn(|index| {
            let (program, slots) = (&programs[index], &placed[index]);
            program
                .calls
                .iter()
                .map(|call| self.dispatch(call, program, slots))
                .collect()
        });
        let buffers = self.buffers();
        let kernels: Vec<KernelSource> = self.kernels.into_iter().map(|(_, source)| source).collect();
        let programs = Programs {
            prefill,
            decode,
            head,
            adjust,
            greedy: sample[BEFORE_GREEDY..].to_vec(),
            sample,
        };
        let weight_bytes = self
            .weights
            .weights
            .iter()
            .flat_map(|weight| weight.tensors(self.graph));
        let weight_bytes: Vec<u64> = weight_bytes.map(|(_, bytes)| bytes).collect();
        Ok(VariantPlan {
            capability: self.capability,
            limits: super::limits::limits(&kernels, &buffers, &programs, &weight_bytes, self.options.chunk),
            kernels,
            buffers,
            programs,
        })
    }

    pub(super) fn cache_type(&self) -> CacheType {
        self.capability.cache_type()
    }

    fn layers_program(&mut self, phase: Phase) -> Result<Program, PlanError> {
        let model = self.model;
        let which = usize::from(phase == Phase::Decode);
        let lower = |rewritten| lower_section(self.graph, rewritten, self.options, phase, self.cache_type());
        let entry = lower(&model.entry[which]);
        let templates: Vec<SectionPlan> = model.layers.iter().map(|both| lower(&both[which])).collect();
        let mut program = Program::default();
        let mut carried = self.append(&mut program, &entry, phase, None, None)?;
        for (position, layer) in self.graph.layers.iter().enumerate() {
            let template = model
                .templates
                .iter()
                .position(|template| template.layers.contains(&position));
            let plan = &templates[template.expect("every layer has a template")];
            carried = self.append(&mut program, plan, phase, carried, Some(layer.index))?;
        }
        if let Some(hidden) = carried {
            program.pinned.insert(hidden, Single::Hidden);
        }
        Ok(program)
    }

    fn head_program(&mut self) -> Result<Program, PlanError> {
        let plan = lower_section(
            self.graph,
            &self.model.head,
            self.options,
            Phase::Head,
            self.cache_type(),
        );
        let mut program = Program::default();
        let hidden = program.value(0);
        program.pinned.insert(hidden, Single::Hidden);
        let logits = self.append(&mut program, &plan, Phase::Head, Some(hidden), None)?;
        if let Some(logits) = logits {
            program.pinned.insert(logits, Single::Logits);
        }
        Ok(program)
    }

    fn program_on_logits(&mut self, plan: &SectionPlan) -> Result<Program, PlanError> {
        let mut program = Program::default();
        let pinned = program.value(0);
        program.pinned.insert(pinned, Single::Logits);
        self.append(&mut program, plan, Phase::Head, Some(pinned), None)?;
        Ok(program)
    }

    pub(super) fn vocab(&self) -> u32 {
        let output = self.graph.head.output;
        self.graph.head.nodes[output].shape.dims[0].value() as u32
    }

    pub(super) fn hidden_bytes(&self) -> u64 {
        let output = self.graph.entry.output;
        let width = self.graph.entry.nodes[output].shape.dims[0].value();
        u64::from(self.options.chunk) * width as u64 * 4
    }

    /// Appends a section's calls; `carried` is what enters it. Returns what leaves it.
    fn append(
        &mut self,
        program: &mut Program,
        plan: &SectionPlan,
        phase: Phase,
        carried: Option<usize>,
        layer: Option<usize>,
    ) -> Result<Option<usize>, PlanError> {
        let tokens = if phase == Phase::Decode {
            1
        } else {
            u64::from(self.options.chunk)
        };
        let mut values = Vec::with_capacity(plan.values.len());
        for (index, extent) in plan.values.iter().enumerate() {
            values.push(match (plan.input == Some(ValueId(index)), carried) {
                (true, Some(carried)) => carried,
                _ => program.value(match *extent {
                    Extent::PerToken(width) if tokens * u64::from(width) > u64::from(u32::MAX) => {
                        return Err(PlanError::Step { width, tokens });
                    }
                    Extent::PerToken(width) => tokens * u64::from(width) * 4,
                    Extent::Fixed(elements) => u64::from(elements) * 4,
                }),
            });
        }
        for call in &plan.calls {
            let label = match layer {
                Some(layer) => format!("layers.{layer} {}", call.label),
                None => call.label.clone(),
            };
            let kernel = self.kernel(&call.spec, &label)?;
            let mut targets = Vec::new();
            for operand in &call.operands {
                self.targets(operand, layer.unwrap_or(0), &values, &mut targets);
            }
            let takes = self.kernels[kernel].1.bindings.len();
            if takes != targets.len() {
                let kernel = self.kernels[kernel].1.name.clone();
                return Err(PlanError::Bindings {
                    label,
                    kernel,
                    takes,
                    given: targets.len(),
                });
            }
            let mut grid = call.spec.grid();
            if call.single_row {
                grid = grid.map(|size| Grid::Fixed(size.workgroups(1)));
            }
            program.calls.push(Resolved {
                kernel,
                targets,
                grid,
                label,
            });
        }
        Ok(plan.output.map(|output| values[output.0]))
    }

    fn kernel(&mut self, spec: &KernelSpec, label: &str) -> Result<usize, PlanError> {
        if let Some(known) = self.kernels.iter().position(|(known, _)| known == spec) {
            return Ok(known);
        }
        let source = kernels::build(spec, self.capability).map_err(|cause| PlanError::Kernel {
            label: label.to_string(),
            cause,
        })?;
        // Different specs may come to the same text.
        if let Some(known) = self.kernels.iter().position(|(_, known)| *known == source) {
            return Ok(known);
        }
        self.kernels.push((spec.clone(), source));
        Ok(self.kernels.len() - 1)
    }

    fn targets(&mut self, operand: &Operand, layer: usize, values: &[usize], targets: &mut Vec<(Bound, Access)>) {
        let (target, access) = match operand {
            Operand::Read(value) => (Bound::Value(values[value.0]), Access::Read),
            Operand::Write(value) => (Bound::Value(values[value.0]), Access::ReadWrite),
            Operand::Matrix(matrix, rows) | Operand::Elements(matrix, rows) | Operand::Scales(matrix, rows) => {
                let which = match operand {
                    Operand::Elements(..) => Portion::Elements,
                    Operand::Scales(..) => Portion::Scales,
                    _ => Portion::All,
                };
                for tensor in self.weights.matrix(self.graph, layer, matrix, rows.clone(), which) {
                    targets.push((self.weight(tensor), Access::Read));
                }
                return;
            }
            Operand::Vector(parts, arrangement) => {
                let tensor = self.weights.vector(self.graph, layer, parts, *arrangement);
                (self.weight(tensor), Access::Read)
            }
            Operand::Rope(rope) => {
                let tensor = self.weights.rope(self.graph, *rope);
                (self.weight(tensor), Access::Read)
            }
            Operand::ReadState(state) => (self.state(*state, layer), Access::Read),
            Operand::WriteState(state) => (self.state(*state, layer), Access::ReadWrite),
            Operand::Step => (Bound::Single(Single::Step), Access::Read),
            Operand::AdvanceStep => (Bound::Single(Single::Step), Access::ReadWrite),
            Operand::Tokens => (Bound::Single(Single::Tokens), Access::Read),
            Operand::NextToken => (Bound::Single(Single::Tokens), Access::ReadWrite),
            Operand::Output => (Bound::Single(Single::Output), Access::ReadWrite),
            Operand::History => (Bound::Single(Single::History), Access::Read),
            Operand::AppendHistory => (Bound::Single(Single::History), Access::ReadWrite),
            Operand::Rules => (Bound::Single(Single::Rules), Access::Read),
        };
        targets.push((target, access));
    }

    fn weight(&mut self, tensor: u32) -> Bound {
        if !self.used_weights.contains(&tensor) {
            self.used_weights.push(tensor);
        }
        Bound::Weight(tensor)
    }

    fn state(&mut self, state: StateId, layer: usize) -> Bound {
        let key = (state, layer);
        let known = self.states.iter().position(|known| *known == key);
        Bound::State(known.unwrap_or_else(|| {
            self.states.push(key);
            self.states.len() - 1
        }))
    }
}

impl Program {
    fn value(&mut self, bytes: u64) -> usize {
        self.bytes.push(bytes);
        self.bytes.len() - 1
    }
}
