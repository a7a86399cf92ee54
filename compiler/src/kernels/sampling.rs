//! From logits to the next token, without leaving the GPU.
//!
//! Three dispatches: [`threshold`] finds the smallest logit that top-k and top-p keep, [`partial`] takes the best token
//! of each workgroup's share, [`last`] the best of those, and advances the step buffer. Greedy takes the largest
//! logit; with a temperature T the largest `logit / T + g` is taken, with g drawn from Gumbel(0, 1) for each token:
//! that is a draw from the softmax (the Gumbel-max trick: Gumbel 1954; Maddison, Tarlow & Minka 2014). The noise is a
//! hash of seed, position and token, so a seed gives the same text again.
//!
//! Ties: greedy takes the lowest id; top-k and top-p keep every token that equals the last one kept. NaN never wins.

use kiln_bundle::{Access, StepWord};

use super::Variant;
use super::builder::{Array, Bool, Builder, F32, KernelError, KernelSource, Place, Reduction, U32};

const WORKGROUP: u32 = 256;
/// Bits of the key that one round of the top-p search decides, and the candidates it weighs.
const ROUND_BITS: u32 = 3;
const CANDIDATES: u32 = (1 << ROUND_BITS) - 1;

/// Sampling parameters, uniform over the workgroup.
struct Sampler<'b> {
    step: Array<'b, u32>,
    temperature: F32<'b>,
}

impl<'b> Sampler<'b> {
    fn bind(b: &'b Builder) -> Self {
        let step = b.storage::<u32>("step", Access::Read);
        let temperature = step.load(StepWord::Temperature as u32).bitcast::<f32>().named("temperature");
        Sampler { step, temperature }
    }

    fn word(&self, word: StepWord) -> U32<'b> {
        self.step.load(word as u32)
    }
}

/// Finds the smallest logit to keep. One workgroup; see `KernelSpec::SampleThreshold`.
pub fn threshold(vocab: u32, variant: Variant) -> Result<KernelSource, KernelError> {
    let builder = Builder::new(format!("sample_threshold_{vocab}"), WORKGROUP, variant);
    let b = &builder;
    let logits = b.storage::<f32>("logits", Access::Read);
    let sampler = Sampler::bind(b);
    let result = b.storage::<f32>("threshold", Access::ReadWrite);
    let vocab = b.constant("VOCAB", vocab);

    let top_k = sampler.word(StepWord::TopK).named("top_k");
    let top_p = sampler.word(StepWord::TopP).bitcast::<f32>().named("top_p");
    let by_count = top_k.gt(0) & top_k.lt(vocab);
    let by_mass = top_p.lt(1.0);
    b.if_(sampler.temperature.eq(0.0) | !(by_count | by_mass), || {
        b.if_(b.thread().eq(0), || result.store(0, f32::MIN));
        b.return_();
    });

    let kept = b.shared_value::<u32>("kept_key");
    b.if_(by_count, || keep_count(b, logits, vocab, top_k, kept));
    let counted = kept.uniform_load().named("counted_key");
    let smallest = b.variable("smallest_key", counted);
    b.if_(by_mass, || {
        let found = keep_mass(b, logits, vocab, &sampler, top_p, counted);
        smallest.store(found);
    });
    b.if_(b.thread().eq(0), || result.store(0, value_of(smallest.load())));
    builder.finish()
}

/// Leaves the key of the `count`-th largest logit in `kept`: radix selection, a byte at a time.
fn keep_count<'b>(b: &'b Builder, logits: Array<'b, f32>, vocab: U32<'b>, count: U32<'b>, kept: Place<'b, u32>) {
    let histogram = b.shared_atomic("histogram", 256);
    let missing = b.shared_value::<u32>("missing");
    b.if_(b.thread().eq(0), || missing.store(count));
    b.range("round", 0, 4, 1, |round| {
        let shift = (b.literal(24) - round * 8).named("shift");
        histogram.store(b.thread(), 0);
        let prefix = kept.uniform_load().named("prefix");
        b.range("i", b.thread(), vocab, WORKGROUP, |i| {
            let key = key_of(logits.load(i)).named("key");
            // The bytes above `shift` agree with what is known; two shifts, since one by 32 is none.
            let same = ((key >> shift) >> 8).eq((prefix >> shift) >> 8);
            b.if_(same, || {
                histogram.add((key >> shift) & 255, 1);
            });
        });
        b.barrier();
        b.if_(b.thread().eq(0), || {
            let bin = b.variable("bin", 255);
            let left = b.variable("left", missing.load());
            b.repeat(|| {
                let here = histogram.load(bin.load()).named("here");
                b.break_if(left.load().le(here) | bin.load().eq(0));
                left.store(left.load() - here);
                bin.store(bin.load() - 1);
            });
            missing.store(left.load());
            kept.store(prefix | (bin.load() << shift));
        });
        b.barrier();
    });
}

