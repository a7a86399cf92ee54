use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use egg::{Id, Language};
use serde_json::Value;

use super::encode::Formats;
use super::extract::extract;
use super::*;
use crate::architectures::Registry;
use crate::cost::{Costs, Profile};
use crate::graph::WeightRole;
use crate::term::{Term, TermGraph};
use crate::weights::WeightFormat;

/// The configs of the reference cases: each shipped architecture in several sizes, mixtures and recurrences among them.
fn configs() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../codegen-tests/fixtures");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().join("config.json"))
        .filter(|file| file.exists())
        .collect();
    files.sort();
    let mut configs = Vec::new();
    for file in files {
        let config: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        if !configs.contains(&config) {
            configs.push(config);
        }
    }
    configs
}

/// Matrices and banks in 4 bits; what must stay exact, in f32.
fn formats(graph: &ModelGraph) -> Formats {
    let format = |role| match role {
        WeightRole::Vector => None,
        WeightRole::Exact => Some(WeightFormat::F32),
        WeightRole::Matrix | WeightRole::Bank => Some(WeightFormat::Q4 { min: false }),
    };
    let weights = graph.weights.iter().enumerate();
    weights
        .filter_map(|(index, weight)| Some((crate::graph::WeightId(index), format(weight.role)?)))
        .collect()
}

/// A section of a model in one phase, rewritten.
struct Case {
    /// Which config, which section of it.
    name: String,
    phase: Phase,
    rewritten: Rewritten,
}

impl Case {
    /// The cheapest program on a device.
    fn cheapest(&self, profile: &Profile) -> u64 {
        let (egraph, costs) = (&self.rewritten.egraph, costs(profile, self.phase));
        let found = extract(egraph, self.rewritten.extraction.root, |term| costs.price(egraph, term));
        found.unwrap().total()
    }
}

fn costs(profile: &Profile, phase: Phase) -> Costs<'_> {
    Costs {
        profile,
        phase,
        chunk: 128,
        context: 1024,
    }
}

/// Rewrites every section of every config in every phase. What rules find is the same for every profile.
fn for_each_section(configs: &[Value], level: OptLevel, mut check: impl FnMut(Case)) {
    let registry = Registry::default();
    let profile = Profile::named(Profile::DEFAULT).unwrap();
    for (number, config) in configs.iter().enumerate() {
        let architecture = registry.for_config(config).unwrap_or_else(|error| panic!("{error}"));
        let graph = architecture.build(config).unwrap();
        let formats = formats(&graph);
        for (section_name, section) in graph.sections() {
            let phases: &[Phase] = match section_name {
                "head" => &[Phase::Head],
                _ => &[Phase::Prefill, Phase::Decode],
            };
            for &phase in phases {
                let name = format!("{} {number} {section_name}", graph.architecture);
                let costs = costs(&profile, phase);
                let rewritten = rewrite(&graph, &name, section, &formats, level, None, &costs).unwrap();
                check(Case { name, phase, rewritten });
            }
        }
    }
}

#[test]
fn the_configs_are_of_every_shipped_architecture() {
    let registry = Registry::default();
    let configs = configs();
    for name in registry.names() {
        let is_of = |config: &Value| {
            let found = registry.for_config(config);
            found.is_ok_and(|architecture| architecture.names().contains(&name))
        };
        assert!(
            configs.iter().any(is_of),
            "no reference case is of {name}, so no test here rewrites it"
        );
    }
}

#[test]
fn every_template_saturates() {
    // With room to spare: other definitions may be longer.
    for_each_section(&configs(), OptLevel::Full, |case| {
        let rounds = case.rewritten.rounds.unwrap_or(usize::MAX);
        assert!(rounds <= FEW_ROUNDS, "{} {:?}: {rounds} rounds", case.name, case.phase);
        let nodes = case.rewritten.egraph.total_number_of_nodes();
        assert!(
            nodes < MAX_NODES / 10,
            "{} {:?}: {nodes} e-nodes",
            case.name,
            case.phase
        );
    });
}

#[test]
fn rules_cannot_see_costs() {
    // Only these two may ask for prices, through a trait; extraction is given a closure.
    let may_ask = [Path::new("mod.rs"), Path::new("explain.rs")];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/rewrite");
    let files = rust_files(&folder);
    let has_word = |text: &str, word: &str| {
        text.split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(|w| w == word)
    };
    for (file, text) in &files {
        let file = file.strip_prefix(&folder).unwrap();
        let is_code = |line: &&str| !line.trim_start().starts_with("//");
        for line in text.lines().filter(is_code) {
            assert!(
                !has_word(line, "cost"),
                "{} names the module of costs: {line}",
                file.display()
            );
            let asks = has_word(line, "Prices") || has_word(line, "prices") && !file.ends_with("extract.rs");
            assert!(
                !asks || may_ask.contains(&file),
                "{} asks for prices: {line}",
                file.display()
            );
        }
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
        if path.ends_with("tests.rs") || path.ends_with("filetests") {
            continue;
        }
        match path.is_dir() {
            true => found.extend(rust_files(&path)),
            false if path.extension().is_some_and(|extension| extension == "rs") => {
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
    let (profiles, configs) = (Profile::all(), configs());
    let prices = |case: &Case| {
        profiles
            .iter()
            .map(|profile| case.cheapest(profile))
            .collect::<Vec<u64>>()
    };
    let mut unfused = BTreeMap::new();
    for_each_section(&configs, OptLevel::None, |case| {
        let prices = prices(&case);
        unfused.insert((case.name, case.phase), prices);
    });
    for_each_section(&configs, OptLevel::Full, |case| {
        let full = prices(&case);
        let unfused = &unfused[&(case.name.clone(), case.phase)];
        let dearer = full.iter().zip(unfused).any(|(full, unfused)| full > unfused);
        assert!(!dearer, "{} {:?}: {full:?}, unfused {unfused:?}", case.name, case.phase);
    });
}

#[test]
fn llama_and_qwen3_decode_in_seven_dispatches_a_layer() {
    let mut configs = configs();
    configs.retain(|config| {
        ["LlamaForCausalLM", "Qwen3ForCausalLM"].contains(&config["architectures"][0].as_str().unwrap())
    });
    assert!(!configs.is_empty());
    for_each_section(&configs, OptLevel::Full, |case| {
        if case.phase == Phase::Decode && case.name.ends_with(" layer") {
            let kernels = &case.rewritten.explanation.kernels;
            assert!(kernels.len() <= 7, "{}: {kernels:#?}", case.name);
        }
    });
}

#[test]
fn extraction_is_exact_on_the_templates() {
    let profiles = Profile::all();
    for_each_section(&configs(), OptLevel::Full, |case| {
        let (egraph, root) = (&case.rewritten.egraph, case.rewritten.extraction.root);
        for profile in &profiles {
            let costs = costs(profile, case.phase);
            let price = |term: &Term| costs.price(egraph, term);
            let search = Exhaustive {
                egraph,
                price: &price,
                best: u64::MAX,
            };
            let (found, best) = (case.cheapest(profile), search.search(root));
            assert_eq!(found, best, "{} {:?} on {}", case.name, case.phase, profile.name);
        }
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
