//! Random definitions, see [`kiln_codegen_tests::random_definition`].

mod coverage;
mod shrinking;

use std::ops::Range;

use kiln_codegen_tests::random_definition::{Failure, Trial, shrink};

/// Seeds that the generator is held to: together they have all there is to a definition.
const SEEDS: Range<u64> = 0..200;
/// Of each twenty so many are compiled and run unless `KILN_DEFINITIONS` names a range, as in `200..1200`. A software device
/// takes seconds for each, most of it for compiling kernels that no other seed has.
const RUN_OF_TWENTY: u64 = 5;
/// Tests that share them.
const SHARES: u64 = 5;

fn seeds() -> Vec<u64> {
    let Ok(text) = std::env::var("KILN_DEFINITIONS") else {
        return SEEDS.filter(|seed| seed % 20 < RUN_OF_TWENTY).collect();
    };
    let range = (text.split_once("..")).and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    let range: Range<u64> = range.unwrap_or_else(|| panic!("KILN_DEFINITIONS={text}: expected seeds as in 200..1200"));
    range.collect()
}

/// Runs each `SHARES`-th seed from `share` on. The first of each kind of failure is made small.
fn run(share: u64) {
    let mut failed: Vec<(Trial, Failure)> = Vec::new();
    for seed in seeds().into_iter().filter(|seed| seed % SHARES == share) {
        let trial = Trial::of_seed(seed);
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
    seeds_0: 0, seeds_1: 1, seeds_2: 2, seeds_3: 3, seeds_4: 4,
}