/// The key of the last token that is kept so that the kept ones have the share `top_p` of the mass, among those with
/// at least the key `counted`: a search from the highest bits down, several candidates at a time.
fn keep_mass<'b>(
    b: &'b Builder,
    logits: Array<'b, f32>,
    vocab: U32<'b>,
    sampler: &Sampler<'b>,
    top_p: F32<'b>,
    counted: U32<'b>,
) -> U32<'b> {
    let largest = b.variable("largest", f32::MIN);
    b.range("i", b.thread(), vocab, WORKGROUP, |i| largest.store(largest.load().max(logits.load(i))));
    let largest = b.reduce_one("largest_parts", Reduction::Max, largest.load()).named("largest_logit");
    let inverse = (b.literal(1.0) / sampler.temperature).named("inverse_temperature");
    let mass = |logit: F32<'b>| ((logit - largest) * inverse).exp();

    let whole = b.variable("whole", 0.0);
    b.range("i", b.thread(), vocab, WORKGROUP, |i| {
        let logit = logits.load(i);
        b.if_(key_of(logit).ge(counted), || whole.add(mass(logit)));
    });
    let wanted = (b.reduce_one("whole_parts", Reduction::Sum, whole.load()) * top_p).named("wanted_mass");

    let known = b.variable("known_bits", 0);
    b.range("round", 0, 32u32.div_ceil(ROUND_BITS), 1, |round| {
        let shift = (b.literal(32 / ROUND_BITS * ROUND_BITS) - round * ROUND_BITS).named("shift");
        let prefix = known.load().named("prefix");
        let masses: Vec<_> = (0..CANDIDATES).map(|i| b.variable(&format!("mass{i}"), 0.0)).collect();
        b.range("i", b.thread(), vocab, WORKGROUP, |i| {
            let logit = logits.load(i);
            let key = key_of(logit).named("key");
            b.if_(key.ge(counted) & key.ge(prefix), || {
                let share = mass(logit).named("share");
                let above = ((key - prefix) >> shift).named("above");
                for (place, candidate) in masses.iter().zip(1..) {
                    place.add(above.ge(candidate).select(share, 0.0));
                }
            });
        });
        let masses: Vec<F32> = masses.iter().map(|mass| mass.load()).collect();
        let totals = b.reduce("mass_parts", Reduction::Sum, &masses);
        let digit = b.variable("digit", 0);
        for candidate in 1..=CANDIDATES {
            // In the first round the highest candidates lie beyond 32 bits, and have no mass.
            let enough = totals.total(candidate - 1).ge(wanted);
            digit.store(enough.select(candidate, digit.load()));
        }
        known.store(prefix | (digit.load() << shift));
        b.barrier();
    });
    known.load().max(counted)
}

/// The best token of each workgroup's share. See `KernelSpec::SamplePartial`.
pub fn partial(vocab: u32, groups: u32, variant: Variant) -> Result<KernelSource, KernelError> {
    let builder = Builder::new(format!("sample_partial_{vocab}_{groups}"), WORKGROUP, variant);
    let b = &builder;
    let logits = b.storage::<f32>("logits", Access::Read);
    let sampler = Sampler::bind(b);
    let threshold = b.storage::<f32>("threshold", Access::Read);
    let partials = b.storage::<[u32; 2]>("partials", Access::ReadWrite);

    let threshold = threshold.load(0).named("smallest");
    let greedy = sampler.temperature.eq(0.0).named("greedy");
    let inverse = (b.literal(1.0) / greedy.select(1.0, sampler.temperature)).named("inverse_temperature");
    let seed = sampler.word(StepWord::Seed);
    let position = sampler.word(StepWord::Position) + sampler.word(StepWord::Tokens);
    let stream = hash(seed + hash(position)).named("stream");

    let best = Best::new(b);
    let first = (b.group().x() * WORKGROUP + b.thread()).named("first");
    b.range("id", first, vocab, groups * WORKGROUP, |id| {
        let logit = logits.load(id).named("logit");
        b.if_else(
            greedy,
            || best.offer(logit, id),
            || {
                b.if_(logit.ge(threshold), || {
                    // 23 bits and a half: never 0, never 1.
                    let uniform = ((hash(stream + id) >> 9).cast::<f32>() + 0.5) * (0.5f32).powi(23);
                    let noise = -(-uniform.named("uniform").log()).log();
                    best.offer(logit * inverse + noise, id);
                });
            },
        );
    });
    let (value, id) = best.of_workgroup();
    b.if_(b.thread().eq(0), || partials.store(b.group().x(), b.vector(&[value.bitcast::<u32>(), id])));
    builder.finish()
}

