//! The states of a session on the device, and the way back to earlier positions.
//!
//! A growing cache can go back anywhere: what lies beyond a position is never read. A ring can go back as long as the
//! entries that its window needs are not overwritten. A recurrent state sums up all tokens, so it goes back only to a
//! copy of it: a *snapshot* of all recurrent states and of the rings' windows, kept on the device.

use std::sync::Arc;

use kiln_bundle::{BufferKind, Variant};

use crate::Error;
use crate::device::{Device, OwnedBuffer};

/// Snapshots kept at most; each takes as much memory as the recurrent states themselves.
pub(crate) const MAX_SNAPSHOTS: usize = 3;

/// Tokens generated between snapshots: what is fed again at most (but for steps run ahead) after a generation stopped
/// early.
const SNAPSHOT_EVERY: u32 = 64;

/// All states of a session.
pub(super) struct States {
    all: Vec<State>,
    /// Tokens that the states have gone through. More than the session's position while a generation runs ahead.
    reached: u32,
    snapshots: Vec<Snapshot>,
    most_snapshots: usize,
    /// Some ring is shorter than the context.
    has_short_rings: bool,
}

pub(super) struct State {
    pub(super) name: String,
    pub(super) buffer: wgpu::Buffer,
    pub(super) kind: StateKind,
    /// Rings: entries of earlier positions are lost.
    pub(super) intact_from: u64,
}

/// Sizes in bytes.
#[derive(Clone, Copy)]
pub(super) enum StateKind {
    /// An entry for each position of the context.
    Growing {
        #[cfg_attr(
            target_arch = "wasm32",
            expect(dead_code, reason = "only saving asks, which is JavaScript's there")
        )]
        entry: u64,
    },
    /// The entry of position `p` in slot `p % slots`; entries `p - window .. p` must be there to go on at `p`. Entries
    /// before position 0 are zero.
    Ring {
        entry: u64,
        slots: u64,
        window: u64,
    },
    Recurrent {
        bytes: u64,
    },
}

/// A copy of what cannot go back by position.
struct Snapshot {
    /// Tokens that it stands for; `None`: free.
    position: Option<u32>,
    /// Taken while generating: the next of its sort replaces it.
    passing: bool,
    /// One for each ring and recurrent state.
    copies: Vec<OwnedBuffer>,
}

/// How to get to an earlier position.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WayBack {
    /// The states are there already.
    Stay,
    /// What is needed at this position is still there.
    Direct(u32),
    /// The number of a snapshot.
    Snapshot(usize),
    /// Only by feeding everything again.
    Nothing,
}

impl StateKind {
    fn of(kind: &BufferKind) -> Option<Self> {
        match *kind {
            BufferKind::State {
                bytes_per_position: entry,
                positions: Some(slots),
                window,
            } => Some(Self::Ring {
                entry,
                slots,
                window: window.unwrap_or(slots),
            }),
            BufferKind::State {
                bytes_per_position: entry,
                ..
            } => Some(Self::Growing { entry }),
            BufferKind::Recurrent { bytes } => Some(Self::Recurrent { bytes }),
            _ => None,
        }
    }

    /// Where the parts of a snapshot at this position lie in the state: (offset, bytes), in the order in which the
    /// snapshot holds them.
    fn snapshot_ranges(self, position: u32) -> Vec<(u64, u64)> {
        match self {
            Self::Growing { .. } => Vec::new(),
            Self::Recurrent { bytes } => vec![(0, bytes)],
            Self::Ring { entry, slots, window } => {
                // Also where the window reaches before position 0: those slots hold its zeros.
                let first = (slots + u64::from(position) % slots - window) % slots;
                let to_end = window.min(slots - first);
                let parts = [(first, to_end), (0, window - to_end)];
                let parts = parts.into_iter().filter(|(_, entries)| *entries > 0);
                parts.map(|(slot, entries)| (slot * entry, entries * entry)).collect()
            }
        }
    }
}

impl States {
    /// `buffers` are those of the variant, in its order.
    pub(super) fn new(variant: &Variant, buffers: &[Arc<OwnedBuffer>], context: u32) -> Self {
        let all: Vec<State> = variant
            .buffers
            .iter()
            .zip(buffers)
            .filter_map(|(buffer, owned)| {
                Some(State {
                    name: buffer.name.clone(),
                    buffer: owned.buffer.clone(),
                    kind: StateKind::of(&buffer.kind)?,
                    intact_from: 0,
                })
            })
            .collect();
        let short = |state: &State| matches!(state.kind, StateKind::Ring { slots, .. } if slots < context.into());
        Self {
            has_short_rings: all.iter().any(short),
            all,
            reached: 0,
            snapshots: Vec::new(),
            most_snapshots: MAX_SNAPSHOTS,
        }
    }

