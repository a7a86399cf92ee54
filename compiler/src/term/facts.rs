//! The e-graph's analysis: what is known of the value of each class.

use egg::{Analysis, DidMerge, EGraph, Id};

use super::{LeafDef, Leaves, Term};
use crate::weights::WeightFormat;

/// The analysis; holds the section's leaves.
#[derive(Clone, Debug, Default)]
pub struct FactsOf {
    pub leaves: Leaves,
}

pub type TermGraph = EGraph<Term, FactsOf>;

/// Facts of a class. All its e-nodes are the same value, so merging asserts that they agree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Facts {
    /// f32 `[T, width]`
    Activation {
        width: u32,
    },
    Matrix {
        rows: u32,
        cols: u32,
        format: WeightFormat,
    },
    /// `rows` of each expert.
    Bank {
        experts: u32,
        rows: u32,
        cols: u32,
        format: WeightFormat,
    },
    /// `k` pairs of expert and weight a token.
    Routing {
        k: u32,
    },
    /// f32 `[len]`
    Vector {
        len: u32,
    },
    Prologue {
        width: u32,
    },
    /// `halves`: gate and up rows become one output. `operand_width`: f32 elements a token that it reads besides.
    Epilogue {
        halves: bool,
        operand_width: u32,
    },
    /// Rotated queries together with the cache.
    RopeCache {
        q_width: u32,
    },
    Cache {
        width: u32,
    },
    Partials {
        width: u32,
    },
    /// Token ids and parameters.
    Parameter,
}

impl Facts {
    /// Elements a token; 0 for what is no activation.
    pub fn width(self) -> u32 {
        match self {
            Facts::Activation { width } | Facts::Prologue { width } | Facts::Partials { width } => width,
            Facts::Routing { k } => 2 * k,
            _ => 0,
        }
    }

    /// Of gate and up, what their gate leaves.
    fn halved(self) -> Self {
        match self {
            Facts::Activation { width } => Facts::Activation { width: width / 2 },
            other => other,
        }
    }
}

impl Analysis<Term> for FactsOf {
    type Data = Facts;

