//! Says what fused, what did not, and why.

use std::collections::BTreeSet;
use std::fmt;

use egg::{Id, Language};

use super::MoePlan;
use super::extract::{Extraction, extract};
use crate::graph::{ModelGraph, WeightId};
use crate::term::{BankLeaf, LeafDef, Leaves, MatrixLeaf, Phase, Prices, Term, TermGraph, leaf_def};

/// The report on one section in one phase.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    pub section: String,
    pub phase: Phase,
    /// In order of execution.
    pub kernels: Vec<KernelLine>,
    /// Other programs that were weighed: what they would do, and how many picoseconds they cost more.
    pub alternatives: Vec<(String, u64)>,
    /// For a section with a mixture of experts: the chosen plan, and picoseconds of the section under each plan weighed.
    pub moe: Option<MoeChoice>,
    /// What could have fused and did not.
    pub missed: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct MoeChoice {
    pub chosen: MoePlan,
    /// All that ran through the cost model, the chosen one among them.
    pub weighed: Vec<(MoePlan, u64)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct KernelLine {
    pub what: String,
    /// Estimated time, epilogue and prologue included.
    pub picoseconds: u64,
}

impl Explanation {
    pub fn total(&self) -> u64 {
        self.kernels.iter().map(|kernel| kernel.picoseconds).sum()
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = |picoseconds: u64| picoseconds as f64 / 1e6;
        writeln!(
            f,
            "{} ({}): {} kernels, {:.1} µs estimated",
            self.section,
            format!("{:?}", self.phase).to_lowercase(),
            self.kernels.len(),
            micros(self.total())
        )?;
        for kernel in &self.kernels {
            writeln!(f, "  {:>9.1} µs  {}", micros(kernel.picoseconds), kernel.what)?;
        }
        if let Some(moe) = &self.moe {
            let each = moe.weighed.iter().map(|(plan, picoseconds)| {
                let chosen = if *plan == moe.chosen { " (chosen)" } else { "" };
                format!("{}{chosen} {:.1} µs", plan.name(), micros(*picoseconds))
            });
            writeln!(
                f,
                "  expert plan, whole section: {}",
                each.collect::<Vec<_>>().join(", ")
            )?;
        }
        for (what, more) in &self.alternatives {
            writeln!(f, "  weighed: {what}: {:.1} µs more", micros(*more))?;
        }
        for missed in &self.missed {
            writeln!(f, "  not fused: {missed}")?;
        }
        Ok(())
    }
}

pub(super) fn explain(
    graph: &ModelGraph,
    section: &str,
    phase: Phase,
    egraph: &TermGraph,
    extraction: &Extraction,
    mut missed: Vec<String>,
    prices: &dyn Prices,
) -> Explanation {
    let reader = ProgramReader {
        graph,
        egraph,
        extraction,
    };
    let order = reader.order();
    let kernels = order
        .iter()
        .filter(|id| is_kernel(&extraction.choice[id]))
        .map(|&id| KernelLine {
            what: reader.describe(id),
            picoseconds: reader.whole_price(id),
        })
        .collect();
    let mut alternatives = Vec::new();
    for &id in order.iter().filter(|id| is_kernel(&extraction.choice[id])) {
        let chosen = &extraction.choice[&id];
        if plan_of(chosen).is_some() {
            continue; // `moe` says it all
        }
        let others: BTreeSet<&str> = egraph[id]
            .nodes
            .iter()
            .filter(|node| is_kernel(node) && std::mem::discriminant(*node) != std::mem::discriminant(chosen))
            .map(name_of)
            .collect();
        if others.is_empty() {
            continue;
        }
        let without = |term: &Term| match egraph.lookup(term.clone()) {
            Some(class)
                if egraph.find(class) == id && std::mem::discriminant(term) == std::mem::discriminant(chosen) =>
            {
                None
            }
            _ => prices.price(egraph, term),
        };
        if let Some(other) = extract(egraph, extraction.root, without) {
            let others: Vec<&str> = others.into_iter().collect();
            let more = other.total().saturating_sub(extraction.total());
            if more > 0 {
                alternatives.push((
                    format!("{} instead of {}", others.join(" or "), reader.describe(id)),
                    more,
                ));
            }
        }
    }
    let moe = moe_choice(egraph, extraction, &order, prices);
    missed.extend(order.iter().filter_map(|&id| reader.near_miss(id, phase)));
    Explanation {
        section: section.to_string(),
        phase,
        kernels,
        alternatives,
        moe,
        missed,
    }
}

/// The plan of the kernel that ends a mixture of experts.
fn plan_of(term: &Term) -> Option<MoePlan> {
    match term {
        Term::ExpertDown(_) => Some(MoePlan::Gather),
        Term::Combine(_) => Some(MoePlan::Grouped),
        Term::DenseDown(_) => Some(MoePlan::Dense),
        _ => None,
    }
}

fn moe_choice(egraph: &TermGraph, extraction: &Extraction, order: &[Id], prices: &dyn Prices) -> Option<MoeChoice> {
    let chosen = order.iter().find_map(|id| plan_of(&extraction.choice[id]))?;
    let price = |plan: MoePlan| {
        let only = |term: &Term| match plan_of(term) {
            Some(other) if other != plan => None,
            _ => prices.price(egraph, term),
        };
        extract(egraph, extraction.root, only).map(|program| (plan, program.total()))
    };
    Some(MoeChoice {
        chosen,
        weighed: MoePlan::ALL.into_iter().filter_map(price).collect(),
    })
}

/// Whether an e-node is a dispatch of its own.
pub(super) fn is_kernel(term: &Term) -> bool {
    !matches!(
        term,
        Term::Leaf(_)
            | Term::Slice(_)
            | Term::Direct(_)
            | Term::Normed(_)
            | Term::Store
            | Term::PlusBias(_)
            | Term::Plus(_)
            | Term::ThenUnary(_)
            | Term::ThenScale(_)
            | Term::ThenSoftcap(_)
            | Term::ThenGlu(_)
            | Term::QueriesOf(_)
            | Term::CacheOf(_)
            | Term::Experts(_)
    )
}

fn name_of(term: &Term) -> &'static str {
    match term {
        Term::Gather(_) | Term::GatherScaled(_) => "embedding",
        Term::Linear(_) | Term::LinearBias(_) => "plain product",
        Term::Matmul(_) => "product",
        Term::RmsNorm(_) | Term::HeadNorm(_) => "norm",
        Term::NormAdd(_) => "norm with residual",
        Term::Unary(_) => "activation",
        Term::Add(_) => "addition",
        Term::Sub(_) => "subtraction",
        Term::Mul(_) => "multiplication",
        Term::Scale(_) => "scaling",
        Term::Softcap(_) => "softcap",
        Term::Rope(_) => "rope",
        Term::CacheWrite(_) => "cache write",
        Term::RopeCache(_) => "rope and cache write",
        Term::RopeCacheNorm(_) => "q/k norm, rope and cache write",
        Term::Attention(_) => "attention in one dispatch",
        Term::AttentionSplit(_) => "attention over parts of the cache",
        Term::AttentionReduce(_) => "joining the parts of attention",
        Term::Clamp(_) => "clamp",
        Term::ScaleRows(_) => "scaling of rows",
        Term::Convolution(_) => "convolution",
        Term::GatedDelta(_) => "gated delta rule",
        Term::Route(_) => "routing",
        Term::Router(_) => "router with top-k",
        Term::ExpertUp(_) => "experts, gate and up",
        Term::ExpertDown(_) => "experts, down and sum",
        Term::Group(_) => "sorting tokens by expert",
        Term::GroupedUp(_) => "sorted experts, gate and up",
        Term::GroupedDown(_) => "sorted experts, down",
        Term::Combine(_) => "sum over experts",
        Term::DenseUp(_) => "all experts, gate and up",
        Term::DenseDown(_) => "all experts, down and sum",
        _ => "part of a kernel",
    }
}

