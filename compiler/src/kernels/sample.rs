//! The next token: an argmax in two dispatches.
//!
//! Greedy: of the logits. Else of `logit / temperature + noise` over the tokens that `SampleThreshold` keeps, the noise
//! drawn from the Gumbel distribution: that draws a token with the probability that softmax gives it (Gumbel 1954).
//! Numbers are compared as integers that sort the same, so nothing depends on a device's float comparisons: of equal
//! numbers the lowest id wins.
//!
//! All logits are read here anyway, so this is where it shows that a model's arithmetic broke down: a logit that is
//! no number, or infinitely large, beats every other and is reported in place of the token. So is that all tokens are
//! ruled out.

use kiln_bundle::{Access, NOT_FINITE, RULED_OUT, StepWord};

use super::Capability;
use super::builder::{Builder, F32, KernelError, KernelSource, Pointer, U32};
use super::math::{log, log_one_minus};
use super::step::Step;

const THREADS: u32 = 256;

/// An integer that sorts as the f32 with these bits does; -0 is 0, and NaN becomes 0.
pub fn sortable(bits: U32<'_>) -> U32<'_> {
    let magnitude = (bits & 0x7fff_ffff).named("magnitude");
    let negative = bits.ne(magnitude) & magnitude.ne(0);
    let sorts = negative.select(bits ^ u32::MAX, magnitude | 0x8000_0000);
    magnitude.gt(f32::INFINITY.to_bits()).select(0, sorts)
}

/// What [`meaningful`] gives for a number that means nothing: more than any other.
const MEANINGLESS: u32 = u32::MAX;

/// [`sortable`], but for NaN and infinity, which say that the arithmetic broke down. Minus infinity is a token ruled out.
fn meaningful(bits: U32<'_>) -> U32<'_> {
    let sorts = sortable(bits);
    let broken = sorts.eq(0) | bits.eq(f32::INFINITY.to_bits());
    broken.select(MEANINGLESS, sorts)
}

/// What [`sortable`] makes of minus infinity.
const SORTABLE_MINUS_INFINITY: u32 = f32::NEG_INFINITY.to_bits() ^ u32::MAX;

/// The bits of the f32 that [`sortable`] made this of.
pub fn unsortable(sorts: U32<'_>) -> U32<'_> {
    sorts.ge(0x8000_0000).select(sorts ^ 0x8000_0000, sorts ^ u32::MAX)
}

/// The step's temperature: where it is not above 0, the token is the most likely one.
pub fn temperature<'b>(step: Step<'b>) -> F32<'b> {
    step.word(StepWord::Temperature).bitcast::<f32>().named("temperature")
}

pub fn build_partial(vocab: u32, groups: u32, capability: Capability) -> Result<KernelSource, KernelError> {
    let b = Builder::new(format!("sample_partial_{vocab}_by{groups}"), THREADS, capability);
    partial(&b, vocab, groups);
    b.finish()
}

/// The best token of every `groups`th block of ids.
fn partial(b: &Builder, vocab: u32, groups: u32) {
    let logits = b.storage::<u32>("logits", Access::Read);
    let step = Step::bind(b);
    let threshold = b.storage::<u32>("threshold", Access::Read);
    let partials = b.storage::<[u32; 2]>("partials", Access::ReadWrite);

    let temperature = temperature(step);
    let greedy = (!temperature.gt(0.0)).named("greedy");
    let least = greedy.select(0, sortable(threshold.load(0))).named("least");
    let position = (step.word(StepWord::Position) + step.word(StepWord::Tokens)).named("position");
    let seed = step.word(StepWord::Seed).named("seed");
    let best = Best::new(b);
    b.range(
        "id",
        b.group().x() * THREADS + b.thread(),
        vocab,
        groups * THREADS,
        |id| {
            let bits = logits.load(id).named("bits");
            let logit = meaningful(bits).named("logit");
            b.if_else(
                greedy | logit.eq(MEANINGLESS),
                || best.offer(logit, id),
                || {
                    b.if_(logit.ge(least), || {
                        let noise = gumbel(hash([seed, position, id]));
                        let score = bits.bitcast::<f32>() / temperature + noise;
                        best.offer(sortable(score.bitcast::<u32>()).named("score"), id);
                    });
                },
            );
        },
    );
    let [score, id] = best.of_workgroup();
    b.if_(b.thread().eq(0), || {
        partials.store(b.group().x(), b.vector::<[u32; 2]>(&[score, id]))
    });
}

pub fn build_final(groups: u32, slots: u32, capability: Capability) -> Result<KernelSource, KernelError> {
    let threads = groups.next_power_of_two().clamp(32, THREADS);
    let b = Builder::new(format!("sample_final_{groups}_{slots}slots"), threads, capability);
    joined(&b, groups, slots);
    b.finish()
}

/// The best of the groups becomes the next token, and the step buffer says so.
fn joined(b: &Builder, groups: u32, slots: u32) {
    let partials = b.storage::<[u32; 2]>("partials", Access::Read);
    let step = b.storage::<u32>("step", Access::ReadWrite);
    let tokens = b.storage::<u32>("tokens", Access::ReadWrite);
    let output = b.storage::<u32>("output", Access::ReadWrite);

    let best = Best::new(b);
    b.range("i", b.thread(), groups, b.workgroup(), |i| {
        let partial = partials.load(i).named("partial");
        best.offer(partial.x(), partial.y());
    });
    let [score, id] = best.of_workgroup();
    b.if_(b.thread().eq(0), || {
        // Steps that run ahead look the token up, so it is one of the vocabulary whatever is reported.
        tokens.store(0, id);
        let word = |word: StepWord| step.at(word as u32);
        let sampled = word(StepWord::Output).load().named("sampled");
        let ruled_out = score.le(SORTABLE_MINUS_INFINITY).select(RULED_OUT, id);
        let report = score.eq(MEANINGLESS).select(NOT_FINITE, ruled_out).named("report");
        output.store(sampled % slots, report);
        word(StepWord::Position).add(word(StepWord::Tokens).load());
        word(StepWord::Tokens).store(1);
        word(StepWord::Row).store(0);
        word(StepWord::Output).store(sampled + 1);
    });
}

/// The token with the highest score so far; of equal ones the lowest id.
struct Best<'b> {
    b: &'b Builder,
    score: Pointer<'b, u32>,
    id: Pointer<'b, u32>,
}

