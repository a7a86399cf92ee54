//! Templates specialized by how their weights are stored.
//!
//! Layers of one kind may be stored differently (K-quant mixtures keep some layers' tensors in more bits); each
//! combination of formats becomes a template of its own.

use crate::graph::{ModelGraph, WeightId, WeightRole};
use crate::rewrite::encode::Formats;
use crate::weights::WeightFormat;

/// A layer template together with the formats of its weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecializedTemplate {
    /// The template's kind, with a number where formats divide it.
    pub name: String,
    /// Index into [`ModelGraph::templates`].
    pub template: usize,
    pub formats: Formats,
    /// Positions in [`ModelGraph::layers`].
    pub layers: Vec<usize>,
}

/// Groups the layers, in order of first appearance.
pub fn specialize(graph: &ModelGraph, format_of: &dyn Fn(&str) -> WeightFormat) -> Vec<SpecializedTemplate> {
    let mut found: Vec<SpecializedTemplate> = Vec::new();
    for (position, layer) in graph.layers.iter().enumerate() {
        let section = &graph.templates[layer.template].section;
        let formats = formats(graph, section, |name| {
            format_of(&name.replacen("{}", &layer.index.to_string(), 1))
        });
        match found
            .iter_mut()
            .find(|known| known.template == layer.template && known.formats == formats)
        {
            Some(known) => known.layers.push(position),
            None => found.push(SpecializedTemplate {
                name: graph.templates[layer.template].kind.clone(),
                template: layer.template,
                formats,
                layers: vec![position],
            }),
        }
    }
    for index in 0..found.len() {
        let same = |other: &SpecializedTemplate| other.template == found[index].template;
        if found.iter().filter(|other| same(other)).count() > 1 {
            let number = found[..=index].iter().filter(|other| same(other)).count();
            found[index].name = format!("{} {number}", graph.templates[found[index].template].kind);
        }
    }
    found
}

/// Formats of the weights outside the layers.
pub fn shared_formats(graph: &ModelGraph, format_of: &dyn Fn(&str) -> WeightFormat) -> Formats {
    let mut shared = formats(graph, &graph.entry, format_of);
    shared.extend(formats(graph, &graph.head, format_of));
    shared
}

fn formats(graph: &ModelGraph, section: &crate::graph::Section, format_of: impl Fn(&str) -> WeightFormat) -> Formats {
    let used = section.nodes.node_weights().filter_map(|node| match node.op {
        crate::graph::Op::Weight(id) => Some(id),
        _ => None,
    });
    let matrices = used.filter(|id: &WeightId| graph.weights[id.0].role != WeightRole::Vector);
    matrices.map(|id| (id, format_of(&graph.weights[id.0].name))).collect()
}
