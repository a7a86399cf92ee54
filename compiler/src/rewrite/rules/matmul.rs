//! Linear maps: the kernel term, its prologues and its epilogues.

use egg::{EGraph, Id, Subst, Var, rewrite as rule};

use super::{Rule, not_a_plus};
use crate::term::{Facts, FactsOf, Phase, Term};

pub fn rules(phase: Phase) -> Vec<Rule> {
    let mut rules = vec![
        rule!("linear-to-matmul"; "(linear ?w ?x)" => "(matmul ?w (direct ?x) store)"),
        rule!("linear-bias-to-matmul"; "(linear_bias ?w ?x ?b)" => "(matmul ?w (direct ?x) (plus_bias store ?b))"),
        rule!("residual-into-matmul"; "(add ?r (matmul ?w ?p ?e))" => "(matmul ?w ?p (plus ?e ?r))"
            if not_a_plus("?e")),
        rule!("residual-into-matmul-left"; "(add (matmul ?w ?p ?e) ?r)" => "(matmul ?w ?p (plus ?e ?r))"
            if not_a_plus("?e")),
        rule!("unary-into-matmul"; "(unary ?k (matmul ?w ?p ?e))" => "(matmul ?w ?p (then_unary ?k ?e))"),
        rule!("scale-into-matmul"; "(scale ?c (matmul ?w ?p ?e))" => "(matmul ?w ?p (then_scale ?c ?e))"),
        rule!("softcap-into-matmul"; "(softcap ?c (matmul ?w ?p ?e))" => "(matmul ?w ?p (then_softcap ?c ?e))"),
        rule!("glu-into-matmul"; "(glu ?k (matmul ?w ?p ?e))" => "(matmul ?w ?p (then_glu ?k ?e))"
            if whole_rows("?e")),
    ];
    // A tiled product reads each row of x many times: normalizing it first is cheaper there, and the norm
    // prologue has no tiled kernel.
    if phase != Phase::Prefill {
        rules.push(
            rule!("norm-into-matmul"; "(matmul ?w (direct (rms_norm ?x ?g ?eps ?u)) ?e)"
            => "(matmul ?w (normed ?x ?g ?eps ?u) ?e)"),
        );
    }
    rules
}

/// Gate and up are not joined yet.
fn whole_rows(epilogue: &str) -> impl Fn(&mut EGraph<Term, FactsOf>, Id, &Subst) -> bool {
    let var: Var = epilogue.parse().expect("a pattern variable");
    move |egraph, _, subst| {
        matches!(
            egraph[subst[var]].data,
            Facts::Epilogue {
                halves: false,
                operand_width: 0
            }
        )
    }
}
