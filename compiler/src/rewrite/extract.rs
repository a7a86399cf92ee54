//! Extraction: the cheapest program in an e-graph, each shared part paid once.
//!
//! Every class keeps the set of classes that its best program realises, with their prices; a candidate's cost
//! is the sum over the *union* of its children's sets, so a shared norm or residual counts once. Bottom-up to
//! a fixed point, after the "faster greedy DAG" extractor of the extraction gym
//! (Goharshady, Lam & Parreaux 2024 discuss the problem; it is NP-hard, and this is a heuristic). Ties go to the earlier
//! e-node, so the result is the same on every run. A test compares it with exhaustive search.

use std::collections::BTreeMap;

use crate::term::{Term, TermGraph};
use egg::{Id, Language};

/// The chosen e-node of each class that the program uses.
#[derive(Clone, Debug)]
pub struct Extraction {
    pub root: Id,
    pub choice: BTreeMap<Id, Term>,
    /// Price of each class in `choice`, in picoseconds.
    pub prices: BTreeMap<Id, u64>,
}

impl Extraction {
    pub fn total(&self) -> u64 {
        self.prices.values().sum()
    }
}

struct Candidate {
    term: Term,
    /// Every class realised, itself included.
    prices: BTreeMap<Id, u64>,
    total: u64,
}

/// The cheapest program for `root`. `price` gives an e-node's own cost, `None` if it cannot run.
/// `None` if no program can run.
pub fn extract(egraph: &TermGraph, root: Id, price: impl Fn(&Term) -> Option<u64>) -> Option<Extraction> {
    let mut ids: Vec<Id> = egraph.classes().map(|class| class.id).collect();
    ids.sort_unstable();
    let mut best: BTreeMap<Id, Candidate> = BTreeMap::new();
    loop {
        let mut changed = false;
        for &id in &ids {
            for node in &egraph[id].nodes {
                let Some(candidate) = candidate(egraph, id, node, &best, &price) else {
                    continue;
                };
                if best.get(&id).is_none_or(|known| candidate.total < known.total) {
                    best.insert(id, candidate);
                    changed = true;
                }
            }
        }
        if !changed {
            break;
        }
    }
    realise(egraph, root, &best, &price)
}

fn candidate(
    egraph: &TermGraph,
    id: Id,
    node: &Term,
    best: &BTreeMap<Id, Candidate>,
    price: &impl Fn(&Term) -> Option<u64>,
) -> Option<Candidate> {
    let own = price(node)?;
    let mut prices = BTreeMap::from([(id, own)]);
    for child in node.children() {
        let child = &best.get(&egraph.find(*child))?.prices;
        if child.contains_key(&id) {
            return None; // a cycle
        }
        prices.extend(child);
    }
    let total = prices.values().sum();
    Some(Candidate {
        term: node.clone(),
        prices,
        total,
    })
}

/// Walks from the root along the chosen e-nodes.
fn realise(
    egraph: &TermGraph,
    root: Id,
    best: &BTreeMap<Id, Candidate>,
    price: &impl Fn(&Term) -> Option<u64>,
) -> Option<Extraction> {
    let root = egraph.find(root);
    let mut choice = BTreeMap::new();
    let mut prices = BTreeMap::new();
    let mut pending = vec![root];
    while let Some(id) = pending.pop() {
        if choice.contains_key(&id) {
            continue;
        }
        let term = best.get(&id)?.term.clone().map_children(|child| egraph.find(child));
        pending.extend(term.children());
        prices.insert(id, price(&term)?);
        choice.insert(id, term);
    }
    Some(Extraction { root, choice, prices })
}
