use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use egg::{Id, Language};
use serde_json::json;

use super::encode::Formats;
use super::extract::extract;
use super::*;
use crate::architectures::Registry;
use crate::cost::{Costs, Profile};
use crate::graph::WeightRole;
use crate::term::{Term, TermGraph};
use crate::weights::WeightFormat;

/// A small config of each shipped architecture.
fn configs() -> Vec<serde_json::Value> {
    let common = json!({
        "hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 333, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 256, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": true,
    });
    let with = |name: &str, more: serde_json::Value| {
        let mut config = common.clone();
        let object = config.as_object_mut().unwrap();
        object.insert("architectures".to_string(), json!([name]));
        object.extend(more.as_object().unwrap().clone());
        config
    };
    vec![
        with("LlamaForCausalLM", json!({})),
        with("Qwen3ForCausalLM", json!({})),
        with(
            "Gemma3ForCausalLM",
            json!({
                "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 32, "sliding_window": 16,
                "rope_local_base_freq": 10000.0, "final_logit_softcapping": 30.0,
                "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
            }),
        ),
    ]
}

fn all_quantized(graph: &ModelGraph) -> Formats {
    let matrices = graph
        .weights
        .iter()
        .enumerate()
        .filter(|(_, weight)| weight.role != WeightRole::Vector);
    matrices
        .map(|(index, _)| (crate::graph::WeightId(index), WeightFormat::Q4 { min: false }))
        .collect()
}

/// Rewrites every section of every architecture in every phase.
fn for_each_section(level: OptLevel, mut check: impl FnMut(&str, Phase, Rewritten, &Costs)) {
    let registry = Registry::default();
    let profile = Profile::named(Profile::DEFAULT).unwrap();
    for config in configs() {
        let Ok(architecture) = registry.for_config(&config) else {
            panic!("{config} has no architecture")
        };
        let graph = architecture.build(&config).unwrap();
        let formats = all_quantized(&graph);
        for (name, section) in graph.sections() {
            let phases: &[Phase] = if name == "head" {
                &[Phase::Head]
            } else {
                &[Phase::Prefill, Phase::Decode]
            };
            for &phase in phases {
                let costs = Costs {
                    profile: &profile,
                    phase,
                    chunk: 128,
                    context: 1024,
                };
                let name = format!("{} {name}", graph.architecture);
                let rewritten = rewrite(&graph, &name, section, &formats, level, None, &costs).unwrap();
                check(&name, phase, rewritten, &costs);
            }
        }
    }
}

#[test]
fn every_template_saturates() {
    // `rewrite` fails otherwise; here also: with room to spare.
    for_each_section(OptLevel::Full, |name, phase, rewritten, _| {
        let nodes = rewritten.egraph.total_number_of_nodes();
        assert!(nodes < MAX_NODES / 10, "{name} {phase:?}: {nodes} e-nodes");
    });
}

#[test]
fn rules_cannot_see_costs() {
    // Prices reach rewriting through a trait, and only these two files: extraction is given a closure.
    let may_ask = ["mod.rs", "explain.rs"];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/rewrite");
    let files = rust_files(&folder);
    for (file, text) in &files {
        let file = file.strip_prefix(&folder).unwrap();
        let imports = text.contains("cost::") || text.contains("cost,") || text.contains("cost}");
        assert!(!imports, "{} imports costs", file.display());
        let asks = text.contains("Prices") || text.contains(".price(");
        assert!(
            !asks || may_ask.iter().any(|known| file == Path::new(known)),
            "{} asks for prices",
            file.display()
        );
    }
    let rules = files
        .iter()
        .filter(|(file, _)| file.parent().is_some_and(|folder| folder.ends_with("rules")));
    assert!(rules.count() > 1, "the rules are not where this test looks for them");
}

/// All source files below a folder but those of tests, with their text.
fn rust_files(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(rust_files(&path)),
            false if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") => {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
            false => {}
        }
    }
    found
}

#[test]
fn full_is_never_dearer_than_unfused() {
    let mut unfused = BTreeMap::new();
    for_each_section(OptLevel::None, |name, phase, rewritten, _| {
        unfused.insert((name.to_string(), phase), rewritten.extraction.total());
    });
    for_each_section(OptLevel::Full, |name, phase, rewritten, _| {
        let full = rewritten.extraction.total();
        assert!(full <= unfused[&(name.to_string(), phase)], "{name} {phase:?}");
    });
}

#[test]
fn llama_and_qwen3_decode_in_seven_dispatches_a_layer() {
    for_each_section(OptLevel::Full, |name, phase, rewritten, _| {
        if phase == Phase::Decode && name.ends_with(" layer") {
            let kernels = &rewritten.explanation.kernels;
            assert!(kernels.len() <= 7, "{name}: {kernels:#?}");
        }
    });
}

#[test]
fn extraction_is_exact_on_the_templates() {
    for_each_section(OptLevel::Full, |name, phase, rewritten, costs| {
        let egraph = &rewritten.egraph;
        let price = |term: &Term| costs.price(egraph, term);
        let root = rewritten.extraction.root;
        let found = extract(egraph, root, price).unwrap().total();
        let best = Exhaustive {
            egraph,
            price: &price,
            best: u64::MAX,
        }
        .search(root);
        assert_eq!(found, best, "{name} {phase:?}");
    });
}

/// Tries every choice of e-nodes: the oracle for the extractor on small e-graphs.
struct Exhaustive<'a> {
    egraph: &'a TermGraph,
    price: &'a dyn Fn(&Term) -> Option<u64>,
    best: u64,
}

impl Exhaustive<'_> {
    fn search(mut self, root: Id) -> u64 {
        self.choose(vec![root], &mut BTreeMap::new(), 0);
        self.best
    }

    /// `pending`: classes still to be decided.
    fn choose(&mut self, mut pending: Vec<Id>, chosen: &mut BTreeMap<Id, Term>, cost: u64) {
        if cost >= self.best {
            return;
        }
        let Some(id) = pending.pop() else {
            if acyclic(chosen) {
                self.best = cost;
            }
            return;
        };
        if chosen.contains_key(&id) {
            return self.choose(pending, chosen, cost);
        }
        for node in &self.egraph[id].nodes {
            let Some(own) = (self.price)(node) else { continue };
            let node = node.clone().map_children(|child| self.egraph.find(child));
            let mut next = pending.clone();
            next.extend(node.children());
            chosen.insert(id, node);
            self.choose(next, chosen, cost + own);
            chosen.remove(&id);
        }
    }
}

fn acyclic(chosen: &BTreeMap<Id, Term>) -> bool {
    fn visit(id: Id, chosen: &BTreeMap<Id, Term>, done: &mut BTreeMap<Id, bool>) -> bool {
        match done.get(&id) {
            Some(finished) => *finished,
            None => {
                done.insert(id, false);
                let fine = chosen[&id].children().iter().all(|&child| visit(child, chosen, done));
                done.insert(id, true);
                fine
            }
        }
    }
    let mut done = BTreeMap::new();
    chosen.keys().all(|&id| visit(id, chosen, &mut done))
}
