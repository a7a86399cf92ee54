//! The rules of a graph, checked without trusting whoever made it.

mod shapes;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use petgraph::algo::is_cyclic_directed;
use thiserror::Error;

use self::shapes::{Checker, ValueKind, value_kind};
use self::stored::check_stored;
use super::{Dim, ModelGraph, Node, Op, Section, Shape, StateKind, WeightRole};

/// A graph that breaks its own rules.
#[derive(Debug, Error)]
#[error("{pass}: {section}: {what}")]
pub struct GraphError {
    pub pass: String,
    pub section: String,
    pub what: String,
}

/// Checks a graph after `pass`: operands, shapes and roles of every node, what the sections hand to each
/// other, and that all that is declared is used.
pub fn verify(graph: &ModelGraph, pass: &str) -> Result<(), GraphError> {
    let error = |section: &str, what: String| GraphError {
        pass: pass.to_string(),
        section: section.to_string(),
        what,
    };
    check_declarations(graph).map_err(|what| error("declarations", what))?;
    let hidden = output_shape(&graph.entry).map_err(|what| error("entry", what))?;
    let mut used = Used::default();
    for (kind, name, section) in sections(graph) {
        check_section(graph, section, kind, &hidden, &mut used).map_err(|what| error(name, what))?;
    }
    used.check(graph).map_err(|what| error("declarations", what))
}

type Check<T = ()> = Result<T, String>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum SectionKind {
    Entry,
    Template,
    Head,
}

fn sections(graph: &ModelGraph) -> impl Iterator<Item = (SectionKind, &str, &Section)> {
    let last = graph.templates.len() + 1;
    graph.sections().enumerate().map(move |(number, (name, section))| {
        let kind = match number {
            0 => SectionKind::Entry,
            number if number == last => SectionKind::Head,
            _ => SectionKind::Template,
        };
        (kind, name, section)
    })
}

fn check_declarations(graph: &ModelGraph) -> Check {
    let mut names = BTreeSet::new();
    for weight in &graph.weights {
        let rank = match weight.role {
            WeightRole::Matrix | WeightRole::Exact => Some(2),
            WeightRole::Bank => Some(3),
            WeightRole::Vector => None,
        };
        let name = &weight.name;
        require(rank.is_none_or(|rank| weight.shape.len() == rank), || {
            format!("`{name}` is no {:?}", weight.role)
        })?;
        require(nonzero(&weight.shape), || format!("`{name}` has no elements"))?;
        require(names.insert(name), || format!("`{name}` is declared twice"))?;
        check_stored(weight)?;
    }
    for state in &graph.states {
        let name = &state.name;
        require(name.contains("{}"), || {
            format!("state `{name}` lacks the layer's number")
        })?;
        require(nonzero(&state.shape), || format!("state `{name}` is empty"))?;
        let keeps_none = matches!(
            state.kind,
            StateKind::Cache { window: Some(0) } | StateKind::Convolution { taps: 0 | 1 }
        );
        require(!keeps_none, || format!("state `{name}` keeps no position"))?;
    }
    let mut rope_names = BTreeSet::new();
    for rope in &graph.ropes {
        require(rope_names.insert(&rope.name), || {
            format!("two rotations are called `{}`", rope.name)
        })?;
        let finite = rope.inv_freq.iter().all(|frequency| frequency.is_finite());
        require(finite && !rope.inv_freq.is_empty(), || {
            format!("`{}` has no frequencies", rope.name)
        })?;
    }
    let mut indices = BTreeSet::new();
    for layer in &graph.layers {
        let (index, template) = (layer.index, layer.template);
        require(indices.insert(index), || format!("layer {index} comes twice"))?;
        require(template < graph.templates.len(), || {
            format!("layer {index} has no template")
        })?;
    }
    let mut kinds = BTreeSet::new();
    for (number, template) in graph.templates.iter().enumerate() {
        require(kinds.insert(&template.kind), || {
            format!("two templates are called `{}`", template.kind)
        })?;
        let stamped = graph.layers.iter().any(|layer| layer.template == number);
        require(stamped, || format!("no layer is a `{}`", template.kind))?;
    }
    require(!graph.layers.is_empty(), || "there are no layers".to_string())
}

