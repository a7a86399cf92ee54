//! The shrinker, with failures that are planted.

use kiln_codegen_tests::random_definition::{Operator, Trial, generate, shrink_by};
use kiln_codegen_tests::random_model::Grid;
use kiln_compiler::rewrite::OptLevel;

/// A trial of a definition that need not be steady: nothing runs here.
fn trial(seed: u64) -> Trial {
    Trial {
        seed,
        definition: generate(seed),
        grid: Grid::Q4,
        tokens: 17,
        chunk: 3,
        plan: None,
        binding_limit: Some(4096),
        levels: vec![OptLevel::None, OptLevel::Full],
        runs: vec![(OptLevel::Full, "base")],
    }
}

/// The first seed's trial that fails so.
fn first(fails: impl Fn(&Trial) -> bool) -> Trial {
    (0..1000).map(trial).find(fails).expect("a seed that fails so")
}

fn operators(trial: &Trial) -> Vec<Operator> {
    let steps = trial.definition.sections().flat_map(|section| &section.steps);
    steps.map(|step| step.operator).collect()
}

#[test]
fn what_the_failure_needs_is_left_and_nothing_else() {
    let fails = |trial: &Trial| {
        let all = operators(trial);
        let has = |wanted: fn(&Operator) -> bool| all.iter().any(wanted);
        has(|operator| matches!(operator, Operator::Convolution { bias: true, .. }))
            && has(|operator| matches!(operator, Operator::Experts { .. }))
    };
    let small = shrink_by(first(fails), 100_000, &mut |trial| fails(trial));
    assert!(fails(&small), "{small}");
    small.definition.check().unwrap();
    // A choice, experts and a convolution: where everything is one number wide, a value is its own scores and its own logits.
    assert_eq!(small.definition.size(), 3, "{small}");
    assert_eq!(small.definition.layers, [0], "{small}");
    assert_eq!((small.definition.hidden, small.definition.vocab), (1, 1), "{small}");
    assert_eq!(
        (small.grid, small.binding_limit, small.tokens, small.chunk),
        (Grid::F32, None, 1, 16)
    );
    let text = small.to_string();
    assert!(
        text.contains(".convolution(") && text.contains(".biased(true)") && text.contains("moe("),
        "{text}"
    );
}

#[test]
fn sizes_shrink_as_far_as_the_failure_lets_them() {
    let wide = |operator: &Operator| matches!(operator, Operator::Linear { rows: 13.., .. });
    let fails = |trial: &Trial| trial.tokens >= 6 && operators(trial).iter().any(wide);
    let small = shrink_by(first(fails), 100_000, &mut |trial| fails(trial));
    let widths: Vec<Operator> = operators(&small).into_iter().filter(wide).collect();
    assert_eq!(widths, [Operator::Linear { rows: 13, bias: false }], "{small}");
    assert!(small.tokens < 12, "{small}");
}

#[test]
fn shrinking_ends_when_patience_does() {
    let mut asked = 0;
    let start = trial(3);
    let small = shrink_by(start.clone(), 7, &mut |_| {
        asked += 1;
        false
    });
    assert_eq!((asked, small.definition), (7, start.definition));
}
