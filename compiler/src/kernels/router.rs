//! The router of one token: scores of all experts and the choice, in one workgroup.
//!
//! Reading the weights at the pace of one workgroup is what takes time, so they must be on their way always: the threads
//! form teams, each with up to eight rows, and load their next chunks before they multiply those that they have. The
//! input, with its norm weight, goes to workgroup memory first, as every team needs all of it. The loop is short on
//! purpose: one workgroup alone waits for its instructions too.

use kiln_bundle::Access;

use super::builder::{Array, Builder, KernelError, KernelSource, MAX_WORKGROUP_BYTES, Pointer, Reduction, U32, Vec4};
use super::choice::{self, PerExpert, choose};
use super::dots::Input;
use super::epilogue;
use super::names::{flag, lettered};
use super::weight::{Chunk, KeptChunk, Weight, offset_sum};
use super::{Capability, Prologue, RouterSpec};

const WORKGROUP: u32 = 256;
/// Most rows of a thread, and words of a row that it takes at a time.
const ROWS: u32 = 8;
const LANE_WORDS: u32 = 4;
/// Chunks of each row that a thread waits for while it multiplies another.
const AHEAD: u32 = 2;
/// Most sums that one thread joins in the end.
const MOST_PARTS: u32 = 16;

impl RouterSpec {
    fn name(&self) -> String {
        format!(
            "router_{}x{}{}{}_{}",
            self.format,
            self.cols,
            epilogue::suffix(&self.prologue, &[]),
            flag(self.bias, "_bias"),
            choice::name(self.experts, &self.route, self.selection_bias),
        )
    }
}

/// How the threads are divided.
struct Teams {
    /// Threads of a team: a power of two.
    threads: u32,
    teams: u32,
    /// Rows of a team.
    rows: u32,
}

impl Teams {
    fn new(experts: u32) -> Self {
        let threads = 1 << (WORKGROUP * ROWS / experts).clamp(1, WORKGROUP).ilog2();
        let teams = WORKGROUP / threads;
        Teams {
            threads,
            teams,
            rows: experts.div_ceil(teams),
        }
    }

    /// Vectors of four that hold a sum for each row of a thread.
    fn fours(&self) -> u32 {
        self.rows.div_ceil(4)
    }
}

pub fn build(spec: &RouterSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    let name = spec.name();
    choice::check(spec.experts, &spec.route, &name)?;
    let b = Builder::new(name, WORKGROUP, capability);
    body(&b, spec);
    b.finish()
}

fn body<'b>(b: &'b Builder, spec: &RouterSpec) {
    let input = Input::bind(b, "x", spec.cols, &spec.prologue);
    let weight = Weight::bind(b, spec.format, spec.cols, LANE_WORDS);
    let bias = spec.bias.then(|| b.storage::<f32>("bias", Access::Read));
    let selection_bias = spec
        .selection_bias
        .then(|| b.storage::<f32>("selection_bias", Access::Read));
    let routing = b.storage::<[u32; 2]>("routing", Access::ReadWrite);

    let teams = Teams::new(spec.experts);
    let slabs = Slabs::new(spec, &weight, &teams);
    let staged = b.shared::<[f32; 4]>("staged", slabs.quads.max(teams.fours() * WORKGROUP));
    let squares = (spec.prologue != Prologue::Direct).then(|| b.variable("squares", 0.0));
    let walk = RouterWalk::new(b, spec, weight, &teams);
    let add_slab = |first_chunk: U32<'b>| {
        let quads = slabs.load(b, &input, first_chunk * (weight.chunk / 4));
        let kept = walk.load_ahead(first_chunk);
        slabs.stage(b, staged, &quads, squares);
        b.barrier();
        let end = match slabs.count {
            1 => b.literal(walk.chunks),
            _ => (first_chunk + slabs.chunks).min(walk.chunks).named("end"),
        };
        walk.add(&kept, first_chunk, end, staged);
    };
    let own = |numbers: Option<Array<'b, f32>>, name: &str| {
        numbers.map(|numbers| PerExpert::new(b, numbers, spec.experts, name))
    };
    let bias = own(bias, "own_bias");
    let selection_bias = own(selection_bias, "own_selection_bias");
    if slabs.count == 1 {
        add_slab(b.literal(0));
    } else {
        b.range(
            "first_chunk",
            0,
            b.constant("CHUNKS", walk.chunks),
            slabs.chunks,
            |first| {
                add_slab(first);
                // The next slab takes its place.
                b.barrier();
            },
        );
    }

    let scale = input.scale(|| {
        let squares = squares.expect("summed for the norm").load();
        b.reduce_one("squares_parts", Reduction::Sum, squares)
    });
    if scale.is_none() {
        b.barrier();
    }
    let parts = walk.join(staged, &teams);
    let score = |expert: U32<'b>| {
        let (row, team) = (expert / teams.teams, expert % teams.teams);
        let first = ((row / 4 * teams.teams + team) * teams.threads).named("first_part");
        let mut score = sum_of(staged, first, parts, 1).component_at(row % 4);
        if let Some(scale) = scale {
            score = score * scale;
        }
        if let Some(bias) = bias {
            score = score + bias.load(expert);
        }
        score
    };
    choose(
        b,
        &spec.route,
        spec.experts,
        score,
        selection_bias,
        routing,
        b.literal(0),
    );
}

