//! Runs the files of `compiler/filetests/rewrite`: a term in, the rules that fired and the cheapest program out.
//!
//! Each file is one rule, or one fault that was mended. `KILN_BLESS=1` writes what comes out into the files; read the
//! diff before it is committed. The format is described in CONTRIBUTING.md.

mod case;
mod leaf;
mod program;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use self::case::Case;
use super::extract::extract;
use super::rules::rules;
use super::{MoePlan, saturate, unfinished};
use crate::cost::Costs;
use crate::term::{Phase, Prices, Term};

/// The line after which a file says what it expects.
const EXPECT: &str = "\nexpect\n";

/// What became of a file's term.
struct Outcome {
    /// The rules that changed the e-graph.
    fired: Vec<String>,
    text: String,
}

fn run(case: &Case) -> Result<Outcome, String> {
    let costs = Costs {
        profile: &case.profile,
        phase: case.phase,
        chunk: 128,
        context: 1024,
    };
    let written = saturate(&case.term, case.leaves.clone(), &[]);
    let as_written = extract(&written.egraph, written.roots[0], |term| {
        costs.price(&written.egraph, term)
    });
    let rules = rules(case.phase, &case.plans);
    let runner = saturate(&case.term, case.leaves.clone(), &rules);
    unfinished(&runner).map_or(Ok(()), Err)?;
    let (egraph, root) = (&runner.egraph, runner.roots[0]);
    let price = |term: &Term| costs.price(egraph, term);
    let found = extract(egraph, root, price).ok_or("no program computes the term")?;

    let rounds = || runner.iterations.iter();
    let applied = |name: &str| rounds().any(|round| round.applied.keys().any(|rule| rule.as_str() == name));
    let names = rules.iter().map(|rule| rule.name.to_string());
    let fired: Vec<String> = names.filter(|name| applied(name)).collect();
    let mut text = format!(
        "fired {}\n",
        if fired.is_empty() {
            "none".to_string()
        } else {
            fired.join(" ")
        }
    );
    text += &program::describe(&found, &case.names);
    let _ = writeln!(text, "{} in all", program::nanoseconds(found.total()));
    let _ = match as_written {
        Some(program) => writeln!(text, "{} as written", program::nanoseconds(program.total())),
        None => writeln!(text, "no program as written"),
    };
    Ok(Outcome { fired, text })
}

/// Runs a file's text; an error says where it expects something else than comes out.
fn check(text: &str) -> Result<Outcome, String> {
    let (input, expected) = text.split_once(EXPECT).ok_or("the file has no line `expect`")?;
    let outcome = run(&Case::parse(input)?)?;
    match outcome.text == expected {
        true => Ok(outcome),
        false => Err(format!("expected:\n{expected}\nfound:\n{}", outcome.text)),
    }
}

/// The files and their text, by name without ending.
fn files() -> BTreeMap<String, (PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("filetests/rewrite");
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let file = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        (name, (path, text))
    };
    entries.map(|entry| file(entry.unwrap().path())).collect()
}

/// All rules, of whatever phase.
fn rule_names() -> Vec<String> {
    let mut names: Vec<String> = [Phase::Prefill, Phase::Decode, Phase::Head]
        .into_iter()
        .flat_map(|phase| rules(phase, &MoePlan::ALL))
        .map(|rule| rule.name.to_string())
        .collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn every_file_comes_out_as_it_expects() {
    let bless = std::env::var_os("KILN_BLESS").is_some();
    let mut wrong = String::new();
    for (name, (path, text)) in files() {
        assert!(
            text.starts_with(';'),
            "{name}: the first line is a comment that says what the file shows"
        );
        if bless {
            let input = text.split_once(EXPECT).map_or(text.trim_end(), |(input, _)| input);
            let outcome = Case::parse(input).and_then(|case| run(&case));
            let outcome = outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
            fs::write(path, format!("{input}{EXPECT}{}", outcome.text)).unwrap();
        } else if let Err(error) = check(&text) {
            let _ = writeln!(wrong, "{}: {error}\n", path.display());
        }
    }
    assert!(
        wrong.is_empty(),
        "{wrong}if this is right, run the test with KILN_BLESS=1 and read the diff"
    );
}

#[test]
fn every_rule_has_a_file_in_which_it_fires() {
    let files = files();
    for rule in rule_names() {
        let Some((path, text)) = files.get(&rule) else {
            panic!("rule {rule} has no file compiler/filetests/rewrite/{rule}.txt");
        };
        let (input, _) = text.split_once(EXPECT).unwrap_or((text, ""));
        let outcome = Case::parse(input).and_then(|case| run(&case));
        let outcome = outcome.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(
            outcome.fired.contains(&rule),
            "{}: {rule} does not fire",
            path.display()
        );
    }
}

/// The harness itself: whatever line of what a file expects is changed, the file fails.
#[test]
fn a_file_that_expects_something_wrong_fails() {
    for (name, (_, text)) in files() {
        let (input, expected) = text
            .split_once(EXPECT)
            .unwrap_or_else(|| panic!("{name} expects nothing"));
        let lines: Vec<&str> = expected.lines().collect();
        for wrong in 0..lines.len() {
            let mut changed = lines.clone();
            changed.remove(wrong);
            let without = format!("{input}{EXPECT}{}\n", changed.join("\n"));
            assert!(
                check(&without).is_err(),
                "{name}: passes without its line {:?}",
                lines[wrong]
            );
        }
        let last_digit = expected.rfind(|c: char| c.is_ascii_digit());
        let mut changed = expected.to_string();
        if let Some(at) = last_digit {
            let other = if &expected[at..=at] == "1" { "2" } else { "1" };
            changed.replace_range(at..=at, other);
        }
        assert!(
            check(&format!("{input}{EXPECT}{changed}")).is_err(),
            "{name}: passes with another price"
        );
    }
}

#[test]
fn what_a_file_does_not_say_rightly_is_refused() {
    let case = |text: &str| Case::parse(text).err().unwrap_or_else(|| panic!("{text} is read"));
    let head = "; x\nphase decode\nprofile generic\nleaf x = input 8\n";
    assert!(case(&format!("{head}term\n(add x y)")).contains("`y`"));
    assert!(case(&format!("{head}term\n(add x)")).contains("add"));
    assert!(case(&format!("{head}leaf y = inputs 8\nterm\nx")).contains("`inputs`"));
    assert!(case(&format!("{head}leaf y = matrix 8 8\nterm\nx")).contains("matrix"));
    assert!(case("; x\nphase decoding\nprofile generic\nterm\nnothing").contains("`decoding`"));
    assert!(case("; x\nphase decode\nprofile other\nterm\nnothing").contains("other"));
    assert!(case("; x\nphase decode\nterm\nnothing").contains("profile"));
    assert!(case(&format!("{head}unknown line\nterm\nx")).contains("unknown line"));
}
