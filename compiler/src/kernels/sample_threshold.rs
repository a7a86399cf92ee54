//! The least logit that sampling keeps: top-k, then top-p among those, then min-p (as Hugging Face does it).
//!
//! Top-k keeps the tokens that are at least as likely as the k-th, ties included. Top-p keeps the smallest set of most
//! likely tokens with that share of the mass, again with all ties of its last. Min-p keeps those that are at least
//! that times as likely as the most likely one: a bound that follows from the largest logit alone.
//!
//! Top-k and top-p ask for the largest `t` so that the tokens of logit `t` or more measure at least a target: as a count, or as
//! a mass `exp((logit - largest) / temperature)`. Two passes over the logits bring most of it about: the first finds
//! the largest, and a bound below which nothing can be kept; in the second each thread keeps its own few
//! candidates at or above the bound. Then `t` is found by bisection over the integers that sort as f32 does, seven
//! ways at a time: each round measures what lies at or above six pivots. It ends as soon as one token is left between the
//! bounds: after 12 rounds at worst, after 2 or 3 as a rule. A thread with too many candidates makes all rounds
//! read the logits instead.

use kiln_bundle::{Access, StepWord};

use super::Capability;
use super::builder::{
    Array, Bool, Builder, F32, KernelError, KernelSource, Kind, Pointer, Reduction, Totals, U32, Value,
};
use super::math::log;
use super::names::lettered;
use super::sample::{sortable, temperature, unsortable};
use super::step::Step;

const THREADS: u32 = 256;
const PIVOTS: u32 = 6;
/// Vectors of logits that a thread has under way at a time, to hide the latency of memory.
const BATCH: u32 = 4;
/// Candidates that a thread can keep.
const MOST_HELD: u32 = 16;
/// What a pass is for.
const COUNT: u32 = 0;
const MASS: u32 = 1;
const DONE: u32 = 2;

pub fn build(vocab: u32, capability: Capability) -> Result<KernelSource, KernelError> {
    let b = Builder::new(format!("sample_threshold_{vocab}"), THREADS, capability);
    match vocab % 4 {
        0 => Search::<[u32; 4]>::new(&b, vocab, 4).body(),
        _ => Search::<u32>::new(&b, vocab, 1).body(),
    }
    b.finish()
}

/// `T`: `lanes` logits, as bits.
struct Search<'b, T> {
    b: &'b Builder,
    vocab: u32,
    lanes: u32,
    logits: Array<'b, T>,
    step: Step<'b>,
    threshold: Array<'b, u32>,
    /// Bounds of the search: `low` measures at least the target, `high` less. The same in every thread, as are
    /// the tokens at or above them.
    low: Pointer<'b, u32>,
    high: Pointer<'b, u32>,
    count_at_low: Pointer<'b, f32>,
    count_at_high: Pointer<'b, f32>,
    target: Pointer<'b, f32>,
    /// What the next round is for; uniform.
    purpose: Pointer<'b, u32>,
    /// The thread's candidates, how many it has met, and the mass of all its logits.
    candidates: Array<'b, u32>,
    met: Pointer<'b, u32>,
    whole_mass: Pointer<'b, f32>,
}

impl<'b, T: Kind<Component = u32>> Search<'b, T> {
    fn new(b: &'b Builder, vocab: u32, lanes: u32) -> Self {
        Search {
            b,
            vocab,
            lanes,
            logits: b.storage::<T>("logits", Access::Read),
            step: Step::bind(b),
            threshold: b.storage::<u32>("threshold", Access::ReadWrite),
            low: b.variable("low", 0),
            high: b.variable("high", 0),
            count_at_low: b.variable("count_at_low", vocab as f32),
            count_at_high: b.variable("count_at_high", 0.0),
            target: b.variable("target_measure", 0.0),
            purpose: b.shared_value::<u32>("purpose"),
            candidates: b.private::<u32>("candidates", MOST_HELD),
            met: b.variable("met", 0),
            whole_mass: b.variable("whole_mass", 0.0),
        }
    }

