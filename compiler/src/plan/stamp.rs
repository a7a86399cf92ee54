//! Stamps the section plans over the layers: whole programs, with every binding resolved.

use std::collections::BTreeMap;

use kiln_bundle::{Access, Binding, Buffer, BufferKind, Dispatch, Grid, Programs};

use super::calls::{Call, Extent, Operand, SectionPlan, ValueId};
use super::lower::lower_section;
use super::memory::{self, Touches};
use super::weights::WeightTable;
use super::{PlanError, PlanOptions, RewrittenModel, VariantPlan, ring_slots};
use crate::graph::{ModelGraph, StateDecl, StateId};
use crate::kernels::{self, CacheType, KernelSource, KernelSpec, Variant};
use crate::rewrite::Phase;

/// Slots of the ring of sampled ids: more than steps are ever encoded ahead.
const OUTPUT_SLOTS: u32 = 1024;
/// Workgroups that look for the most likely token.
const SAMPLE_GROUPS: u32 = 64;

/// The buffers that occur once; they come first, in this order.
#[derive(Clone, Copy)]
enum Single {
    Step,
    Tokens,
    Output,
    Hidden,
    Logits,
}

/// Where a binding points before buffers have numbers.
#[derive(Clone, Copy)]
enum Target {
    Single(Single),
    Value(usize),
    State(usize),
    Weight(u32),
}

struct Resolved {
    kernel: usize,
    targets: Vec<(Target, Access)>,
    grid: [Grid; 3],
    label: String,
}

/// One program while it is put together.
#[derive(Default)]
struct Program {
    calls: Vec<Resolved>,
    /// Bytes of each value.
    bytes: Vec<u64>,
    /// Values that are a buffer of their own.
    pinned: BTreeMap<usize, Single>,
}

pub(super) struct Stamp<'a> {
    graph: &'a ModelGraph,
    model: &'a RewrittenModel,
    options: &'a PlanOptions,
    variant: Variant,
    weights: &'a mut WeightTable,
    kernels: Vec<(KernelSpec, KernelSource)>,
    states: Vec<(StateId, usize)>,
    used_weights: Vec<u32>,
    arenas: Vec<u64>,
}

