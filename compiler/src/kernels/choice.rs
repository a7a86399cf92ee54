//! Which experts a token goes to, and with which weights: see [`RouteSpec`].
//!
//! Looking k times for the largest score that is left would need k rounds, with barriers between them. Instead each
//! thread counts, for its own experts, how many others beat them: an expert beaten by fewer than k is chosen, and their number is
//! its slot. Scores are compared as integers that sort the same, ties by the expert's number, so no two experts count
//! alike whatever the scores are: NaN is below all else.

use super::RouteKernelSpec;
use super::activation::unary;
use super::attention::lowest;
use super::builder::{Array, Builder, F32, KernelError, Reduction, U32};
use super::names::{flag, number};
use super::sample::sortable;
use crate::graph::{RouteSpec, Scoring, Unary};

impl RouteKernelSpec {
    /// More would not fit in workgroup memory, and counting would be slow.
    pub const MOST_EXPERTS: u32 = 512;
    /// Experts of one token.
    pub const MOST_CHOSEN: u32 = 32;
}

const MOST_EXPERTS: u32 = RouteKernelSpec::MOST_EXPERTS;
const MOST_SLOTS: u32 = RouteKernelSpec::MOST_CHOSEN;
/// Keys that a thread compares its own with at a time.
const RIVALS: u32 = 8;

/// Refuses what [`choose`] cannot do.
pub fn check(experts: u32, route: &RouteSpec, kernel: &str) -> Result<(), KernelError> {
    let k = route.experts_per_token;
    let what = if experts == 0 || experts > MOST_EXPERTS {
        format!("{experts} experts, expected 1 to {MOST_EXPERTS}")
    } else if k == 0 || k > MOST_SLOTS.min(experts) {
        format!(
            "{k} of {experts} experts for a token, expected 1 to {}",
            MOST_SLOTS.min(experts)
        )
    } else {
        return Ok(());
    };
    Err(KernelError::Unsupported {
        kernel: kernel.to_string(),
        what,
    })
}

/// The part of a kernel's name that tells routes apart.
pub fn name(experts: u32, route: &RouteSpec, selection_bias: bool) -> String {
    let RouteSpec {
        experts_per_token,
        scoring,
        normalize,
        scale,
    } = route;
    let scoring = match scoring {
        Scoring::SoftmaxChosen => "softmax",
        Scoring::SoftmaxAll => "softmaxall",
        Scoring::Sigmoid => "sigmoid",
    };
    let normalized = match normalize {
        Some(eps) => format!("_normed{}", number(*eps)),
        None => String::new(),
    };
    let scaled = match scale {
        1.0 => String::new(),
        scale => format!("_times{}", number(*scale)),
    };
    format!(
        "top{experts_per_token}of{experts}_{scoring}{normalized}{scaled}{}",
        flag(selection_bias, "_bias")
    )
}

/// Bytes of workgroup memory that [`choose`] takes, in workgroups of `workgroup` threads.
pub fn workgroup_bytes(experts: u32, route: &RouteSpec, workgroup: u32) -> u32 {
    let joined = if needs_all(route) { 2 * workgroup } else { 0 };
    4 * (experts + experts.next_multiple_of(RIVALS) + 2 * route.experts_per_token + joined)
}

/// A number of each expert in a binding. Those of a thread's own expert are loaded when this is made, long before they
/// are needed, where a thread has one expert only.
#[derive(Clone, Copy)]
pub struct PerExpert<'b> {
    numbers: Array<'b, f32>,
    own: Option<F32<'b>>,
}

impl<'b> PerExpert<'b> {
    pub fn new(b: &'b Builder, numbers: Array<'b, f32>, experts: u32, name: &str) -> Self {
        let own = (experts <= b.workgroup()).then(|| numbers.load(b.thread().min(experts - 1)).named(name));
        PerExpert { numbers, own }
    }

