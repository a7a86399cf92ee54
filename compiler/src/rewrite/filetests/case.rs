//! What a file asks: a term and what it is rewritten for.

use std::collections::BTreeMap;

use egg::RecExpr;

use super::leaf;
use crate::cost::Profile;
use crate::rewrite::MoePlan;
use crate::term::{Leaf, Leaves, Phase, Term};

pub struct Case {
    pub phase: Phase,
    pub profile: Profile,
    /// How mixtures of experts may run.
    pub plans: Vec<MoePlan>,
    pub term: RecExpr<Term>,
    pub leaves: Leaves,
    /// Each leaf as the file writes it.
    pub names: BTreeMap<Leaf, String>,
}

impl Case {
    /// Reads all of a file up to what it expects.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut phase, mut profile, mut plans) = (None, None, MoePlan::ALL.to_vec());
        let mut leaves = Declared::default();
        let mut lines = text
            .lines()
            .filter(|line| !line.starts_with(';') && !line.trim().is_empty());
        for line in lines.by_ref() {
            match line.split_once(' ').unwrap_or((line, "")) {
                ("term", "") => break,
                ("phase", name) => phase = Some(phase_of(name)?),
                ("profile", name) => profile = Some(Profile::named(name).map_err(|error| error.to_string())?),
                ("plan", name) => plans = vec![name.parse::<MoePlan>().map_err(|error| error.to_string())?],
                ("leaf", declaration) => leaves.declare(declaration)?,
                _ => return Err(format!("`{line}` is not understood")),
            }
        }
        let term = leaves.numbered(&lines.collect::<Vec<_>>().join(" "))?;
        Ok(Case {
            phase: phase.ok_or("the file names no phase")?,
            profile: profile.ok_or("the file names no profile")?,
            plans,
            term: term.parse().map_err(|error| format!("{term}: {error}"))?,
            leaves: leaves.leaves,
            names: leaves.names,
        })
    }
}

fn phase_of(name: &str) -> Result<Phase, String> {
    match name {
        "prefill" => Ok(Phase::Prefill),
        "decode" => Ok(Phase::Decode),
        "head" => Ok(Phase::Head),
        _ => Err(format!("`{name}` is no phase")),
    }
}

#[derive(Default)]
struct Declared {
    leaves: Leaves,
    names: BTreeMap<Leaf, String>,
}

impl Declared {
    /// Takes in `NAME = KIND SIZES`.
    fn declare(&mut self, declaration: &str) -> Result<(), String> {
        let (name, kind) = declaration
            .split_once(" = ")
            .ok_or_else(|| format!("`leaf {declaration}` is not leaf NAME = KIND SIZES"))?;
        if self.names.values().any(|known| known == name) {
            return Err(format!("leaf `{name}` is declared twice"));
        }
        let leaf = self.leaves.add(leaf::declared(kind, self.names.len())?);
        match self.names.insert(leaf, name.to_string()) {
            None => Ok(()),
            Some(known) => Err(format!("`{name}` is `{known}`: a section has one input of a width")),
        }
    }

    /// A term with each leaf as its number.
    fn numbered(&mut self, term: &str) -> Result<String, String> {
        let spaced = term.replace('(', " ( ").replace(')', " ) ");
        let mut numbered: Vec<String> = Vec::new();
        for word in spaced.split_whitespace() {
            let after_bracket = numbered.last().is_some_and(|last| last == "(");
            numbered.push(match word {
                "(" | ")" | "store" => word.to_string(),
                _ if after_bracket => word.to_string(),
                _ => self.leaf(word)?.to_string(),
            });
        }
        Ok(numbered.join(" "))
    }

    fn leaf(&mut self, name: &str) -> Result<Leaf, String> {
        if let Some((leaf, _)) = self.names.iter().find(|(_, known)| *known == name) {
            return Ok(*leaf);
        }
        let literal = leaf::literal(name).ok_or_else(|| format!("`{name}` is no leaf that the file declares"))?;
        let leaf = self.leaves.add(literal);
        self.names.insert(leaf, name.to_string());
        Ok(leaf)
    }
}
