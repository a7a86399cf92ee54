//! Assignments of tokens to experts, sorted by expert: count, scan and scatter in one workgroup.
//!
//! The order within an expert is that of the assignments, whatever the threads do: tokens are taken in blocks; each
//! expert has a bit for every token of the block, and an assignment's place is the number of bits before its own.

use kiln_bundle::{Access, StepWord};

use super::builder::{Array, AtomicArray, Builder, KernelError, KernelSource, U32};
use super::{Capability, GroupSpec};

const WORKGROUP: u32 = 256;
/// Words of bits of all experts together, and the most of one.
const MEMBER_WORDS: u32 = 2048;
const MOST_WORDS: u32 = 8;

impl GroupSpec {
    /// Experts whose counts and bits fit in workgroup memory.
    pub const MOST_EXPERTS: u32 = 512;

    /// The part of a kernel's name that tells groupings apart.
    pub(super) fn name(&self) -> String {
        let GroupSpec {
            experts,
            k,
            tokens,
            tile,
        } = self;
        format!("{tokens}tokens_{k}of{experts}_by{tile}")
    }

    /// Words of bits for each expert.
    fn words_per_expert(&self) -> u32 {
        (MEMBER_WORDS / self.experts).clamp(1, MOST_WORDS)
    }

    fn check(&self, kernel: &str) -> Result<(), KernelError> {
        let problem = if !(1..=Self::MOST_EXPERTS).contains(&self.experts) {
            format!("{} experts; 1 to {} can be sorted", self.experts, Self::MOST_EXPERTS)
        } else if !(1..=self.experts).contains(&self.k) {
            format!("{} of {} experts for each token", self.k, self.experts)
        } else if self.tile == 0 {
            "tiles of no assignments".to_string()
        } else {
            return Ok(());
        };
        Err(KernelError::Unsupported {
            kernel: kernel.to_string(),
            what: problem,
        })
    }
}

pub fn build(spec: &GroupSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    let name = format!("group_{}", spec.name());
    spec.check(&name)?;
    let b = Builder::new(name, WORKGROUP, capability);
    Group::bind(&b, spec).body();
    b.finish()
}

struct Group<'b> {
    b: &'b Builder,
    spec: &'b GroupSpec,
    routing: Array<'b, [u32; 2]>,
    step: Array<'b, u32>,
    groups: Array<'b, u32>,
    /// How many assignments each expert has; then its place for the next one.
    counts: AtomicArray<'b>,
    /// After each expert: the first place, the first tile of the next.
    ends: Array<'b, [u32; 2]>,
    /// `[expert][word]`: a bit for each token of a block.
    members: AtomicArray<'b>,
}

impl<'b> Group<'b> {
    fn bind(b: &'b Builder, spec: &'b GroupSpec) -> Self {
        Group {
            b,
            spec,
            routing: b.storage("routing", Access::Read),
            step: b.storage("step_buffer", Access::Read),
            groups: b.storage("groups", Access::ReadWrite),
            counts: b.shared_atomic("counts", spec.experts),
            ends: b.shared("ends", spec.experts),
            members: b.shared_atomic("members", spec.experts * spec.words_per_expert()),
        }
    }

    fn body(&self) {
        // The head has one, however many the step had.
        let tokens = self
            .step
            .load(StepWord::Tokens as u32)
            .min(self.spec.tokens)
            .named("tokens");
        let assignments = (tokens * self.spec.k).named("assignments");
        self.each_assignment::<4>(self.b.literal(0), assignments, |_, expert| {
            self.counts.add(expert, 1);
        });
        self.b.barrier();
        self.scan();
        self.write_tiles();
        self.b.barrier();
        self.scatter(tokens);
    }

    /// Sums counts and tiles up to each expert, in log2(experts) rounds (Hillis & Steele 1986).
    fn scan(&self) {
        let b = self.b;
        self.each_expert(|expert| {
            let count = self.counts.load(expert).named("count");
            self.ends.store(expert, b.vector(&[count, self.tiles(count)]));
        });
        b.barrier();
        let gap = b.variable("gap", 1);
        b.repeat(|| {
            let distance = gap.load().named("distance");
            b.break_if(distance.ge(self.spec.experts));
            let experts = self.experts();
            let sums: Vec<_> = experts
                .iter()
                .map(|&expert| {
                    let expert = expert.min(self.spec.experts - 1);
                    let before = self.ends.load(expert - distance.min(expert));
                    let before = expert.ge(distance).select(before, b.zero());
                    (self.ends.load(expert) + before).named("sum")
                })
                .collect();
            b.barrier();
            for (&expert, sum) in experts.iter().zip(sums) {
                b.if_(expert.lt(self.spec.experts), || self.ends.store(expert, sum));
            }
            b.barrier();
            gap.store(distance << 1);
        });
    }