impl<'a> Stamp<'a> {
    pub fn new(
        graph: &'a ModelGraph,
        model: &'a RewrittenModel,
        options: &'a PlanOptions,
        variant: Variant,
        weights: &'a mut WeightTable,
    ) -> Self {
        Stamp {
            graph,
            model,
            options,
            variant,
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
            self.sample_program()?,
        ];
        let placed: Vec<_> = programs.iter().map(|program| self.place(program)).collect();
        let [prefill, decode, head, sample]: [Vec<Dispatch>; 4] = std::array::from_fn(|index| {
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
            sample,
        };
        let weight_bytes = self
            .weights
            .weights
            .iter()
            .flat_map(|weight| weight.tensors(self.graph));
        let weight_bytes: Vec<u64> = weight_bytes.map(|(_, bytes)| bytes).collect();
        Ok(VariantPlan {
            variant: self.variant,
            limits: super::limits::limits(&kernels, &buffers, &programs, &weight_bytes, self.options.chunk),
            kernels,
            buffers,
            programs,
        })
    }

    fn cache_type(&self) -> CacheType {
        if self.variant == Variant::F16 {
            CacheType::F16
        } else {
            CacheType::F32
        }
    }

    fn layers_program(&mut self, phase: Phase) -> Result<Program, PlanError> {
        let model = self.model;
        let which = usize::from(phase == Phase::Decode);
        let lower = |rewritten| lower_section(self.graph, rewritten, self.options, phase, self.cache_type());
        let prologue = lower(&model.prologue[which]);
        let templates: Vec<SectionPlan> = model.layers.iter().map(|both| lower(&both[which])).collect();
        let mut program = Program::default();
        let mut carried = self.append(&mut program, &prologue, phase, None, None)?;
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
            &self.model.epilogue,
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

    fn sample_program(&mut self) -> Result<Program, PlanError> {
        let vocab = self.vocab();
        let mut plan = SectionPlan::default();
        let logits = plan.value(Extent::Fixed(vocab));
        let threshold = plan.value(Extent::Fixed(1));
        let partials = plan.value(Extent::Fixed(2 * SAMPLE_GROUPS));
        plan.input = Some(logits);
        let calls = [
            (
                KernelSpec::SampleThreshold { vocab },
                vec![Operand::Read(logits), Operand::Step, Operand::Write(threshold)],
                "top-k and top-p",
            ),
            (
                KernelSpec::SamplePartial {
                    vocab,
                    groups: SAMPLE_GROUPS,
                },
                vec![
                    Operand::Read(logits),
                    Operand::Step,
                    Operand::Read(threshold),
                    Operand::Write(partials),
                ],
                "most likely token",
            ),
            (
                KernelSpec::SampleFinal {
                    groups: SAMPLE_GROUPS,
                    slots: OUTPUT_SLOTS,
                },
                vec![
                    Operand::Read(partials),
                    Operand::AdvanceStep,
                    Operand::NextToken,
                    Operand::Output,
                ],
                "next token",
            ),
        ];
        plan.calls.extend(calls.map(|(spec, operands, label)| Call {
            spec,
            operands,
            label: label.to_string(),
            single_row: true,
            residual: None,
        }));
        let mut program = Program::default();
        let pinned = program.value(0);
        program.pinned.insert(pinned, Single::Logits);
        self.append(&mut program, &plan, Phase::Head, Some(pinned), None)?;
        Ok(program)
    }

    fn vocab(&self) -> u32 {
        let output = self.graph.epilogue.output;
        self.graph.epilogue.nodes[output].shape.dims[0].value() as u32
    }

    fn hidden_bytes(&self) -> u64 {
        let output = self.graph.prologue.output;
        let width = self.graph.prologue.nodes[output].shape.dims[0].value();
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
        let values: Vec<usize> = plan
            .values
            .iter()
            .enumerate()
            .map(|(index, extent)| match (plan.input == Some(ValueId(index)), carried) {
                (true, Some(carried)) => carried,
                _ => program.value(match *extent {
                    Extent::PerToken(width) => tokens * u64::from(width) * 4,
                    Extent::Fixed(elements) => u64::from(elements) * 4,
                }),
            })
            .collect();
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
        let source = kernels::build(spec, self.variant).map_err(|source| PlanError::Kernel {
            label: label.to_string(),
            source,
        })?;
        // Different specs may come to the same text.
        if let Some(known) = self.kernels.iter().position(|(_, known)| *known == source) {
            return Ok(known);
        }
        self.kernels.push((spec.clone(), source));
        Ok(self.kernels.len() - 1)
    }

    fn targets(&mut self, operand: &Operand, layer: usize, values: &[usize], targets: &mut Vec<(Target, Access)>) {
        let (target, access) = match operand {
            Operand::Read(value) => (Target::Value(values[value.0]), Access::Read),
            Operand::Write(value) => (Target::Value(values[value.0]), Access::ReadWrite),
            Operand::Matrix(matrix, rows) => {
                for tensor in self.weights.matrix(self.graph, layer, matrix, rows.clone()) {
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
            Operand::Step => (Target::Single(Single::Step), Access::Read),
            Operand::AdvanceStep => (Target::Single(Single::Step), Access::ReadWrite),
            Operand::Tokens => (Target::Single(Single::Tokens), Access::Read),
            Operand::NextToken => (Target::Single(Single::Tokens), Access::ReadWrite),
            Operand::Output => (Target::Single(Single::Output), Access::ReadWrite),
        };
        targets.push((target, access));
    }

    fn weight(&mut self, tensor: u32) -> Target {
        if !self.used_weights.contains(&tensor) {
            self.used_weights.push(tensor);
        }
        Target::Weight(tensor)
    }

    fn state(&mut self, state: StateId, layer: usize) -> Target {
        let key = (state, layer);
        let known = self.states.iter().position(|known| *known == key);
        Target::State(known.unwrap_or_else(|| {
            self.states.push(key);
            self.states.len() - 1
        }))
    }

    fn place(&mut self, program: &Program) -> Vec<Option<memory::Slot>> {
        let calls: Vec<Touches> = program
            .calls
            .iter()
            .map(|call| {
                let mut touches = Touches::default();
                for (target, access) in &call.targets {
                    if let Target::Value(value) = target {
                        match access {
                            Access::Read => touches.reads.push(*value),
                            Access::ReadWrite => touches.writes.push(*value),
                        }
                    }
                }
                touches
            })
            .collect();
        let bytes: Vec<Option<u64>> = program
            .bytes
            .iter()
            .enumerate()
            .map(|(value, bytes)| (!program.pinned.contains_key(&value)).then_some(*bytes))
            .collect();
        let (slots, arenas) = memory::assign(&calls, &bytes);
        for (index, bytes) in arenas.into_iter().enumerate() {
            if index == self.arenas.len() {
                self.arenas.push(0);
            }
            self.arenas[index] = self.arenas[index].max(bytes);
        }
        slots
    }

    fn dispatch(&self, call: &Resolved, program: &Program, slots: &[Option<memory::Slot>]) -> Dispatch {
        let first_arena = Single::Logits as u32 + 1;
        let first_state = first_arena + self.arenas.len() as u32;
        let first_weight = first_state + self.states.len() as u32;
        let bindings = call.targets.iter().map(|(target, _)| match *target {
            Target::Single(single) => Binding {
                buffer: single as u32,
                offset: 0,
                bytes: None,
            },
            Target::State(state) => Binding {
                buffer: first_state + state as u32,
                offset: 0,
                bytes: None,
            },
            Target::Weight(tensor) => {
                let position = self.used_weights.iter().position(|used| *used == tensor);
                let position = position.expect("every bound weight is listed") as u32;
                Binding {
                    buffer: first_weight + position,
                    offset: 0,
                    bytes: None,
                }
            }
            Target::Value(value) => match (program.pinned.get(&value), slots[value]) {
                (Some(single), _) => Binding {
                    buffer: *single as u32,
                    offset: 0,
                    bytes: None,
                },
                (None, slot) => {
                    let slot = slot.expect("every used value is placed");
                    Binding {
                        buffer: first_arena + slot.arena as u32,
                        offset: slot.offset,
                        bytes: Some(program.bytes[value]),
                    }
                }
            },
        });
        Dispatch {
            kernel: call.kernel as u32,
            bindings: bindings.collect(),
            grid: call.grid,
            label: call.label.clone(),
        }
    }

    fn buffers(&self) -> Vec<Buffer> {
        let named = |name: &str, kind| Buffer {
            name: name.to_string(),
            kind,
        };
        let mut buffers = vec![
            named("step", BufferKind::Step),
            named("tokens", BufferKind::Tokens),
            named("output", BufferKind::Output { slots: OUTPUT_SLOTS }),
            named(
                "hidden",
                BufferKind::Hidden {
                    bytes: self.hidden_bytes(),
                },
            ),
            named(
                "logits",
                BufferKind::Logits {
                    bytes: u64::from(self.vocab()) * 4,
                },
            ),
        ];
        for (index, bytes) in self.arenas.iter().enumerate() {
            buffers.push(named(&format!("arena.{index}"), BufferKind::Arena { bytes: *bytes }));
        }
        for (state, layer) in &self.states {
            let decl = &self.graph.states[state.0];
            let kind = self.state_kind(decl);
            buffers.push(named(&decl.name.replacen("{}", &layer.to_string(), 1), kind));
        }
        let names: Vec<String> = self
            .weights
            .weights
            .iter()
            .flat_map(|weight| weight.tensors(self.graph))
            .map(|(name, _)| name)
            .collect();
        for &weight in &self.used_weights {
            buffers.push(named(&names[weight as usize], BufferKind::Weight { weight }));
        }
        buffers
    }

    fn state_kind(&self, decl: &StateDecl) -> BufferKind {
        let element = match self.cache_type() {
            CacheType::F32 => 4,
            CacheType::F16 => 2,
        };
        let elements: usize = decl.shape.iter().map(|dim| dim.value()).product();
        BufferKind::State {
            bytes_per_position: (elements * decl.planes * element) as u64,
            positions: ring_slots(decl, self.options.chunk).map(u64::from),
        }
    }
}

impl Program {
    fn value(&mut self, bytes: u64) -> usize {
        self.bytes.push(bytes);
        self.bytes.len() - 1
    }
}
