//! Short convolutions and what surrounds them.

use egg::rewrite as rule;

use super::{Rule, nothing};

pub fn rules() -> Vec<Rule> {
    vec![
        rule!("gate-into-convolution"; "(convolution ?st ?w ?b ?gi (mul ?g ?x) ?go ?act)" =>
            "(convolution ?st ?w ?b ?g ?x ?go ?act)" if nothing(&["?gi"])),
        rule!("activation-into-convolution"; "(unary ?k (convolution ?st ?w ?b ?gi ?x ?go ?act))" =>
            "(convolution ?st ?w ?b ?gi ?x ?go ?k)" if nothing(&["?go", "?act"])),
        rule!("convolution-gated"; "(mul ?g (convolution ?st ?w ?b ?gi ?x ?go ?act))" =>
            "(convolution ?st ?w ?b ?gi ?x ?g ?act)" if nothing(&["?go"])),
        rule!("convolution-gated-left"; "(mul (convolution ?st ?w ?b ?gi ?x ?go ?act) ?g)" =>
            "(convolution ?st ?w ?b ?gi ?x ?g ?act)" if nothing(&["?go"])),
    ]
}
