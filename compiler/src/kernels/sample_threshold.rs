//! The least logit that sampling keeps: top-k, then top-p among those (as Hugging Face does it).
//!
//! Top-k keeps the tokens that are at least as likely as the k-th, ties included. Top-p keeps the smallest set of most
//! likely tokens with that share of the mass, again with all ties of its last.
//!
//! Both ask for the largest `t` so that the tokens of logit `t` or more measure at least a target: as a count, or as
//! a mass `exp((logit - largest) / temperature)`. It is found by bisection over the integers that sort as f32 does,
//! eight ways at a time: each pass over the logits measures what lies at or above seven pivots. The search
//! ends as soon as one token is left between the bounds: after 11 passes at worst, after 4 or 5 as a rule.

use kiln_bundle::{Access, StepWord};

use super::Variant;
use super::builder::{
    Array, Bool, Builder, F32, KernelError, KernelSource, Kind, Place, Reduction, Totals, U32, Value,
};
use super::sample::{sortable, temperature, unsortable};
use super::step::Step;

const THREADS: u32 = 256;
const PIVOTS: u32 = 7;
/// What a pass is for.
const COUNT: u32 = 0;
const MASS: u32 = 1;
const DONE: u32 = 2;

pub fn build(vocab: u32, variant: Variant) -> Result<KernelSource, KernelError> {
    let b = Builder::new(format!("sample_threshold_{vocab}"), THREADS, variant);
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
    low: Place<'b, u32>,
    high: Place<'b, u32>,
    count_at_low: Place<'b, f32>,
    count_at_high: Place<'b, f32>,
    target: Place<'b, f32>,
    /// What the next pass is for; uniform.
    purpose: Place<'b, u32>,
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
        }
    }

    fn body(self) {
        let b = self.b;
        let temperature = temperature(self.step);
        let top_k = self.step.word(StepWord::TopK).named("top_k");
        let top_p = self.step.word(StepWord::TopP).bitcast::<f32>().named("top_p");
        let by_count = (top_k.ne(0) & top_k.lt(self.vocab)).named("by_count");
        let by_mass = top_p.lt(1.0).named("by_mass");
        b.if_(!(temperature.gt(0.0) & (by_count | by_mass)), || {
            b.if_(b.thread().eq(0), || {
                self.threshold.store(0, f32::NEG_INFINITY.to_bits())
            });
            b.return_();
        });

        let [least, most] = self.extremes();
        let largest = unsortable(most).bitcast::<f32>().named("largest");
        self.low.store(least);
        self.high.store(most + 1);
        self.target.store(by_count.select(top_k.cast::<f32>(), 0.0));
        b.if_(b.thread().eq(0), || self.purpose.store(by_count.select(COUNT, MASS)));
        b.repeat(|| {
            let purpose = self.purpose.uniform_load().named("this_purpose");
            b.break_if(purpose.eq(DONE));
            let by_mass_now = purpose.eq(MASS).named("by_mass_now");
            let low = self.low.load().named("pass_low");
            let distance = ((self.high.load() - low + PIVOTS) / (PIVOTS + 1)).named("distance");
            let measures = self.measure(by_mass_now, low, distance, |logit| {
                ((unsortable(logit).bitcast::<f32>() - largest) / temperature).exp()
            });
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
            self.threshold.store(0, unsortable(self.low.load()))
        });
    }

    /// Runs `body` for a few logits at a time, as sortable integers; all threads together see each once.
    fn scan(&self, name: &str, body: impl FnOnce(&[U32<'b>])) {
        let b = self.b;
        b.range(name, b.thread(), self.vocab / self.lanes, THREADS, |i| {
            let bits = self.logits.load(i).named("bits");
            let logits: Vec<U32> = (0..self.lanes)
                .map(|lane| sortable(component(bits, lane)).named("logit"))
                .collect();
            body(&logits);
        });
    }

    /// The least and the largest logit that are numbers.
    fn extremes(&self) -> [U32<'b>; 2] {
        let b = self.b;
        // The complement of the least, so that both are maxima.
        let (least, most) = (b.variable("least_complement", 0), b.variable("most", 0));
        self.scan("i", |logits| {
            for &logit in logits {
                most.store(most.load().max(logit));
                least.store(least.load().max(logit.ne(0).select(logit ^ u32::MAX, 0)));
            }
        });
        let extremes = b.shared_atomic("extremes", 2);
        extremes.max(0, least.load());
        extremes.max(1, most.load());
        b.barrier();
        let most = extremes.load(1).named("most_of_all");
        [(extremes.load(0) ^ u32::MAX).min(most), most]
    }

    /// Tokens at or above each pivot (`low + distance`, `+ 2 distance` ..), their masses, and the mass of all from `low` on;
    /// masses are 0 unless asked for.
    fn measure(
        &self,
        by_mass: Bool<'b>,
        low: U32<'b>,
        distance: U32<'b>,
        mass: impl Fn(U32<'b>) -> F32<'b>,
    ) -> Totals<'b> {
        let b = self.b;
        let zeros = |name: &str, count: u32| -> Vec<Place<'b, f32>> {
            (0..count).map(|i| b.variable(&format!("{name}_{i}_"), 0.0)).collect()
        };
        let (counts, masses) = (zeros("count", PIVOTS), zeros("mass", PIVOTS + 1));
        let pivots: Vec<U32> = (1..=PIVOTS).map(|i| (low + distance * i).named("pivot")).collect();
        self.scan("j", |logits| {
            let most = logits.iter().copied().reduce(|a, b| a.max(b)).expect("at least one");
            b.if_(most.ge(low), || {
                for &logit in logits {
                    for (&pivot, count) in pivots.iter().zip(&counts) {
                        count.add(logit.ge(pivot).select(1.0, 0.0));
                    }
                    b.if_(by_mass & logit.ge(low), || {
                        let weight = mass(logit).named("weight");
                        for (&pivot, mass) in pivots.iter().zip(&masses) {
                            mass.add(logit.ge(pivot).select(weight, 0.0));
                        }
                        masses[PIVOTS as usize].add(weight);
                    });
                }
            });
        });
        let values: Vec<F32> = counts.iter().chain(&masses).map(|place| place.load()).collect();
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
