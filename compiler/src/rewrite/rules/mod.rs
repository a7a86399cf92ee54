//! The rewrite rules, by topic. See README.md beside this file for the laws they obey.

mod attention;
mod matmul;
mod mixture;
mod pointwise;
mod state;

use crate::rewrite::MoePlan;
use crate::term::{Facts, FactsOf, LeafDef, Phase, Term, leaf_def};
use egg::{EGraph, Id, Subst, Var};

pub type Rule = egg::Rewrite<Term, FactsOf>;

/// All rules of a phase, in a fixed order. `plans`: how mixtures of experts may run.
pub fn rules(phase: Phase, plans: &[MoePlan]) -> Vec<Rule> {
    let mut rules = matmul::rules(phase);
    rules.extend(pointwise::rules());
    rules.extend(attention::rules(phase));
    rules.extend(state::rules());
    rules.extend(mixture::rules(phase, plans));
    rules
}

type Condition = Box<dyn Fn(&mut EGraph<Term, FactsOf>, Id, &Subst) -> bool + Send + Sync>;

/// An optional operand is absent.
fn nothing(operands: &[&str]) -> Condition {
    let operands: Vec<Var> = operands
        .iter()
        .map(|name| name.parse().expect("a pattern variable"))
        .collect();
    Box::new(move |egraph, _, subst| {
        let mut operands = operands.iter();
        operands.all(|operand| leaf_def(egraph, subst[*operand]) == Some(&LeafDef::Nothing))
    })
}

/// An epilogue has no activation operand yet: kernels take one.
fn not_a_plus(epilogue: &str) -> Condition {
    let epilogue: Var = epilogue.parse().expect("a pattern variable");
    Box::new(move |egraph, _, subst| {
        !matches!(egraph[subst[epilogue]].data, Facts::Epilogue { operand_width: 1.., .. })
    })
}