    pub(super) fn all(&self) -> &[State] {
        &self.all
    }

    /// Steps up to this position are submitted.
    pub(super) fn advance_to(&mut self, position: u32) {
        self.reached = position;
    }

    /// Whether rewinding needs snapshots: some state sums up all tokens.
    pub(super) fn is_recurrent(&self) -> bool {
        self.all
            .iter()
            .any(|state| matches!(state.kind, StateKind::Recurrent { .. }))
    }

    /// Whether snapshots help: see [`super::Session::mark`].
    pub(super) fn can_lose_the_past(&self) -> bool {
        self.has_short_rings || self.is_recurrent()
    }

    /// Steps that may run beyond a position and leave the rings able to go back to it.
    pub(super) fn ring_slack(&self) -> Option<u32> {
        let slacks = self.all.iter().filter_map(|state| match state.kind {
            StateKind::Ring { slots, window, .. } => Some(slots - window),
            _ => None,
        });
        slacks.min().map(|slack| u32::try_from(slack).unwrap_or(u32::MAX))
    }

    /// Whether a generation has come far enough for another snapshot.
    pub(super) fn is_snapshot_due(&self) -> bool {
        let newest = self.snapshots.iter().filter_map(|snapshot| snapshot.position).max();
        self.is_recurrent() && self.reached - newest.unwrap_or(0).min(self.reached) >= SNAPSHOT_EVERY
    }

    /// The best way to `position` or, where there is none, to the nearest position before it.
    pub(super) fn way_back(&self, position: u32) -> WayBack {
        if position == self.reached {
            return WayBack::Stay;
        }
        if !self.is_recurrent() && self.all.iter().all(|state| self.holds_window(state, position)) {
            return WayBack::Direct(position);
        }
        let snapshots = self.snapshots.iter().enumerate();
        let before = snapshots.filter_map(|(index, snapshot)| Some((snapshot.position?, index)));
        match before.filter(|(taken, _)| *taken <= position).max() {
            Some((_, index)) => WayBack::Snapshot(index),
            None => WayBack::Nothing,
        }
    }

    fn holds_window(&self, state: &State, position: u32) -> bool {
        match state.kind {
            StateKind::Ring { slots, window, .. } => {
                // Entries before position 0 are zero and can be made again.
                let needed = u64::from(position).saturating_sub(window);
                needed >= state.intact_from.max(u64::from(self.reached).saturating_sub(slots))
            }
            _ => true,
        }
    }

    /// Goes there and returns the position.
    pub(super) fn go_back(&mut self, way: WayBack, encoder: &mut wgpu::CommandEncoder) -> u32 {
        match way {
            WayBack::Stay => {}
            WayBack::Direct(position) => self.go_back_directly(position, encoder),
            WayBack::Snapshot(index) => self.take_up(index, encoder),
            WayBack::Nothing => self.clear(encoder),
        }
        self.forget_snapshots_beyond(self.reached);
        self.reached
    }

    fn go_back_directly(&mut self, position: u32, encoder: &mut wgpu::CommandEncoder) {
        let (position, reached) = (u64::from(position), u64::from(self.reached));
        for state in &mut self.all {
            if let StateKind::Ring { entry, slots, window } = state.kind {
                state.intact_from = state.intact_from.max(reached.saturating_sub(slots));
                let before_start = window.saturating_sub(position);
                if before_start > 0 {
                    let offset = (slots - before_start) * entry;
                    encoder.clear_buffer(&state.buffer, offset, Some(before_start * entry));
                }
            }
        }
        self.reached = position as u32;
    }

    fn take_up(&mut self, index: usize, encoder: &mut wgpu::CommandEncoder) {
        let snapshot = &self.snapshots[index];
        let Some(position) = snapshot.position else {
            return;
        };
        let states = self.all.iter_mut().filter(|state| state.is_in_snapshots());
        for (state, copy) in states.zip(&snapshot.copies) {
            let mut from = 0;
            for (offset, bytes) in state.kind.snapshot_ranges(position) {
                encoder.copy_buffer_to_buffer(&copy.buffer, from, &state.buffer, offset, bytes);
                from += bytes;
            }
            if let StateKind::Ring { window, .. } = state.kind {
                state.intact_from = u64::from(position).saturating_sub(window);
            }
        }
        self.reached = position;
    }