    fn make(egraph: &mut TermGraph, term: &Term, _id: Id) -> Facts {
        let facts = |id: &Id| egraph[*id].data;
        let leaf = |id: &Id| leaf_def(egraph, *id);
        let same = |id: &Id| Facts::Activation {
            width: facts(id).width(),
        };
        match term {
            Term::Leaf(leaf) => match egraph.analysis.leaves.get(*leaf) {
                LeafDef::Input { width } => Facts::Activation { width: *width },
                LeafDef::Matrix(matrix) => Facts::Matrix {
                    rows: matrix.rows,
                    cols: matrix.cols,
                    format: matrix.format,
                },
                LeafDef::Bank(bank) => Facts::Bank {
                    experts: bank.experts,
                    rows: bank.rows(),
                    cols: bank.matrix.cols,
                    format: bank.matrix.format,
                },
                LeafDef::Vector { len, .. } => Facts::Vector { len: *len },
                _ => Facts::Parameter,
            },
            Term::Gather([table, _]) | Term::GatherScaled([_, table, _]) => match facts(table) {
                Facts::Matrix { cols, .. } => Facts::Activation { width: cols },
                _ => Facts::Parameter,
            },
            Term::Linear([w, _]) | Term::LinearBias([w, _, _]) => match facts(w) {
                Facts::Matrix { rows, .. } => Facts::Activation { width: rows },
                _ => Facts::Parameter,
            },
            Term::RmsNorm([x, ..]) | Term::HeadNorm([x, ..]) | Term::NormAdd([x, ..]) => same(x),
            Term::Unary([_, x]) | Term::Scale([_, x]) | Term::Softcap([_, x]) => same(x),
            Term::Add([x, _]) | Term::Sub([x, _]) | Term::Mul([x, _]) => same(x),
            Term::Rope([_, _, x]) | Term::Clamp([_, x]) | Term::ScaleRows([x, _]) => same(x),
            Term::Convolution([_, _, _, _, x, _, _]) => same(x),
            Term::GatedDelta([state, ..]) => match leaf(state) {
                Some(LeafDef::Delta { heads, value_dim, .. }) => Facts::Activation {
                    width: heads * value_dim,
                },
                _ => Facts::Parameter,
            },
            Term::Route([spec, ..]) | Term::Router([spec, ..]) => match leaf(spec) {
                Some(LeafDef::Route { spec, .. }) => Facts::Routing {
                    k: spec.experts_per_token,
                },
                _ => Facts::Parameter,
            },
            Term::Experts([_, _, _, _, _, down, _])
            | Term::ExpertDown([_, _, _, down, ..])
            | Term::DenseDown([_, _, _, down, ..]) => bank_output(facts(down), 1),
            Term::ExpertUp([mixture, _, _, up, _]) | Term::GroupedUp([mixture, _, _, up, _]) => {
                bank_output(facts(up), mixture_k(leaf(mixture))).halved()
            }
            Term::GroupedDown([mixture, _, _, down, _]) => bank_output(facts(down), mixture_k(leaf(mixture))),
            Term::DenseUp([_, _, up, _]) => match facts(up) {
                Facts::Bank { experts, .. } => bank_output(facts(up), experts).halved(),
                other => other,
            },
            Term::Group(_) => Facts::Parameter,
            Term::Combine([mixture, _, y, _]) => Facts::Activation {
                width: facts(y).width() / mixture_k(leaf(mixture)),
            },
            Term::Glu([_, x]) => Facts::Activation {
                width: facts(x).width() / 2,
            },
            Term::Slice([_, len, _]) => match leaf(len) {
                Some(LeafDef::Count(len)) => Facts::Activation { width: *len },
                _ => Facts::Parameter,
            },
            Term::CacheWrite([state, ..]) => cache(leaf(state)),
            Term::Attention([_, q, ..]) => same(q),
            Term::AttentionReduce([_, partials, _]) => same(partials),
            Term::AttentionSplit([_, q, _]) => Facts::Partials {
                width: facts(q).width(),
            },
            Term::Matmul([w, _, epilogue]) => match (facts(w), facts(epilogue)) {
                (Facts::Matrix { rows, .. }, Facts::Epilogue { halves, .. }) => Facts::Activation {
                    width: if halves { rows / 2 } else { rows },
                },
                _ => Facts::Parameter,
            },
            Term::Direct([x]) | Term::Normed([x, ..]) => Facts::Prologue {
                width: facts(x).width(),
            },
            Term::Store => Facts::Epilogue {
                halves: false,
                operand_width: 0,
            },
            Term::PlusBias([e, _]) | Term::ThenUnary([_, e]) | Term::ThenScale([_, e]) | Term::ThenSoftcap([_, e]) => {
                facts(e)
            }
            Term::Plus([e, r]) => match facts(e) {
                Facts::Epilogue { halves, operand_width } => Facts::Epilogue {
                    halves,
                    operand_width: operand_width + facts(r).width(),
                },
                other => other,
            },
            Term::ThenGlu([_, e]) => match facts(e) {
                Facts::Epilogue { operand_width, .. } => Facts::Epilogue {
                    halves: true,
                    operand_width,
                },
                other => other,
            },
            Term::RopeCache([state, _, heads, ..]) | Term::RopeCacheNorm([state, _, heads, ..]) => {
                match (leaf(heads), leaf(state)) {
                    (Some(LeafDef::Count(heads)), Some(LeafDef::State { width, .. })) => {
                        Facts::RopeCache { q_width: heads * width }
                    }
                    _ => Facts::Parameter,
                }
            }
            Term::QueriesOf([both]) => match facts(both) {
                Facts::RopeCache { q_width } => Facts::Activation { width: q_width },
                other => other,
            },
            Term::CacheOf([both]) => {
                let state = egraph[*both].nodes.iter().find_map(|node| match node {
                    Term::RopeCache([state, ..]) | Term::RopeCacheNorm([state, ..]) => leaf(state),
                    _ => None,
                });
                cache(state)
            }
        }
    }

    fn merge(&mut self, to: &mut Facts, from: Facts) -> DidMerge {
        assert_eq!(*to, from, "a rewrite united two different values");
        DidMerge(false, false)
    }
}

/// Experts of a token.
fn mixture_k(mixture: Option<&LeafDef>) -> u32 {
    match mixture {
        Some(LeafDef::Mixture { k, .. }) => *k,
        _ => 1,
    }
}

/// What `times` experts of a bank give.
fn bank_output(bank: Facts, times: u32) -> Facts {
    match bank {
        Facts::Bank { rows, .. } => Facts::Activation { width: rows * times },
        other => other,
    }
}

fn cache(state: Option<&LeafDef>) -> Facts {
    match state {
        Some(LeafDef::State { kv_heads, width, .. }) => Facts::Cache {
            width: kv_heads * width * 2,
        },
        _ => Facts::Parameter,
    }
}

/// The definition of a leaf class.
pub fn leaf_def(egraph: &TermGraph, id: Id) -> Option<&LeafDef> {
    egraph[id].nodes.iter().find_map(|node| match node {
        Term::Leaf(leaf) => Some(egraph.analysis.leaves.get(*leaf)),
        _ => None,
    })
}
