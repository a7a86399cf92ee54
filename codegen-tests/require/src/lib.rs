//! What a test may lack on a machine, and how it says so.
//!
//! A test that passes because it could not look is worth nothing where it should have looked. So the environment's
//! `KILN_REQUIRE` lists what a machine is known to have, e.g. `gpu,tint,models,browser`; lacking that is a failure
//! then. `browser` is for the scripts of the JavaScript package, which read the same variable.

use std::fmt::Display;

/// Something that a test needs and a machine may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// A device with the features that the test is about, real or software.
    Gpu,
    /// Chromium's compiler of WGSL, as a program.
    Tint,
    /// The real models, in `models/` or `$KILN_MODELS`.
    Models,
    /// Node and Chromium.
    Browser,
}

impl Requirement {
    const ALL: [(&str, Requirement); 4] = [
        ("gpu", Requirement::Gpu),
        ("tint", Requirement::Tint),
        ("models", Requirement::Models),
        ("browser", Requirement::Browser),
    ];
}

/// Reads a list such as `gpu, tint`.
fn parse(list: &str) -> Result<Vec<Requirement>, String> {
    let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let known = Requirement::ALL.iter().find(|(known, _)| *known == name);
            known.map(|(_, requirement)| *requirement).ok_or_else(|| {
                let known: Vec<&str> = Requirement::ALL.iter().map(|(name, _)| *name).collect();
                format!("KILN_REQUIRE: {name:?} is none of {}", known.join(", "))
            })
        })
        .collect()
}

/// Says that something is not tested here, and why.
///
/// # Panics
/// `KILN_REQUIRE` names what is lacking, or something unknown.
pub fn skip(lacking: Requirement, why: impl Display) {
    let list = std::env::var("KILN_REQUIRE").unwrap_or_default();
    let required = parse(&list).unwrap_or_else(|error| panic!("{error}"));
    assert!(
        !required.contains(&lacking),
        "{why} (KILN_REQUIRE={list} makes that a failure)"
    );
    eprintln!("SKIPPED: {why}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_requirements() {
        assert_eq!(parse(""), Ok(vec![]));
        assert_eq!(parse("tint"), Ok(vec![Requirement::Tint]));
        assert_eq!(
            parse(" models,,gpu ,browser"),
            Ok(vec![Requirement::Models, Requirement::Gpu, Requirement::Browser])
        );
        assert!(parse("gpu,tnit").unwrap_err().contains("\"tnit\" is none of gpu, tint"));
    }
}
