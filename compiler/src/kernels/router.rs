//! The router of one token: scores of all experts and the choice, in one workgroup.
//!
//! Reading the weights at the pace of one workgroup is what takes time, so each thread has up to eight rows in flight.
//! The threads form teams: those of a team walk the columns of the same rows, and every team walks the whole input, so
//! that nothing waits for another team before the sums are joined.

use kiln_bundle::Access;

use super::builder::{Array, Builder, F32, KernelError, KernelSource, Reduction, U32};
use super::choice::{self, choose};
use super::dots::{Dots, Input, Walk};
use super::epilogue;
use super::names::flag;
use super::weight::Weight;
use super::{RouterSpec, Variant};

const WORKGROUP: u32 = 256;
/// Most rows of a thread, and words of a row that it takes at a time.
const ROWS: u32 = 8;
const LANE_WORDS: u32 = 4;
const WORDS_IN_FLIGHT: u32 = 64;
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
}

pub fn build(spec: &RouterSpec, variant: Variant) -> Result<KernelSource, KernelError> {
    let name = spec.name();
    choice::check(spec.experts, &spec.route, &name)?;
    let b = Builder::new(name, WORKGROUP, variant);
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

    let Teams { threads, teams, rows } = Teams::new(spec.experts);
    let (team, member) = match teams {
        1 => (b.literal(0), b.thread()),
        _ => (
            (b.thread() / threads).named("team"),
            (b.thread() % threads).named("member"),
        ),
    };
    let rows: Vec<U32> = (0..rows).map(|i| (team + i * teams).named("row")).collect();
    // The last row of some teams may be beyond the experts.
    let exact = spec.experts.is_multiple_of(teams);
    let read: Vec<U32> = rows
        .iter()
        .map(|&row| {
            if exact {
                row
            } else {
                row.min(spec.experts - 1).named("row_there")
            }
        })
        .collect();
    let dots = Dots::new(&input, rows.len() as u32);
    let walk = Walk {
        first: member,
        step: threads,
        words_in_flight: WORDS_IN_FLIGHT,
    };
    dots.add(&weight, &read, b.literal(0), walk);

    // [member][expert], so that neighbouring threads that join the sums read neighbouring numbers.
    let partial = b.shared::<f32>("partial", threads * spec.experts);
    let first_partial = (member * spec.experts).named("first_partial");
    for (row, sum) in rows.iter().zip(&dots.sums) {
        let store = || partial.store(first_partial + *row, sum.load());
        match exact {
            true => store(),
            false => b.if_(row.lt(spec.experts), store),
        }
    }
    b.barrier();
    // Every team has summed the squares.
    let squares = dots.squares();
    let scale = input.scale(|| {
        let squares = squares.expect("summed for the norm");
        b.reduce_one("squares_parts", Reduction::Sum, squares) * (1.0 / teams as f32)
    });
    let parts = fold(b, partial, spec.experts, threads);
    let score = |expert: U32<'b>| {
        let mut score = sum_of(partial, expert, parts, threads / parts * spec.experts);
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

/// Joins the members' sums of each expert, `[members][experts]`, so that `parts` of them are left, each the first of
/// those that it joins. The threads share the work; few parts are left for one thread to join.
fn fold(b: &Builder, partial: Array<'_, f32>, experts: u32, members: u32) -> u32 {
    let columns = experts.next_power_of_two();
    let parts = (WORKGROUP / columns).clamp(1, members.min(MOST_PARTS));
    if parts == 1 || parts == members {
        return members;
    }
    let expert = (b.thread() % columns).named("column");
    let part = (b.thread() / columns).named("part");
    let join = || {
        let first = (part * (members / parts * experts) + expert).named("first_of_part");
        partial.store(first, sum_of(partial, first, members / parts, experts));
    };
    match columns == experts && columns * parts == WORKGROUP {
        true => join(),
        false => b.if_(expert.lt(experts) & part.lt(parts), join),
    }
    b.barrier();
    parts
}

/// The sum of `count` numbers, `stride` apart.
fn sum_of<'b>(numbers: Array<'b, f32>, first: U32<'b>, count: u32, stride: u32) -> F32<'b> {
    let loaded: Vec<F32> = (0..count).map(|i| numbers.load(first + i * stride)).collect();
    let sum = loaded.into_iter().reduce(|sum, number| sum + number);
    sum.expect("at least one number")
}