/// How the columns are divided, so that a slab of the input fits in workgroup memory.
struct Slabs {
    count: u32,
    /// Of the weight, in a slab; the last may have fewer.
    chunks: u32,
    /// Of the input, in a slab.
    quads: u32,
    /// Quads of the input: beyond, there are zeros.
    all_quads: u32,
}

impl Slabs {
    fn new(spec: &RouterSpec, weight: &Weight, teams: &Teams) -> Self {
        let squares = 4 * WORKGROUP;
        let others = choice::workgroup_bytes(spec.experts, &spec.route, WORKGROUP) + squares;
        // Room that the sums need in the end anyway.
        let bytes = (MAX_WORKGROUP_BYTES - others).max(16 * teams.fours() * WORKGROUP);
        let chunks = weight.chunks(spec.cols);
        let count = chunks.div_ceil(bytes / (4 * weight.chunk));
        let chunks = chunks.div_ceil(count);
        Slabs {
            count,
            chunks,
            quads: chunks * weight.chunk / 4,
            all_quads: spec.cols / 4,
        }
    }

    /// This thread's quads of the slab that begins with quad `first`: their places in it, and what is there.
    fn load<'b>(&self, b: &'b Builder, input: &Input<'b>, first: U32<'b>) -> Vec<Quad<'b>> {
        (0..self.quads.div_ceil(WORKGROUP))
            .map(|i| {
                let place = (b.thread() + i * WORKGROUP).named("place");
                let end = (i + 1) * WORKGROUP;
                let guarded = self.count > 1 || end > self.all_quads;
                let (x, weighted) = input.quad(0, first + place, guarded);
                Quad {
                    place,
                    inside: end <= self.quads,
                    x,
                    weighted,
                }
            })
            .collect()
    }

    fn stage<'b>(
        &self,
        b: &'b Builder,
        staged: Array<'b, [f32; 4]>,
        quads: &[Quad<'b>],
        squares: Option<Pointer<'b, f32>>,
    ) {
        for quad in quads {
            let store = || {
                staged.store(quad.place, quad.weighted);
                if let Some(squares) = squares {
                    squares.add(quad.x.dot(quad.x));
                }
            };
            match quad.inside {
                true => store(),
                false => b.if_(quad.place.lt(self.quads), store),
            }
        }
    }
}

struct Quad<'b> {
    place: U32<'b>,
    /// Whether it is certain that the place is in the slab.
    inside: bool,
    x: Vec4<'b>,
    /// With the norm weight.
    weighted: Vec4<'b>,
}

/// One thread's way through its rows.
struct RouterWalk<'b> {
    b: &'b Builder,
    weight: Weight<'b>,
    member: U32<'b>,
    step: u32,
    /// Of a row.
    chunks: u32,
    /// Those beyond the experts are the last expert again, whose sums nobody reads.
    rows: Vec<U32<'b>>,
    sums: Vec<Pointer<'b, f32>>,
}

