//! From targets to buffers: places values in arenas, numbers the buffers, writes the dispatches.

use kiln_bundle::{Access, Binding, Buffer, BufferKind, Dispatch};

use super::memory::{self, Touches};
use super::ring_slots;
use super::sampler::{HISTORY_ENTRY_BYTES, OUTPUT_SLOTS, RULES_BYTES};
use super::stamp::{Bound, Program, Resolved, Single, Stamp};
use crate::graph::{StateDecl, StateKind};
use crate::kernels::CacheType;

impl Stamp<'_> {
    pub(super) fn place(&mut self, program: &Program) -> Vec<Option<memory::Slot>> {
        let calls: Vec<Touches> = program
            .calls
            .iter()
            .map(|call| {
                let mut touches = Touches::default();
                for (target, access) in &call.targets {
                    if let Bound::Value(value) = target {
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

    pub(super) fn dispatch(&self, call: &Resolved, program: &Program, slots: &[Option<memory::Slot>]) -> Dispatch {
        let first_arena = Single::COUNT;
        let first_state = first_arena + self.arenas.len() as u32;
        let first_weight = first_state + self.states.len() as u32;
        let bindings = call.targets.iter().map(|(target, _)| match *target {
            Bound::Single(single) => Binding {
                buffer: single as u32,
                offset: 0,
                bytes: None,
            },
            Bound::State(state) => Binding {
                buffer: first_state + state as u32,
                offset: 0,
                bytes: None,
            },
            Bound::Weight(tensor) => {
                let position = self.used_weights.iter().position(|used| *used == tensor);
                let position = position.expect("every bound weight is listed") as u32;
                Binding {
                    buffer: first_weight + position,
                    offset: 0,
                    bytes: None,
                }
            }
            Bound::Value(value) => match (program.pinned.get(&value), slots[value]) {
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

    pub(super) fn buffers(&self) -> Vec<Buffer> {
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
            named(
                "history",
                BufferKind::History {
                    bytes_per_position: HISTORY_ENTRY_BYTES,
                },
            ),
            named("rules", BufferKind::Rules { bytes: RULES_BYTES }),
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
        let cache_element = match self.cache_type() {
            CacheType::F32 => 4,
            CacheType::F16 => 2,
        };
        let elements: u64 = decl.shape.iter().map(|dim| dim.value() as u64).product();
        let (bytes_per_position, window) = match decl.kind {
            StateKind::Cache { window } => (2 * elements * cache_element, window),
            StateKind::Convolution { taps } => (4 * elements, Some(taps)),
            StateKind::Recurrent => return BufferKind::Recurrent { bytes: 4 * elements },
        };
        BufferKind::State {
            bytes_per_position,
            positions: ring_slots(decl, self.options.chunk).map(u64::from),
            // Neither reads its own position's entry of before.
            window: window.map(|window| window as u64 - 1),
        }
    }
}
