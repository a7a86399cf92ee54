//! The rewrite rules, by topic. See README.md beside this file for the laws they obey.

mod attention;
mod matmul;
mod pointwise;

use super::facts::FactsOf;
use super::term::Term;
use crate::rewrite::Phase;

pub type Rule = egg::Rewrite<Term, FactsOf>;

/// All rules of a phase, in a fixed order.
pub fn rules(phase: Phase) -> Vec<Rule> {
    let mut rules = matmul::rules(phase);
    rules.extend(pointwise::rules());
    rules.extend(attention::rules(phase));
    rules
}
