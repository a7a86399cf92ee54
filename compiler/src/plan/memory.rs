//! Memory: values of one program into few arenas.
//!
//! A value lives from the call that first touches it to the last; values that live at the same time do not overlap.
//! Native WebGPU forbids one buffer to be bound read-only and writable in one dispatch, whatever the ranges, so what
//! a call reads and what it writes lie in different arenas. First fit, in order of birth: deterministic, and near
//! optimal for the short-lived values of a decoder.

/// A value of the whole program; what a call reads and writes.
#[derive(Clone, Debug, Default)]
pub struct Touches {
    pub reads: Vec<usize>,
    pub writes: Vec<usize>,
}

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    pub arena: usize,
    /// Bytes; a multiple of [`ALIGNMENT`].
    pub offset: u64,
}

/// WebGPU's `minStorageBufferOffsetAlignment`.
pub const ALIGNMENT: u64 = 256;

/// Places the values that `bytes` gives a size to (`None`: the value lies elsewhere). Returns a slot for each and
/// the size of each arena.
pub fn assign(calls: &[Touches], bytes: &[Option<u64>]) -> (Vec<Option<Slot>>, Vec<u64>) {
    let lives = lifetimes(calls, bytes.len());
    let mut order: Vec<usize> = (0..bytes.len())
        .filter(|&value| bytes[value].is_some() && lives[value].is_some())
        .collect();
    order.sort_by_key(|&value| (lives[value], value));
    let mut slots: Vec<Option<Slot>> = vec![None; bytes.len()];
    let mut arenas: Vec<u64> = Vec::new();
    for value in order {
        let size = bytes[value].expect("filtered").next_multiple_of(ALIGNMENT);
        let forbidden = forbidden_arenas(calls, value, &slots);
        let arena = (0..)
            .find(|arena| !forbidden.contains(arena))
            .expect("there is always another arena");
        if arena == arenas.len() {
            arenas.push(0);
        }
        let offset = first_fit(value, size, arena, &slots, bytes, &lives);
        arenas[arena] = arenas[arena].max(offset + size);
        slots[value] = Some(Slot { arena, offset });
    }
    (slots, arenas)
}

/// First and last call that touch each value.
fn lifetimes(calls: &[Touches], values: usize) -> Vec<Option<(usize, usize)>> {
    let mut lives = vec![None; values];
    for (index, call) in calls.iter().enumerate() {
        for &value in call.reads.iter().chain(&call.writes) {
            let (first, _) = lives[value].unwrap_or((index, index));
            lives[value] = Some((first, index));
        }
    }
    lives
}

/// Arenas of values that some call accesses in the other way than it does `value`.
fn forbidden_arenas(calls: &[Touches], value: usize, slots: &[Option<Slot>]) -> Vec<usize> {
    let mut forbidden = Vec::new();
    for call in calls {
        let against = match (call.reads.contains(&value), call.writes.contains(&value)) {
            (true, _) => &call.writes,
            (false, true) => &call.reads,
            _ => continue,
        };
        forbidden.extend(
            against
                .iter()
                .filter(|&&other| other != value)
                .filter_map(|&other| slots[other])
                .map(|slot| slot.arena),
        );
    }
    forbidden
}

/// The lowest offset at which `size` bytes are free for the value's whole life.
fn first_fit(
    value: usize,
    size: u64,
    arena: usize,
    slots: &[Option<Slot>],
    bytes: &[Option<u64>],
    lives: &[Option<(usize, usize)>],
) -> u64 {
    let (born, dies) = lives[value].expect("the value is used");
    let mut taken: Vec<(u64, u64)> = slots
        .iter()
        .enumerate()
        .filter_map(|(other, slot)| {
            let slot = slot.filter(|slot| slot.arena == arena)?;
            let (first, last) = lives[other]?;
            let end = slot.offset + bytes[other]?.next_multiple_of(ALIGNMENT);
            (first <= dies && born <= last).then_some((slot.offset, end))
        })
        .collect();
    taken.sort_unstable();
    let mut offset = 0;
    for (start, end) in taken {
        if offset + size <= start {
            break;
        }
        offset = offset.max(end);
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(reads: &[usize], writes: &[usize]) -> Touches {
        Touches {
            reads: reads.to_vec(),
            writes: writes.to_vec(),
        }
    }

    #[test]
    fn a_dead_value_gives_its_place_back() {
        let calls = [call(&[], &[0]), call(&[0], &[1]), call(&[1], &[2]), call(&[2], &[3])];
        let (slots, arenas) = assign(&calls, &[Some(256); 4]);
        assert_eq!(slots[0], slots[2]);
        assert_eq!(arenas, [256, 256]);
    }

    #[test]
    fn reads_and_writes_of_a_call_never_share_an_arena() {
        let calls = [
            call(&[], &[0]),
            call(&[], &[1]),
            call(&[0, 1], &[2]),
            call(&[2, 0], &[1]),
        ];
        let (slots, _) = assign(&calls, &[Some(100), Some(300), Some(100)]);
        let arena = |value: usize| slots[value].unwrap().arena;
        assert_ne!(arena(0), arena(2));
        assert_ne!(arena(1), arena(2));
        assert_ne!(arena(0), arena(1));
    }

    #[test]
    fn values_that_live_together_do_not_overlap() {
        let calls = [call(&[], &[0, 1]), call(&[0, 1], &[2])];
        let (slots, arenas) = assign(&calls, &[Some(4), Some(4), Some(4)]);
        assert_eq!(slots[1], Some(Slot { arena: 0, offset: 256 }));
        assert_eq!(arenas, [512, 256]);
    }
}