impl<'b> RouterWalk<'b> {
    fn new(b: &'b Builder, spec: &RouterSpec, weight: Weight<'b>, teams: &Teams) -> Self {
        let (team, member) = match teams.teams {
            1 => (b.literal(0), b.thread()),
            _ => (
                (b.thread() / teams.threads).named("team"),
                (b.thread() % teams.threads).named("member"),
            ),
        };
        let row = |i: u32| {
            let row = team + i * teams.teams;
            match (i + 1) * teams.teams <= spec.experts {
                true => row.named("row"),
                false => row.min(spec.experts - 1).named("row"),
            }
        };
        RouterWalk {
            b,
            weight,
            member,
            step: teams.threads,
            chunks: weight.chunks(spec.cols),
            rows: (0..teams.rows).map(row).collect(),
            sums: (0..teams.rows as usize)
                .map(|i| b.variable(&lettered("sum", i), 0.0))
                .collect(),
        }
    }

    /// One chunk of each row: the last where there are no more.
    fn load(&self, chunk: U32<'b>) -> Vec<Chunk<'b>> {
        let chunk = chunk.min(self.chunks - 1).named("nearest");
        let rows = self.rows.iter().enumerate();
        rows.map(|(i, &row)| self.weight.load(row, chunk, &lettered("", i)))
            .collect()
    }

    /// The first chunks of a slab, nearest first.
    fn load_ahead(&self, first_chunk: U32<'b>) -> Vec<Vec<KeptChunk<'b>>> {
        let first = first_chunk + self.member;
        let loaded: Vec<Vec<Chunk>> = (0..AHEAD).map(|i| self.load(first + i * self.step)).collect();
        let keep = |chunks: Vec<Chunk<'b>>| {
            let chunks = chunks.iter().enumerate();
            chunks.map(|(i, chunk)| chunk.keep(&lettered("", i))).collect()
        };
        loaded.into_iter().map(keep).collect()
    }

    /// Adds the products of the slab up to chunk `end`, whose first chunks are in `kept`.
    fn add(&self, kept: &[Vec<KeptChunk<'b>>], first_chunk: U32<'b>, end: U32<'b>, staged: Array<'b, [f32; 4]>) {
        let b = self.b;
        let quads = self.weight.chunk / 4;
        b.range("chunk", first_chunk + self.member, end, self.step, |chunk| {
            let next = self.load(chunk + AHEAD * self.step);
            let place = ((chunk - first_chunk) * quads).named("first_quad");
            let x: Vec<Vec4> = (0..quads)
                .map(|i| staged.load(place + i).named(&lettered("x", i as usize)))
                .collect();
            let offset_sum = offset_sum(self.weight.format, &x);
            for (sum, kept) in self.sums.iter().zip(&kept[0]) {
                sum.add(kept.load().dot(&x, offset_sum));
            }
            for pair in kept.windows(2) {
                for (place, next) in pair[0].iter().zip(&pair[1]) {
                    place.store(&next.load());
                }
            }
            for (place, next) in kept.last().expect("some ahead").iter().zip(&next) {
                place.store(next);
            }
        });
    }

    /// Joins the sums in `staged`, which nobody reads any more, so that a few are left for each row: four rows to a
    /// vector, `[four][team][part]`, the parts at the beginning of a place for each member. Gives the number of parts.
    fn join(&self, staged: Array<'b, [f32; 4]>, teams: &Teams) -> u32 {
        let b = self.b;
        for (four, sums) in (0..).zip(self.sums.chunks(4)) {
            let mut sums: Vec<_> = sums.iter().map(|sum| sum.load()).collect();
            sums.resize(4, b.literal(0.0));
            staged.store(b.thread() + four * WORKGROUP, b.vector(&sums));
        }
        b.barrier();
        let columns = teams.fours() * teams.teams;
        let parts = (WORKGROUP / columns).clamp(1, teams.threads.min(MOST_PARTS));
        if parts == teams.threads {
            return parts;
        }
        let join = || {
            let (column, part) = (b.thread() / parts, b.thread() % parts);
            let first = (column * teams.threads + part).named("first_of_part");
            // No other thread reads this place.
            staged.store(first, sum_of(staged, first, teams.threads / parts, parts));
        };
        match columns * parts == WORKGROUP {
            true => join(),
            false => b.if_(b.thread().lt(columns * parts), join),
        }
        b.barrier();
        parts
    }
}

/// The sum of `count` vectors, `stride` apart.
fn sum_of<'b>(vectors: Array<'b, [f32; 4]>, first: U32<'b>, count: u32, stride: u32) -> Vec4<'b> {
    let loaded: Vec<Vec4> = (0..count).map(|i| vectors.load(first + i * stride)).collect();
    let sum = loaded.into_iter().reduce(|sum, vector| sum + vector);
    sum.expect("at least one vector")
}
