//! Norms and elementwise operators outside matrix products.

use egg::rewrite as rule;

use super::Rule;

pub fn rules() -> Vec<Rule> {
    vec![
        rule!("residual-into-norm"; "(add ?r (rms_norm ?x ?g ?eps ?u))" => "(norm_add ?x ?g ?eps ?u ?r)"),
        rule!("residual-into-norm-left"; "(add (rms_norm ?x ?g ?eps ?u) ?r)" => "(norm_add ?x ?g ?eps ?u ?r)"),
        rule!("scale-into-gather"; "(scale ?c (gather ?w ?t))" => "(gather_scaled ?c ?w ?t)"),
    ]
}