    /// Zeros, as at the start.
    pub(super) fn clear(&mut self, encoder: &mut wgpu::CommandEncoder) {
        for state in &mut self.all {
            encoder.clear_buffer(&state.buffer, 0, None);
            state.intact_from = 0;
        }
        self.reached = 0;
        self.forget_snapshots_beyond(0);
    }

    fn forget_snapshots_beyond(&mut self, position: u32) {
        for snapshot in &mut self.snapshots {
            snapshot.position = snapshot.position.filter(|taken| *taken <= position);
        }
    }

    /// After the states of another session were uploaded; `intact_from` has one number for each state.
    pub(super) fn continue_at(&mut self, position: u32, intact_from: impl IntoIterator<Item = u64>) {
        self.reached = position;
        for (state, intact_from) in self.all.iter_mut().zip(intact_from) {
            state.intact_from = intact_from;
        }
    }

    /// Makes the position reached one that can be gone back to, if the device has the memory.
    ///
    /// # Errors
    /// An operation that the device refuses.
    pub(super) async fn take_snapshot(&mut self, device: &Arc<Device>, passing: bool) -> Result<(), Error> {
        let position = self.reached;
        let taken = |snapshot: &Snapshot| snapshot.position == Some(position);
        if position == 0 || self.snapshots.iter().any(taken) {
            return Ok(());
        }
        let Some(index) = self.place(device, passing).await? else {
            return Ok(());
        };
        let mut encoder = device
            .gpu
            .create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let snapshot = &mut self.snapshots[index];
        (snapshot.position, snapshot.passing) = (Some(position), passing);
        let states = self.all.iter().filter(|state| state.is_in_snapshots());
        for (state, copy) in states.zip(&snapshot.copies) {
            let mut to = 0;
            for (offset, bytes) in state.kind.snapshot_ranges(position) {
                encoder.copy_buffer_to_buffer(&state.buffer, offset, &copy.buffer, to, bytes);
                to += bytes;
            }
        }
        device.submit(Some(encoder.finish()));
        device.check()
    }

    /// The number of a snapshot that may be overwritten: the passing one for a passing one, a free one, a new one, or
    /// the one that is furthest back. `None` where there is no memory for any.
    async fn place(&mut self, device: &Arc<Device>, passing: bool) -> Result<Option<usize>, Error> {
        let find = |is: &dyn Fn(&Snapshot) -> bool| self.snapshots.iter().position(is);
        let passed = find(&|snapshot| passing && snapshot.passing && snapshot.position.is_some());
        if let Some(index) = passed.or_else(|| find(&|snapshot| snapshot.position.is_none())) {
            return Ok(Some(index));
        }
        if self.snapshots.len() < self.most_snapshots {
            match self.allocate(device).await {
                Ok(copies) => self.snapshots.push(Snapshot {
                    position: None,
                    passing,
                    copies,
                }),
                // Without it a rewind feeds more again, but nothing fails.
                Err(Error::OutOfMemory { .. }) => self.most_snapshots = self.snapshots.len(),
                Err(error) => return Err(error),
            }
        }
        let all = self.snapshots.iter().enumerate();
        Ok(all
            .min_by_key(|(_, snapshot)| snapshot.position)
            .map(|(index, _)| index))
    }

    async fn allocate(&self, device: &Arc<Device>) -> Result<Vec<OwnedBuffer>, Error> {
        let mut copies = Vec::new();
        for state in self.all.iter().filter(|state| state.is_in_snapshots()) {
            let ranges = state.kind.snapshot_ranges(0);
            let bytes = ranges.iter().map(|(_, bytes)| bytes).sum();
            let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
            copies.push(device.buffer(&state.name, bytes, usage).await?);
        }
        Ok(copies)
    }
}

impl State {
    fn is_in_snapshots(&self) -> bool {
        match self.kind {
            StateKind::Growing { .. } => false,
            StateKind::Ring { window, .. } => window > 0,
            StateKind::Recurrent { .. } => true,
        }
    }
}