    /// The number of an expert that this thread is asked for by [`choose`].
    pub fn load(self, expert: U32<'b>) -> F32<'b> {
        self.own.unwrap_or_else(|| self.numbers.load(expert))
    }
}

/// Chooses experts of one token and writes them as its assignments, from `first` on. `score` is asked once for each
/// expert. Has barriers: uniform control flow only. The workgroup has at least as many threads as a token experts.
pub fn choose<'b>(
    b: &'b Builder,
    route: &RouteSpec,
    experts: u32,
    score: impl FnOnce(U32<'b>) -> F32<'b>,
    selection_bias: Option<PerExpert<'b>>,
    routing: Array<'b, [u32; 2]>,
    first: U32<'b>,
) {
    let k = b.constant("CHOSEN", route.experts_per_token);
    let scores = b.shared::<f32>("scores", experts);
    // Keys beyond the experts stay 0, and beat none.
    let key_count = experts.next_multiple_of(RIVALS);
    let keys = b.shared::<u32>("keys", key_count);
    let chosen = b.shared::<u32>("chosen", route.experts_per_token);
    let chosen_scores = b.shared::<f32>("chosen_scores", route.experts_per_token);

    for_each(b, "expert", experts, |expert| {
        let score = score(expert).named("score");
        scores.store(expert, score);
        let preference = match (selection_bias, route.scoring) {
            (None, _) => score,
            (Some(bias), Scoring::Sigmoid) => unary(Unary::Sigmoid, score) + bias.load(expert),
            (Some(bias), _) => score + bias.load(expert),
        };
        keys.store(expert, sortable(preference.bitcast()).named("key"));
    });
    b.barrier();
    let all = needs_all(route).then(|| softmax_of_all(b, scores, experts));

    for_each(b, "candidate", experts, |candidate| {
        let key = keys.load(candidate).named("candidate_key");
        let rank = b.variable("rank", 0);
        b.range("rival", 0, b.constant("KEYS", key_count), RIVALS, |first| {
            let rivals = (0..RIVALS).map(|i| first + i);
            let rival_keys: Vec<U32> = rivals
                .clone()
                .map(|rival| keys.load(rival).named("rival_key"))
                .collect();
            let ahead = rivals.zip(rival_keys).map(|(rival, rival_key)| {
                let ahead = rival_key.gt(key) | (rival_key.eq(key) & rival.lt(candidate));
                ahead.select::<u32>(1, 0).named("ahead")
            });
            rank.add(ahead.reduce(|sum, one| sum + one).expect("there are rivals"));
        });
        let slot = rank.load().named("slot");
        b.if_(slot.lt(k), || {
            chosen.store(slot, candidate);
            chosen_scores.store(slot, scores.load(candidate));
        });
    });
    b.barrier();

    b.if_(b.thread().lt(k), || {
        let slots = 0..route.experts_per_token;
        let slot_scores: Vec<F32> = slots.map(|slot| chosen_scores.load(slot).named("slot_score")).collect();
        let largest = match (all, selection_bias) {
            (Some((largest, _)), _) => largest,
            (None, None) => slot_scores[0],
            (None, Some(_)) => {
                let largest = slot_scores.iter().copied().reduce(|a, b| a.max(b));
                largest.expect("at least one").named("largest_chosen")
            }
        };
        let numerator = |score: F32<'b>| match route.scoring {
            Scoring::Sigmoid => unary(Unary::Sigmoid, score),
            Scoring::SoftmaxChosen | Scoring::SoftmaxAll => (score - largest).exp(),
        };
        let sum_of_chosen = || {
            let numerators = slot_scores.iter().map(|&score| numerator(score));
            let sum = numerators.reduce(|sum, one| sum + one);
            sum.expect("at least one").named("sum_of_chosen")
        };
        let denominator = match (route.scoring, route.normalize, all) {
            (Scoring::Sigmoid, None, _) => b.literal(1.0),
            (Scoring::Sigmoid, Some(eps), _) => sum_of_chosen() + eps,
            (_, None, Some((_, sum))) => sum,
            (_, Some(eps), Some((_, sum))) => sum_of_chosen() + sum * eps,
            // The weights without a further norm have the sum 1.
            (_, normalize, None) => sum_of_chosen() * (1.0 + normalize.unwrap_or(0.0)),
        };
        let weight = numerator(chosen_scores.load(b.thread())) / denominator * route.scale;
        let expert = chosen.load(b.thread()).named("chosen_expert");
        let assignment = b.vector::<[u32; 2]>(&[expert, weight.named("route_weight").bitcast()]);
        routing.store(first + b.thread(), assignment);
    });
}

/// Runs `body` for each expert, divided among the threads.
fn for_each<'b>(b: &'b Builder, name: &str, experts: u32, body: impl FnOnce(U32<'b>)) {
    let (workgroup, count) = (b.workgroup(), b.constant("EXPERTS", experts));
    if experts == workgroup {
        body(b.thread());
    } else if experts < workgroup {
        b.if_(b.thread().lt(count), || body(b.thread()));
    } else {
        b.range(name, b.thread(), count, workgroup, body);
    }
}

/// Whether the scores of experts that are not chosen count: not where a norm without eps cancels them.
fn needs_all(route: &RouteSpec) -> bool {
    route.scoring == Scoring::SoftmaxAll && route.normalize != Some(0.0)
}

/// The largest score, and the sum of all `exp(score - largest)`.
fn softmax_of_all<'b>(b: &'b Builder, scores: Array<'b, f32>, experts: u32) -> (F32<'b>, F32<'b>) {
    let largest = b.variable("largest", lowest(b));
    for_each(b, "expert", experts, |expert| {
        largest.store(largest.load().max(scores.load(expert)));
    });
    let largest = b.reduce_one("largest_parts", Reduction::Max, largest.load());
    let largest = largest.named("largest_score");
    let sum = b.variable("sum", 0.0);
    for_each(b, "expert", experts, |expert| {
        sum.add((scores.load(expert) - largest).exp());
    });
    let sum = b.reduce_one("sum_parts", Reduction::Sum, sum.load());
    (largest, sum.named("sum_of_all"))
}