/// The best of all, and the step buffer made ready for it. See `KernelSpec::SampleFinal`.
pub fn last(groups: u32, slots: u32, variant: Variant) -> Result<KernelSource, KernelError> {
    let builder = Builder::new(format!("sample_final_{groups}_{slots}"), groups, variant);
    let b = &builder;
    let partials = b.storage::<[u32; 2]>("partials", Access::Read);
    let step = b.storage::<u32>("step", Access::ReadWrite);
    let tokens = b.storage::<u32>("tokens", Access::ReadWrite);
    let output = b.storage::<u32>("output", Access::ReadWrite);

    let best = Best::new(b);
    let mine = partials.load(b.thread()).named("mine");
    best.offer(mine.x().bitcast::<f32>(), mine.y());
    let (_, id) = best.of_workgroup();
    b.if_(b.thread().eq(0), || {
        tokens.store(0, id);
        let count = step.load(StepWord::Output as u32).named("sampled");
        output.store(count % slots, id);
        step.store(StepWord::Output as u32, count + 1);
        let position = step.load(StepWord::Position as u32) + step.load(StepWord::Tokens as u32);
        step.store(StepWord::Position as u32, position);
        step.store(StepWord::Tokens as u32, 1);
        step.store(StepWord::Row as u32, 0);
    });
    builder.finish()
}

/// The best token that a thread has seen; then, of the workgroup.
struct Best<'b> {
    b: &'b Builder,
    value: Place<'b, f32>,
    id: Place<'b, u32>,
}

impl<'b> Best<'b> {
    fn new(b: &'b Builder) -> Self {
        Best { b, value: b.variable("best", f32::MIN), id: b.variable("best_id", 0) }
    }

    /// Takes a token that is better, or as good with a lower id. A NaN is neither.
    fn offer(&self, value: F32<'b>, id: U32<'b>) {
        let value = value.named("value");
        self.b.if_(better(value, id, self.value.load(), self.id.load()), || {
            self.value.store(value);
            self.id.store(id);
        });
    }

    /// The best of all threads, in every thread. Uniform control flow only.
    fn of_workgroup(&self) -> (F32<'b>, U32<'b>) {
        let b = self.b;
        let values = b.shared::<f32>("best_values", b.workgroup());
        let ids = b.shared::<u32>("best_ids", b.workgroup());
        values.store(b.thread(), self.value.load());
        ids.store(b.thread(), self.id.load());
        b.barrier();
        let half = b.variable("half", b.workgroup() / 2);
        b.repeat(|| {
            let gap = half.load().named("gap");
            b.break_if(gap.eq(0));
            b.if_(b.thread().lt(gap), || {
                let other = b.thread() + gap;
                self.offer(values.load(other), ids.load(other).named("other_id"));
                values.store(b.thread(), self.value.load());
                ids.store(b.thread(), self.id.load());
            });
            b.barrier();
            half.store(gap >> 1);
        });
        (values.load(0), ids.load(0))
    }
}

fn better<'b>(value: F32<'b>, id: U32<'b>, than: F32<'b>, than_id: U32<'b>) -> Bool<'b> {
    value.gt(than) | (value.eq(than) & id.lt(than_id))
}

/// A key that orders as the float does; NaN is the least.
fn key_of(value: F32<'_>) -> U32<'_> {
    let bits = value.bitcast::<u32>().named("bits");
    let ordered = (bits >> 31).eq(1).select(bits ^ 0xffff_ffff, bits | 0x8000_0000);
    (bits & 0x7fff_ffff).gt(0x7f80_0000).select(0, ordered)
}

/// The float of a key.
fn value_of(key: U32<'_>) -> F32<'_> {
    (key >> 31).eq(1).select(key & 0x7fff_ffff, key ^ 0xffff_ffff).bitcast()
}

/// PCG's output permutation on one step of its generator, 32 bits (O'Neill 2014; Jarzynski & Olano 2020).
fn hash(value: U32<'_>) -> U32<'_> {
    let state = (value * 747_796_405 + 2_891_336_453).named("state");
    let word = (((state >> ((state >> 28) + 4)) ^ state) * 277_803_737).named("word");
    (word >> 22) ^ word
}