    fn body(self) {
        let b = self.b;
        let temperature = temperature(self.step);
        let top_k = self.step.word(StepWord::TopK).named("top_k");
        let top_p = self.step.word(StepWord::TopP).bitcast::<f32>().named("top_p");
        let by_count = (top_k.ne(0) & top_k.lt(self.vocab)).named("by_count");
        let by_mass = top_p.lt(1.0).named("by_mass");
        let min_p = self.step.word(StepWord::MinP).bitcast::<f32>().named("min_p");
        let by_ratio = min_p.gt(0.0).named("by_ratio");
        b.if_(!(temperature.gt(0.0) & (by_count | by_mass | by_ratio)), || {
            b.if_(b.thread().eq(0), || {
                self.threshold.store(0, f32::NEG_INFINITY.to_bits())
            });
            b.return_();
        });

        let mine = self.most_of_thread();
        let most = self.most_of_all(mine);
        let largest = unsortable(most).bitcast::<f32>().named("largest");
        // Where min-p is 0 the bound is as low as any: the logarithm takes no zero.
        let floor = largest + log(min_p.max(f32::MIN_POSITIVE)) * temperature;
        let floor = by_ratio.select(floor.bitcast::<u32>(), f32::NEG_INFINITY.to_bits());
        let floor = sortable(floor).named("floor");
        b.if_(!(by_count | by_mass), || {
            b.if_(b.thread().eq(0), || self.threshold.store(0, unsortable(floor)));
            b.return_();
        });
        let rate = (b.literal(std::f32::consts::LOG2_E) / temperature).named("rate");
        let mass = |bits: U32<'b>| ((bits.bitcast::<f32>() - largest) * rate).exp2();
        self.low.store(1);
        b.if_else(
            by_count,
            || b.if_(top_k.le(THREADS), || self.low.store(self.ranked(mine, top_k))),
            || {
                // All tokens below weigh less than 1 - p, the largest weighs 1; and one more for roundings.
                let share = (b.literal(1.0) - top_p).min(1.0);
                let depth = log(b.literal(self.vocab as f32) / share) + 1.0;
                self.low
                    .store(sortable((largest - depth * temperature).bitcast::<u32>()));
            },
        );
        self.low.store(self.low.load().max(1).min(most));
        self.high.store(most + 1);
        self.target.store(by_count.select(top_k.cast::<f32>(), 0.0));
        b.if_(b.thread().eq(0), || self.purpose.store(by_count.select(COUNT, MASS)));
        let gathered = self.gather(!by_count, &mass);
        b.repeat(|| {
            let purpose = self.purpose.uniform_load().named("this_purpose");
            b.break_if(purpose.eq(DONE));
            let by_mass_now = purpose.eq(MASS).named("by_mass_now");
            let low = self.low.load().named("pass_low");
            let distance = ((self.high.load() - low + PIVOTS) / (PIVOTS + 1)).named("distance");
            let measures = self.measure(gathered, by_count, by_mass_now, low, distance, &mass);
            b.if_(by_mass_now & self.target.load().eq(0.0), || {
                // The first of these passes: the mass of all that top-k kept. The most likely token is always kept.
                self.target.store((measures.total(2 * PIVOTS) * top_p).max(1e-30));
            });
            self.narrow(by_mass_now, low, distance, measures);
            let found = (self.high.load() - self.low.load()).le(1)
                | (self.count_at_low.load() - self.count_at_high.load()).le(1.0);
            b.if_(found, || {
                let then_mass = (by_mass & !by_mass_now).named("then_mass");
                b.if_(b.thread().eq(0), || self.purpose.store(then_mass.select(MASS, DONE)));
                b.if_(then_mass, || {
                    self.high.store(most + 1);
                    self.count_at_high.store(0.0);
                    self.target.store(0.0);
                });
            });
        });
        b.if_(b.thread().eq(0), || {
            self.threshold.store(0, unsortable(self.low.load().max(floor)))
        });
    }

    /// Runs `body` for vectors of logits, with whether the vector is one; all threads together see each once.
    /// `batch` vectors are read at a time, and `body` is written as often.
    fn scan(&self, name: &str, batch: u32, mut body: impl FnMut(Value<'b, T>, Bool<'b>)) {
        let b = self.b;
        let count = self.vocab / self.lanes;
        b.range(name, b.thread(), count, THREADS * batch, |first| {
            let vectors: Vec<Value<'b, T>> = (0..batch)
                .map(|index| self.logits.load((first + index * THREADS).min(count - 1)).named("bits"))
                .collect();
            for (index, bits) in (0..).zip(vectors) {
                body(bits, (first + index * THREADS).lt(count));
            }
        });
    }

