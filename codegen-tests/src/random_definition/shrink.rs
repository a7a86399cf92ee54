//! Makes a trial smaller while it fails.

use kiln_compiler::graph::{Scoring, Unary};

use super::definition::{Definition, Operator, Section};
use super::trial::{Failure, Trial};
use crate::random_model::Grid;

/// Most trials that shrinking runs: a minute or two.
const PATIENCE: usize = 150;

/// The smallest trial found that fails as `failure` says `trial` does, and how it fails.
pub fn shrink(mut trial: Trial, failure: &Failure) -> (Trial, Failure) {
    let mut last = failure.clone();
    let (level, variant) = failure.place();
    trial.levels.retain(|other| level.is_none_or(|level| *other == level));
    trial.runs.retain(|(of, other)| {
        level.is_none_or(|level| *of == level) && variant.is_none_or(|variant| *other == variant)
    });
    let smallest = shrink_by(trial, PATIENCE, &mut |smaller| match smaller.run() {
        Err(found) if found.like(failure) => {
            last = found;
            true
        }
        _ => false,
    });
    (smallest, last)
}

/// The smallest trial found of which `fails` holds, as it does of `trial`, when it may be asked `patience` times.
pub fn shrink_by(mut trial: Trial, patience: usize, fails: &mut dyn FnMut(&Trial) -> bool) -> Trial {
    let mut left = patience;
    'smaller: loop {
        let size = size(&trial);
        for candidate in candidates(&trial) {
            let fits = candidate.definition.check().is_ok() && self::size(&candidate) < size;
            if !fits {
                continue;
            }
            if left == 0 {
                return trial;
            }
            left -= 1;
            if fails(&candidate) {
                trial = candidate;
                continue 'smaller;
            }
        }
        return trial;
    }
}

/// What shrinking makes less: operators before all, then what they are like.
fn size(trial: &Trial) -> usize {
    let of = &trial.definition;
    let settings = [
        trial.grid != Grid::F32,
        trial.plan.is_some(),
        trial.binding_limit.is_some(),
    ];
    let settings = settings.into_iter().filter(|set| *set).count();
    let steps = of.sections().flat_map(|section| &section.steps);
    let details: usize = steps
        .map(|step| details(step.operator) + step.operands.iter().sum::<usize>())
        .sum();
    let sizes = of.vocab + of.hidden + trial.tokens + 16 - trial.chunk.min(16) as usize;
    10_000 * (of.layers.len() + of.size()) + 500 * settings + 20 * details + sizes
}

/// How much of an operator is unlike its plainest form.
fn details(operator: Operator) -> usize {
    match operator {
        Operator::Linear { rows, bias } => rows + usize::from(bias),
        Operator::Router { experts, bias } => experts + usize::from(bias),
        Operator::TiedHead | Operator::ScaleRows | Operator::Binary(_) => 0,
        Operator::Norm { heads, plus_one, .. } => heads + usize::from(plus_one),
        Operator::Unary(function) => usize::from(function != Unary::Relu),
        Operator::Scale(_) | Operator::Softcap(_) | Operator::Clamp(_) => 1,
        Operator::Slice { start, len } => start + len,
        Operator::Rope { heads, turn } => heads + usize::from(turn.share != 1.0),
        Operator::Cache { kv_heads } => kv_heads,
        Operator::Attention {
            heads,
            scale,
            window,
            softcap,
            sinks,
        } => {
            let set = [scale.is_some(), window.is_some(), softcap.is_some(), sinks];
            heads + 10 * set.into_iter().filter(|set| *set).count()
        }
        Operator::Convolution { taps, bias } => taps + usize::from(bias),
        Operator::GatedDelta { key_heads, value_heads } => key_heads + value_heads,
        Operator::Route {
            chosen,
            scoring,
            normalize,
            scale,
            bias,
        } => {
            let set = [
                scoring != Scoring::SoftmaxChosen,
                normalize.is_some(),
                scale != 1.0,
                bias,
            ];
            chosen + set.into_iter().filter(|set| *set).count()
        }
        Operator::Experts { inner, bias, .. } => inner + usize::from(bias),
    }
}

/// Trials that may be smaller, the boldest first; some are ill-typed.
fn candidates(trial: &Trial) -> Vec<Trial> {
    let with = |definition: Definition| Trial {
        definition,
        ..trial.clone()
    };
    let mut all: Vec<Trial> = without_layers(&trial.definition).into_iter().map(with).collect();
    let sections = trial.definition.sections().count();
    for number in 0..sections {
        let section = trial.definition.sections().nth(number).expect("counted");
        for smaller in smaller_sections(section) {
            let mut definition = trial.definition.clone();
            *definition.sections_mut().nth(number).expect("counted") = smaller;
            all.push(with(definition));
        }
    }
    all.extend(plainer_settings(trial));
    all.extend(narrower(&trial.definition).into_iter().map(with));
    all
}

/// Without one of the layers, and without the kind that only it had.
fn without_layers(of: &Definition) -> Vec<Definition> {
    let without = |layer: usize| {
        let mut smaller = of.clone();
        let kind = smaller.layers.remove(layer);
        if !smaller.layers.contains(&kind) {
            smaller.kinds.remove(kind);
            for other in smaller.layers.iter_mut().filter(|other| **other > kind) {
                *other -= 1;
            }
        }
        smaller
    };
    (0..of.layers.len()).map(without).collect()
}