struct ProgramReader<'a> {
    graph: &'a ModelGraph,
    egraph: &'a TermGraph,
    extraction: &'a Extraction,
}

impl ProgramReader<'_> {
    /// Chosen classes, operands first.
    fn order(&self) -> Vec<Id> {
        fn visit(extraction: &Extraction, id: Id, seen: &mut BTreeSet<Id>, order: &mut Vec<Id>) {
            if seen.insert(id) {
                for &child in extraction.choice[&id].children() {
                    visit(extraction, child, seen, order);
                }
                order.push(id);
            }
        }
        let mut order = Vec::new();
        visit(self.extraction, self.extraction.root, &mut BTreeSet::new(), &mut order);
        order
    }

    /// A kernel's price with its prologue and epilogue.
    fn whole_price(&self, id: Id) -> u64 {
        let parts = self.extraction.choice[&id].children();
        let parts = parts.iter().filter(|part| !is_kernel(&self.extraction.choice[part]));
        self.extraction.prices[&id] + parts.map(|&part| self.whole_price(part)).sum::<u64>()
    }

    fn describe(&self, id: Id) -> String {
        let term = &self.extraction.choice[&id];
        let mut text = name_of(term).to_string();
        match term {
            Term::Linear([w, ..]) | Term::LinearBias([w, ..]) => text += &format!(" {}", self.weight(*w)),
            Term::Gather([w, _]) | Term::GatherScaled([_, w, _]) => text += &format!(" {}", self.weight(*w)),
            Term::Matmul([w, prologue, epilogue]) | Term::Router([_, w, prologue, epilogue, _]) => {
                text += &self.product(*w, Some(*prologue), Some(*epilogue));
            }
            Term::ExpertUp([_, _, prologue, w, _]) => text += &self.product(*w, Some(*prologue), None),
            Term::ExpertDown([_, _, _, w, _, epilogue]) | Term::DenseDown([_, _, _, w, _, epilogue]) => {
                text += &self.product(*w, None, Some(*epilogue));
            }
            Term::GroupedUp([_, _, _, w, _]) | Term::GroupedDown([_, _, _, w, _]) | Term::DenseUp([_, _, w, _]) => {
                text += &self.product(*w, None, None);
            }
            _ => {}
        }
        text
    }

    /// A product's weight, and what is fused into it.
    fn product(&self, w: Id, prologue: Option<Id>, epilogue: Option<Id>) -> String {
        let mut fused = Vec::new();
        if prologue.is_some_and(|prologue| matches!(self.extraction.choice[&prologue], Term::Normed(_))) {
            fused.push("norm".to_string());
        }
        if let Some(epilogue) = epilogue {
            self.epilogue(epilogue, &mut fused);
        }
        match fused.is_empty() {
            true => format!(" {}", self.weight(w)),
            false => format!(" {}, fused: {}", self.weight(w), fused.join(", ")),
        }
    }

    fn epilogue(&self, id: Id, fused: &mut Vec<String>) {
        let (inner, what) = match &self.extraction.choice[&id] {
            Term::PlusBias([e, _]) => (*e, "bias".to_string()),
            Term::Plus([e, _]) => (*e, "residual".to_string()),
            Term::ThenUnary([kind, e]) => (*e, self.activation(*kind)),
            Term::ThenScale([_, e]) => (*e, "scale".to_string()),
            Term::ThenSoftcap([_, e]) => (*e, "softcap".to_string()),
            Term::ThenGlu([kind, e]) => (*e, format!("{}(gate) · up", self.activation(*kind))),
            _ => return,
        };
        self.epilogue(inner, fused);
        fused.push(what);
    }

    fn activation(&self, kind: Id) -> String {
        match leaf_def(self.egraph, kind) {
            Some(LeafDef::Activation(kind)) => format!("{kind:?}").to_lowercase(),
            _ => "activation".to_string(),
        }
    }

    fn weight(&self, id: Id) -> String {
        weight_label(self.graph, &self.egraph.analysis.leaves, &self.extraction.choice[&id])
    }

    /// Why a kernel that might have joined another did not.
    fn near_miss(&self, id: Id, phase: Phase) -> Option<String> {
        let term = &self.extraction.choice[&id];
        let operand = |id: Id| name_of(&self.extraction.choice[&id]);
        let what = self.describe(id);
        match term {
            Term::RmsNorm(_) if phase == Phase::Prefill => Some(format!(
                "{what}: tiled products read a row many times, so it is normalized once before them"
            )),
            Term::RmsNorm(_) => Some(format!("{what}: its users are not all matrix products")),
            Term::NormAdd(_) => Some(format!("{what}: needs the whole row of the product before it")),
            Term::Unary([_, x]) | Term::Scale([_, x]) | Term::Softcap([_, x]) => Some(format!(
                "{what}: its input is {}, not a product that only it uses",
                operand(*x)
            )),
            Term::Add([a, b]) | Term::Mul([a, b]) | Term::Sub([a, b]) => Some(format!(
                "{what} of {} and {}: a product takes one activation operand in its epilogue",
                operand(*a),
                operand(*b)
            )),
            Term::Rope(_) | Term::HeadNorm(_) | Term::CacheWrite(_) => Some(format!(
                "{what}: q, k and v are not slices of one stacked product in this order"
            )),
            _ => None,
        }
    }
}

/// The last parts of the weights' checkpoint names: `gate_proj+up_proj`.
pub fn weight_label(graph: &ModelGraph, leaves: &Leaves, term: &Term) -> String {
    let Term::Leaf(leaf) = term else { return String::new() };
    let (LeafDef::Matrix(MatrixLeaf { parts, .. })
    | LeafDef::Bank(BankLeaf {
        matrix: MatrixLeaf { parts, .. },
        ..
    })
    | LeafDef::Vector { parts, .. }) = leaves.get(*leaf)
    else {
        return String::new();
    };
    let short = |id: &WeightId| {
        let name = graph.weights[id.0].name.trim_end_matches(".weight").to_string();
        name.rsplit('.').next().unwrap_or(&name).to_string()
    };
    parts.iter().map(short).collect::<Vec<_>>().join("+")
}
