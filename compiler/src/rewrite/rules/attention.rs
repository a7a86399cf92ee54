//! Rope, cache and attention.

use egg::{EGraph, Id, Subst, Var, rewrite as rule};

use super::Rule;
use crate::term::{FactsOf, LeafDef, Phase, Term, leaf_def};

pub fn rules(phase: Phase) -> Vec<Rule> {
    let mut rules = vec![
        rule!("rope-cache";
            "(attention ?a (rope ?r ?h (slice ?s0 ?l0 ?qkv))
                (cache_write ?st (rope ?r ?kh (slice ?s1 ?l1 ?qkv)) (slice ?s2 ?l1 ?qkv)) ?sk)" =>
            "(attention ?a (queries_of (rope_cache ?st ?r ?h ?kh ?qkv)) (cache_of (rope_cache ?st ?r ?h ?kh ?qkv)) ?sk)"
            if stacked_in_order()),
        rule!("rope-cache-norm";
            "(attention ?a (rope ?r ?h (head_norm (slice ?s0 ?l0 ?qkv) ?gq ?eps ?u ?h))
                (cache_write ?st (rope ?r ?kh (head_norm (slice ?s1 ?l1 ?qkv) ?gk ?eps ?u ?kh)) (slice ?s2 ?l1 ?qkv)) ?sk)" =>
            "(attention ?a (queries_of (rope_cache_norm ?st ?r ?h ?kh ?qkv ?gq ?gk ?eps ?u))
                (cache_of (rope_cache_norm ?st ?r ?h ?kh ?qkv ?gq ?gk ?eps ?u)) ?sk)"
            if stacked_in_order()),
    ];
    if phase == Phase::Decode {
        rules.push(rule!("attention-split";
            "(attention ?a ?q ?c ?sk)" => "(attention_reduce ?a (attention_split ?a ?q ?c) ?sk)"));
    }
    rules
}

/// The slices are queries, keys, values in this order, from the first column on, and split into the heads that attend:
/// what the kernel expects.
fn stacked_in_order() -> impl Fn(&mut EGraph<Term, FactsOf>, Id, &Subst) -> bool {
    let var = |name: &str| name.parse::<Var>().expect("a pattern variable");
    let (starts, lengths) = (
        [var("?s0"), var("?s1"), var("?s2")],
        [var("?l0"), var("?l1"), var("?l1")],
    );
    let (attention, state, turned) = (var("?a"), var("?st"), [var("?h"), var("?kh")]);
    move |egraph, _, subst| {
        let count = |var: Var| match leaf_def(egraph, subst[var]) {
            Some(LeafDef::Count(count)) => Some(*count),
            _ => None,
        };
        let heads = match (leaf_def(egraph, subst[attention]), leaf_def(egraph, subst[state])) {
            (Some(LeafDef::Attention { heads, .. }), Some(LeafDef::State { kv_heads, .. })) => [*heads, *kv_heads],
            _ => return false,
        };
        if turned.map(count) != heads.map(Some) {
            return false;
        }
        let mut next = Some(0);
        for (start, length) in starts.iter().zip(&lengths) {
            if count(*start) != next {
                return false;
            }
            next = next.zip(count(*length)).map(|(start, length)| start + length);
        }
        next.is_some()
    }
}