impl<'b> Best<'b> {
    fn new(b: &'b Builder) -> Self {
        Best {
            b,
            score: b.variable("best_score", 0),
            id: b.variable("best_id", 0),
        }
    }

    fn offer(&self, score: U32<'b>, id: U32<'b>) {
        let (best, best_id) = (self.score.load().named("best"), self.id.load());
        let better = score.gt(best) | (score.eq(best) & id.lt(best_id));
        self.b.if_(better, || {
            self.score.store(score);
            self.id.store(id);
        });
    }

    /// Score and id of the best of all threads, in each of them.
    fn of_workgroup(self) -> [U32<'b>; 2] {
        let b = self.b;
        let highest = b.shared_atomic("highest", 1);
        // The largest complement of an id is that of the lowest, and 0 at the start is that of none.
        let lowest_id = b.shared_atomic("lowest_id_complement", 1);
        highest.max(0, self.score.load());
        b.barrier();
        b.if_(self.score.load().eq(highest.load(0)), || {
            lowest_id.max(0, self.id.load() ^ u32::MAX);
        });
        b.barrier();
        [highest.load(0), lowest_id.load(0) ^ u32::MAX]
    }
}

/// 32 random bits for three numbers: pcg3d, which passes the usual tests (Jarzynski & Olano 2020, "Hash Functions for
/// GPU Rendering").
fn hash<'b>([x, y, z]: [U32<'b>; 3]) -> U32<'b> {
    let advance = |v: U32<'b>| v * 1_664_525 + 1_013_904_223;
    let (x, y, z) = (advance(x), advance(y), advance(z).named("z"));
    let mix = |x: U32<'b>, y: U32<'b>, z: U32<'b>| {
        let x = (x + y * z).named("x");
        let y = (y + z * x).named("y");
        let z = (z + x * y).named("z");
        (x, y, z)
    };
    let (x, y, z) = mix(x, y, z);
    let fold = |v: U32<'b>| v ^ (v >> 16);
    let (x, _, _) = mix(fold(x), fold(y), fold(z));
    x
}

/// A number of the Gumbel distribution, `-log(-log(u))`, for `u` uniform in 0 .. 1.
///
/// With `u = 1 - v` small `v` are exact, so the upper tail, which decides, is as fine as 32 bits allow.
fn gumbel(bits: U32<'_>) -> F32<'_> {
    let v = ((bits.cast::<f32>() + 0.5) * (0.5f32).powi(32))
        .min(1.0 - f32::EPSILON / 2.0)
        .named("v");
    -log((-log_one_minus(v)).named("exponential"))
}
