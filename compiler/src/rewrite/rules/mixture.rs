//! Mixtures of experts: the plans, and what joins their kernels.

use egg::{EGraph, Id, Subst, Var, rewrite as rule};

use super::{Rule, not_a_plus};
use crate::rewrite::MoePlan;
use crate::term::{FactsOf, Phase, Term};

pub fn rules(phase: Phase, plans: &[MoePlan]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = plans.iter().map(|plan| plan_rule(*plan)).collect();
    rules.extend([
        rule!("residual-into-experts"; "(add ?r (expert_down ?m ?ro ?a ?w ?b ?e))" =>
            "(expert_down ?m ?ro ?a ?w ?b (plus ?e ?r))" if not_a_plus("?e")),
        rule!("residual-into-experts-left"; "(add (expert_down ?m ?ro ?a ?w ?b ?e) ?r)" =>
            "(expert_down ?m ?ro ?a ?w ?b (plus ?e ?r))" if not_a_plus("?e")),
        rule!("residual-into-combine"; "(add ?r (combine ?m ?ro ?y ?e))" =>
            "(combine ?m ?ro ?y (plus ?e ?r))" if not_a_plus("?e")),
        rule!("residual-into-combine-left"; "(add (combine ?m ?ro ?y ?e) ?r)" =>
            "(combine ?m ?ro ?y (plus ?e ?r))" if not_a_plus("?e")),
        rule!("residual-into-dense"; "(add ?r (dense_down ?m ?ro ?a ?w ?b ?e))" =>
            "(dense_down ?m ?ro ?a ?w ?b (plus ?e ?r))" if not_a_plus("?e")),
        rule!("residual-into-dense-left"; "(add (dense_down ?m ?ro ?a ?w ?b ?e) ?r)" =>
            "(dense_down ?m ?ro ?a ?w ?b (plus ?e ?r))" if not_a_plus("?e")),
    ]);
    if phase == Phase::Decode {
        rules.extend([
            rule!("norm-into-experts"; "(expert_up ?m ?ro (direct (rms_norm ?x ?g ?eps ?u)) ?w ?b)" =>
                "(expert_up ?m ?ro (normed ?x ?g ?eps ?u) ?w ?b)"),
            rule!("scores-into-router"; "(route ?s (matmul ?w ?p ?e) ?sel)" =>
                "(router ?s ?w ?p ?e ?sel)" if at_most_a_bias("?e")),
        ]);
    }
    rules
}

/// The router's kernel knows no other epilogue.
fn at_most_a_bias(epilogue: &str) -> impl Fn(&mut EGraph<Term, FactsOf>, Id, &Subst) -> bool {
    let var: Var = epilogue.parse().expect("a pattern variable");
    move |egraph, _, subst| {
        let stores = |id: Id| egraph[id].nodes.contains(&Term::Store);
        let with_bias = |node: &Term| matches!(node, Term::PlusBias([e, _]) if stores(*e));
        stores(subst[var]) || egraph[subst[var]].nodes.iter().any(with_bias)
    }
}

fn plan_rule(plan: MoePlan) -> Rule {
    match plan {
        MoePlan::Gather => rule!("experts-gather"; "(experts ?m ?x ?ro ?up ?bu ?down ?bd)" =>
            "(expert_down ?m ?ro (expert_up ?m ?ro (direct ?x) ?up ?bu) ?down ?bd store)"),
        MoePlan::Grouped => rule!("experts-grouped"; "(experts ?m ?x ?ro ?up ?bu ?down ?bd)" =>
            "(combine ?m ?ro (grouped_down ?m (group ?m ?ro)
                (grouped_up ?m (group ?m ?ro) ?x ?up ?bu) ?down ?bd) store)"),
        MoePlan::Dense => rule!("experts-dense"; "(experts ?m ?x ?ro ?up ?bu ?down ?bd)" =>
            "(dense_down ?m ?ro (dense_up ?m ?x ?up ?bu) ?down ?bd store)"),
    }
}