    /// A vector's logits as sortable integers.
    fn sortables(&self, bits: Value<'b, T>) -> Vec<U32<'b>> {
        (0..self.lanes)
            .map(|lane| sortable(component(bits, lane)).named("logit"))
            .collect()
    }

    /// Runs `body` for those of `logits` that are at least `low`; few are.
    fn each_from(&self, low: U32<'b>, logits: &[U32<'b>], inside: Bool<'b>, body: impl FnOnce(U32<'b>)) {
        let b = self.b;
        let most = logits.iter().copied().reduce(|a, b| a.max(b)).expect("at least one");
        b.if_(inside & most.ge(low), || match logits {
            [logit] => body(*logit),
            logits => {
                let logits = b.vector::<[u32; 4]>(logits).named("logits");
                b.range("lane", 0, self.lanes, 1, |lane| {
                    let logit = logits.component_at(lane).named("one");
                    b.if_(logit.ge(low), || body(logit));
                });
            }
        });
    }

    /// The largest logit that the thread meets: no two threads give the same token's.
    fn most_of_thread(&self) -> U32<'b> {
        let most = self.b.variable("most", 0);
        self.scan("i", BATCH, |bits, inside| {
            let largest = self
                .sortables(bits)
                .into_iter()
                .reduce(|a, b| a.max(b))
                .expect("at least one");
            most.store(most.load().max(inside.select(largest, 0)));
        });
        most.load().named("most_of_thread")
    }

    fn most_of_all(&self, mine: U32<'b>) -> U32<'b> {
        let most = self.b.shared_atomic("most_of_all", 1);
        most.max(0, mine);
        self.b.barrier();
        most.load(0).named("most_of_all")
    }

    /// The number that is at place `rank` among those of all threads: so many logits at least are as large.
    fn ranked(&self, mine: U32<'b>, rank: U32<'b>) -> U32<'b> {
        let b = self.b;
        let all = b.shared::<u32>("most_of_threads", THREADS);
        let found = b.shared_value::<u32>("ranked");
        all.store(b.thread(), mine);
        b.barrier();
        let before = b.variable("before", 0);
        b.range("other", 0, THREADS, 1, |other| {
            let theirs = all.load(other).named("theirs");
            let first = theirs.gt(mine) | (theirs.eq(mine) & other.lt(b.thread()));
            before.add(first.select(1, 0));
        });
        b.if_(before.load().eq(rank - 1), || found.store(mine));
        b.barrier();
        found.load()
    }

    /// Each thread's candidates: what is not below the lower bound. Gives whether all threads could keep theirs.
    fn gather(&self, weigh_all: Bool<'b>, mass: &impl Fn(U32<'b>) -> F32<'b>) -> Bool<'b> {
        let b = self.b;
        let low = self.low.load().named("first_low");
        self.scan("j", BATCH, |bits, inside| {
            let logits = self.sortables(bits);
            b.if_(weigh_all & inside, || {
                for (lane, logit) in (0..).zip(&logits) {
                    self.whole_mass
                        .add(logit.ne(0).select(mass(component(bits, lane)), 0.0));
                }
            });
            self.each_from(low, &logits, inside, |logit| {
                let met = self.met.load().named("met_before");
                b.if_(met.lt(MOST_HELD), || self.candidates.store(met, logit));
                self.met.store(met + 1);
            });
        });
        let totals = b.shared_atomic("met_by_all", 2);
        totals.add(0, self.met.load());
        totals.max(1, self.met.load());
        b.barrier();
        self.count_at_low.store(totals.load(0).cast::<f32>());
        totals.load(1).le(MOST_HELD).named("gathered")
    }

    /// Tokens at or above each pivot (`low + distance`, `+ 2 distance` ..), their masses, and the mass of all that count;
    /// masses are 0 unless asked for.
    fn measure(
        &self,
        gathered: Bool<'b>,
        by_count: Bool<'b>,
        by_mass: Bool<'b>,
        low: U32<'b>,
        distance: U32<'b>,
        mass: &impl Fn(U32<'b>) -> F32<'b>,
    ) -> Totals<'b> {
        let b = self.b;
        let zeros = |name: &str| -> Vec<Pointer<'b, f32>> {
            (0..PIVOTS)
                .map(|i| b.variable(&lettered(name, i as usize), 0.0))
                .collect()
        };
        let (counts, masses) = (zeros("count"), zeros("mass"));
        let kept = b.variable("kept_mass", 0.0);
        let pivots: Vec<U32> = (1..=PIVOTS).map(|i| (low + distance * i).named("pivot")).collect();
        let account = |logit: U32<'b>| {
            for (&pivot, count) in pivots.iter().zip(&counts) {
                count.add(logit.ge(pivot).select(1.0, 0.0));
            }
            b.if_(by_mass, || {
                let weight = mass(unsortable(logit)).named("weight");
                for (&pivot, mass) in pivots.iter().zip(&masses) {
                    mass.add(logit.ge(pivot).select(weight, 0.0));
                }
                kept.add(weight);
            });
        };
        b.if_else(
            gathered,
            || {
                b.range("held", 0, self.met.load(), 1, |held| {
                    let logit = self.candidates.load(held).named("candidate");
                    b.if_(logit.ge(low), || account(logit));
                });
            },
            || {
                self.scan("k", 1, |bits, inside| {
                    self.each_from(low, &self.sortables(bits), inside, account)
                })
            },
        );
        let whole = by_count.select(kept.load(), self.whole_mass.load());
        let mut values: Vec<F32> = counts.iter().chain(&masses).map(|place| place.load()).collect();
        values.push(whole);
        b.reduce("measures", Reduction::Sum, &values)
    }

    /// Moves the bounds to the two neighbouring pivots between which the target is met.
    fn narrow(&self, by_mass: Bool<'b>, low: U32<'b>, distance: U32<'b>, measures: Totals<'b>) {
        let b = self.b;
        b.range("index", 0, PIVOTS, 1, |index| {
            let pivot = (low + distance * (index + 1)).named("this_pivot");
            let count = measures.total(index).named("count");
            let measure = by_mass.select(measures.total(index + PIVOTS), count);
            b.if_else(
                measure.ge(self.target.load()),
                || {
                    self.low.store(pivot);
                    self.count_at_low.store(count);
                },
                || {
                    b.if_(pivot.lt(self.high.load()), || {
                        self.high.store(pivot);
                        self.count_at_high.store(count);
                    });
                },
            );
        });
    }
}

fn component<T: Kind<Component = u32>>(value: Value<'_, T>, lane: u32) -> U32<'_> {
    match T::SIZE {
        Some(_) => value.component(lane),
        None => value.same(),
    }
}