/// What the sections use of what is declared.
#[derive(Default)]
struct Used {
    weights: BTreeSet<usize>,
    states: BTreeSet<usize>,
    ropes: BTreeSet<usize>,
}

impl Used {
    fn check(&self, graph: &ModelGraph) -> Check {
        for (id, weight) in graph.weights.iter().enumerate() {
            require(self.weights.contains(&id), || format!("nothing uses `{}`", weight.name))?;
        }
        for (id, state) in graph.states.iter().enumerate() {
            require(self.states.contains(&id), || {
                format!("nothing writes state `{}`", state.name)
            })?;
        }
        for (id, rope) in graph.ropes.iter().enumerate() {
            require(self.ropes.contains(&id), || format!("nothing uses `{}`", rope.name))?;
        }
        Ok(())
    }
}

fn output_shape(section: &Section) -> Check<Shape> {
    let node = section.nodes.node_weight(section.output);
    node.map(|node| node.shape.clone())
        .ok_or_else(|| "the output is no node".to_string())
}

fn check_section(graph: &ModelGraph, section: &Section, kind: SectionKind, hidden: &Shape, used: &mut Used) -> Check {
    require(!is_cyclic_directed(&section.nodes), || {
        "its values depend on each other in a circle".to_string()
    })?;
    let mut inputs = 0;
    for index in section.nodes.node_indices() {
        let node = &section.nodes[index];
        let here = |what: String| format!("{}: {what}", describe(node));
        let checker = Checker::new(graph, section, index).map_err(here)?;
        let shape = checker.shape().map_err(here)?;
        let wrong = || here(format!("should be {shape}, is {}", node.shape));
        require(shape == node.shape, wrong)?;
        match node.op {
            Op::Tokens | Op::LayerInput => {
                let expected = if kind == SectionKind::Entry {
                    Op::Tokens
                } else {
                    Op::LayerInput
                };
                require(node.op == expected, || here("belongs into another section".to_string()))?;
                inputs += 1;
            }
            Op::Weight(id) => {
                used.weights.insert(id.0);
                let layered = checker.weight(id.0)?.name.contains("{}");
                let allowed = !layered || kind == SectionKind::Template;
                require(allowed, || here("a layer's weight outside of a layer".to_string()))?;
            }
            Op::Rope(id) => {
                used.ropes.insert(id.0);
            }
            _ => {}
        }
        if let Some(id) = node.op.state() {
            let first = used.states.insert(id.0);
            require(first, || here("its state is written twice".to_string()))?;
            let inside = kind == SectionKind::Template;
            require(inside, || here("a layer's state outside of a layer".to_string()))?;
        }
        if node.op == Op::LayerInput {
            let alike = node.shape == *hidden;
            require(alike, || {
                here(format!("{} enters, but layers hand on {hidden}", node.shape))
            })?;
        }
    }
    require(inputs <= 1, || "more than one value enters".to_string())?;
    let output = output_shape(section)?;
    let is_floats = value_kind(&section.nodes[section.output].op) == ValueKind::Floats;
    require(is_floats, || "its output is no value".to_string())?;
    if kind == SectionKind::Head {
        let flat = output.per_token && output.dims.len() == 1;
        return require(flat, || format!("its output is {output}, not one row a token"));
    }
    require(output == *hidden, || {
        format!("its output is {output}, but layers hand on {hidden}")
    })
}

fn nonzero(dims: &[Dim]) -> bool {
    dims.iter().all(|dim| dim.value() > 0)
}

fn require(holds: bool, otherwise: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn describe(node: &Node) -> String {
    match &node.name {
        Some(name) => format!("{} `{name}` ({})", node.op.name(), node.span),
        None => format!("{} ({})", node.op.name(), node.span),
    }
}
