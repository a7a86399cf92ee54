//! Random definitions, see [`kiln_codegen_tests::random_definition`].

mod coverage;
mod shrinking;

use std::ops::Range;

use kiln_codegen_tests::random_definition::{Failure, Trial, shrink};

/// Seeds that every run of the tests goes through, with one run each, unless `KILN_DEFINITIONS` names others, `200..1200`,
/// for every run.
const SEEDS: Range<u64> = 0..200;
/// Tests that share them.
const SHARES: u64 = 20;

/// The seeds that are asked for.
fn asked() -> Option<Range<u64>> {
    let text = std::env::var("KILN_DEFINITIONS").ok()?;
    let range = (text.split_once("..")).and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    Some(range.unwrap_or_else(|| panic!("KILN_DEFINITIONS={text}: expected seeds as in 200..1200")))
}

/// Runs each `SHARES`-th seed from `share` on. The first of each kind of failure is made small.
fn run(share: u64) {
    let mut failed: Vec<(Trial, Failure)> = Vec::new();
    let asked = asked();
    let seeds = asked.clone().unwrap_or(SEEDS);
    for seed in seeds.filter(|seed| seed % SHARES == share) {
        let trial = Trial::of_seed(seed);
        let trial = if asked.is_some() { trial } else { trial.with_one_run() };
        if let Err(failure) = trial.run() {
            eprintln!("seed {seed}: {failure}");
            failed.push((trial, failure));
        }
    }
    let mut told: Vec<&Failure> = Vec::new();
    for (trial, failure) in &failed {
        if told.iter().any(|other| other.like(failure)) {
            continue;
        }
        told.push(failure);
        let (small, of_small) = shrink(trial.clone(), failure);
        let seed = trial.seed;
        eprintln!(
            "\nseed {seed}: {failure}\nThe same of a smaller definition: {of_small}\n{small}\nTo repeat it: \
             KILN_DEFINITIONS={seed}..{} cargo nextest run -p kiln-codegen-tests -E 'test(definitions::seeds)'",
            seed + 1,
        );
    }
    let seeds: Vec<u64> = failed.iter().map(|(trial, _)| trial.seed).collect();
    assert!(seeds.is_empty(), "seeds {seeds:?} fail");
}

macro_rules! shares {
    ($($name:ident: $share:literal,)*) => {$(
        #[test]
        fn $name() {
            run($share);
        }
    )*};
}

shares! {
    seeds_00: 0, seeds_01: 1, seeds_02: 2, seeds_03: 3, seeds_04: 4, seeds_05: 5, seeds_06: 6, seeds_07: 7, seeds_08: 8,
    seeds_09: 9, seeds_10: 10, seeds_11: 11, seeds_12: 12, seeds_13: 13, seeds_14: 14, seeds_15: 15, seeds_16: 16,
    seeds_17: 17, seeds_18: 18, seeds_19: 19,
}