/// Fewer steps; or plainer ones.
fn smaller_sections(section: &Section) -> Vec<Section> {
    let mut all = Vec::new();
    // The output from further up.
    for output in 0..section.output {
        let sooner = Section {
            output,
            ..section.clone()
        };
        all.push(sooner.without_unused());
    }
    // A value in the place of a later one.
    for (index, step) in section.steps.iter().enumerate() {
        let mut earlier: Vec<usize> = step.operands.clone();
        earlier.extend((0..=index).filter(|value| !step.operands.contains(value)));
        for value in earlier {
            let mut shorter = section.clone();
            for later in &mut shorter.steps[index + 1..] {
                later
                    .operands
                    .iter_mut()
                    .filter(|of| **of == index + 1)
                    .for_each(|of| *of = value);
            }
            if shorter.output == index + 1 {
                shorter.output = value;
            }
            all.push(shorter.without_unused());
        }
    }
    for (index, step) in section.steps.iter().enumerate() {
        for position in 0..step.operands.len() {
            for value in 0..step.operands[position] {
                let mut other = section.clone();
                other.steps[index].operands[position] = value;
                all.push(other.without_unused());
            }
        }
        for operator in plainer(step.operator) {
            let mut other = section.clone();
            other.steps[index].operator = operator;
            all.push(other);
        }
    }
    all
}

/// An operator without one of its details.
fn plainer(operator: Operator) -> Vec<Operator> {
    match operator {
        Operator::Linear { rows, .. } => vec![Operator::Linear { rows, bias: false }],
        Operator::Router { experts, .. } => vec![
            Operator::Router { experts, bias: false },
            Operator::Linear {
                rows: experts,
                bias: false,
            },
        ],
        Operator::Norm { heads, plus_one, eps } => vec![
            Operator::Norm {
                heads: 1,
                plus_one,
                eps,
            },
            Operator::Norm {
                heads,
                plus_one: false,
                eps,
            },
        ],
        Operator::Unary(_) => vec![Operator::Unary(Unary::Relu)],
        Operator::Scale(_) | Operator::Softcap(_) | Operator::Clamp(_) => vec![Operator::Unary(Unary::Relu)],
        Operator::Attention {
            heads,
            scale,
            window,
            softcap,
            sinks,
        } => {
            let with = |scale, window, softcap, sinks| Operator::Attention {
                heads,
                scale,
                window,
                softcap,
                sinks,
            };
            vec![
                with(None, window, softcap, sinks),
                with(scale, None, softcap, sinks),
                with(scale, window, None, sinks),
                with(scale, window, softcap, false),
            ]
        }
        Operator::Convolution { taps, bias } => vec![
            Operator::Convolution { taps: 2, bias },
            Operator::Convolution { taps, bias: false },
        ],
        Operator::Route {
            chosen,
            scoring,
            normalize,
            scale,
            bias,
        } => {
            let with = |chosen, scoring, normalize, scale, bias| Operator::Route {
                chosen,
                scoring,
                normalize,
                scale,
                bias,
            };
            vec![
                with(1, scoring, normalize, scale, bias),
                with(chosen, Scoring::SoftmaxChosen, normalize, scale, bias),
                with(chosen, scoring, None, scale, bias),
                with(chosen, scoring, normalize, 1.0, bias),
                with(chosen, scoring, normalize, scale, false),
            ]
        }
        Operator::Experts { inner, gate, .. } => [1, inner / 2]
            .into_iter()
            .map(|inner| Operator::Experts {
                inner,
                gate,
                bias: false,
            })
            .chain([Operator::Experts {
                inner,
                gate,
                bias: false,
            }])
            .collect(),
        Operator::TiedHead
        | Operator::Binary(_)
        | Operator::Slice { .. }
        | Operator::ScaleRows
        | Operator::Rope { .. }
        | Operator::Cache { .. }
        | Operator::GatedDelta { .. } => Vec::new(),
    }
}

fn plainer_settings(trial: &Trial) -> Vec<Trial> {
    let plain = trial.clone();
    let mut all = vec![
        Trial {
            grid: Grid::F32,
            ..plain.clone()
        },
        Trial {
            plan: None,
            ..plain.clone()
        },
        Trial {
            binding_limit: None,
            ..plain.clone()
        },
        Trial {
            chunk: 16,
            ..plain.clone()
        },
    ];
    all.extend([1, 4, trial.tokens / 2].map(|tokens| Trial {
        tokens: tokens.max(1),
        ..plain.clone()
    }));
    all
}

/// One number made smaller wherever it is a width or a count, so that what must agree still does.
fn narrower(of: &Definition) -> Vec<Definition> {
    let mut numbers: Vec<usize> = vec![of.vocab, of.hidden];
    let mut probe = of.clone();
    each_number(&mut probe, &mut |number| numbers.push(*number));
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers.dedup();
    let mut all = Vec::new();
    for from in numbers {
        for to in [1, 2, 4, 8, from / 2, from.saturating_sub(1)] {
            if (1..from).contains(&to) {
                let mut smaller = of.clone();
                let mut change = |number: &mut usize| {
                    if *number == from {
                        *number = to;
                    }
                };
                change(&mut smaller.vocab);
                change(&mut smaller.hidden);
                each_number(&mut smaller, &mut change);
                all.push(smaller);
            }
        }
    }
    all
}

/// Widths and numbers of heads and experts of all operators.
fn each_number(of: &mut Definition, change: &mut dyn FnMut(&mut usize)) {
    for step in of.sections_mut().flat_map(|section| &mut section.steps) {
        match &mut step.operator {
            Operator::Linear { rows: number, .. }
            | Operator::Router { experts: number, .. }
            | Operator::Norm { heads: number, .. }
            | Operator::Rope { heads: number, .. }
            | Operator::Cache { kv_heads: number }
            | Operator::Attention { heads: number, .. }
            | Operator::Experts { inner: number, .. } => change(number),
            Operator::Slice { start, len } => {
                change(start);
                change(len);
            }
            Operator::GatedDelta { key_heads, value_heads } => {
                change(key_heads);
                change(value_heads);
            }
            _ => {}
        }
    }
}