    /// Cuts each expert's assignments into tiles; leaves its first place in `counts`.
    fn write_tiles(&self) {
        let b = self.b;
        self.each_expert(|expert| {
            let count = self.counts.load(expert).named("count");
            let tiles = self.tiles(count).named("tiles");
            let end = self.ends.load(expert).named("end");
            let first_place = (end.x() - count).named("first_place");
            let first_tile = (end.y() - tiles).named("first_tile");
            b.range("tile", 0, tiles, 1, |tile| {
                let at = ((first_tile + tile) * 3 + 1).named("tile_at");
                let done = (tile * self.spec.tile).named("done");
                self.groups.store(at, expert);
                self.groups.store(at + 1, first_place + done);
                self.groups.store(at + 2, (count - done).min(self.spec.tile));
            });
            self.counts.store(expert, first_place);
        });
        b.if_(b.thread().eq(0), || {
            self.groups.store(0, self.ends.load(self.spec.experts - 1).y());
        });
    }

    /// Writes the assignments in order.
    fn scatter(&self, tokens: U32<'b>) {
        let (b, k) = (self.b, self.spec.k);
        let words = self.spec.words_per_expert();
        b.range("first_token", 0, tokens, 32 * words, |first_token| {
            let start = (first_token * k).named("start");
            let end = ((first_token + 32 * words).min(tokens) * k).named("end_of_block");
            // The token's word among its expert's, and its bit there.
            let place = |assignment: U32<'b>| {
                let token = (assignment / k - first_token).named("token_in_block");
                (token >> 5, b.literal(1) << (token & 31))
            };
            self.each_assignment::<4>(start, end, |assignment, expert| {
                let (word, bit) = place(assignment);
                self.members.or(expert * words + word, bit);
            });
            b.barrier();
            self.each_assignment::<1>(start, end, |assignment, expert| {
                let (word, bit) = place(assignment);
                let first_word = (expert * words).named("first_word");
                let members = self.members.load(first_word + word);
                let before = (members & (bit - 1)).count_ones();
                let rank = b.variable("rank", self.counts.load(expert) + before);
                if words > 1 {
                    b.range("earlier", 0, word, 1, |earlier| {
                        rank.add(self.members.load(first_word + earlier).count_ones());
                    });
                }
                self.groups.store(rank.load() + self.spec.order_at(), assignment);
            });
            b.barrier();
            self.each_expert(|expert| {
                let next = b.variable("next_place", self.counts.load(expert));
                b.range("word", expert * words, (expert + 1) * words, 1, |word| {
                    next.add(self.members.load(word).count_ones());
                    self.members.store(word, 0);
                });
                self.counts.store(expert, next.load());
            });
            b.barrier();
        });
    }

    fn tiles(&self, count: U32<'b>) -> U32<'b> {
        (count + (self.spec.tile - 1)) / self.spec.tile
    }

    /// The experts of this thread; the last may be beyond those there are.
    fn experts(&self) -> Vec<U32<'b>> {
        let rounds = self.spec.experts.div_ceil(WORKGROUP);
        (0..rounds).map(|round| self.b.thread() + round * WORKGROUP).collect()
    }

    /// Runs `body` for each expert, one thread for each.
    fn each_expert(&self, body: impl Fn(U32<'b>)) {
        for expert in self.experts() {
            self.b.if_(expert.lt(self.spec.experts), || body(expert));
        }
    }

    /// Runs `body` for assignments `start .. end` and their experts; a thread loads `TOGETHER` at a time.
    fn each_assignment<const TOGETHER: u32>(&self, start: U32<'b>, end: U32<'b>, body: impl Fn(U32<'b>, U32<'b>)) {
        let b = self.b;
        b.range("first", start + b.thread(), end, TOGETHER * WORKGROUP, |first| {
            let loaded: Vec<_> = (0..TOGETHER)
                .map(|i| {
                    let assignment = first + i * WORKGROUP;
                    let there = if i == 0 { assignment } else { assignment.min(end - 1) };
                    (assignment, self.routing.load(there).x().named("expert"))
                })
                .collect();
            for (i, (assignment, expert)) in loaded.into_iter().enumerate() {
                match i {
                    0 => body(assignment, expert),
                    _ => b.if_(assignment.lt(end), || body(assignment, expert)),
                }
            }
        });
    }
}
