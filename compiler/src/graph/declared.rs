//! Every weight of every layer, by its full name.

use super::{ModelGraph, Op, Stored, WeightRole};

/// A weight of the whole model: a [`super::WeightDecl`] with the number of its layer in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredWeight {
    pub name: String,
    pub shape: Vec<usize>,
    pub role: WeightRole,
    /// With the layer's number in the tensor's name; `{expert}` may be left in it.
    pub stored: Stored,
}

impl ModelGraph {
    /// The weights that the entry, the head and each layer use.
    pub fn declared_weights(&self) -> Vec<DeclaredWeight> {
        let mut declared = Vec::new();
        for weight in &self.weights {
            let in_layer = |index: usize| DeclaredWeight {
                name: weight.name_in(index),
                shape: weight.shape.iter().map(|dim| dim.value()).collect(),
                role: weight.role,
                stored: weight.stored.in_layer(index),
            };
            if !weight.name.contains("{}") {
                declared.push(in_layer(0));
                continue;
            }
            let using = self
                .layers
                .iter()
                .filter(|layer| self.template_uses(layer.template, &weight.name));
            declared.extend(using.map(|layer| in_layer(layer.index)));
        }
        declared
    }

    fn template_uses(&self, template: usize, weight: &str) -> bool {
        let section = &self.templates[template].section;
        section
            .nodes
            .node_weights()
            .any(|node| matches!(node.op, Op::Weight(id) if self.weights[id.0].name == weight))
    }
}

impl Stored {
    fn in_layer(&self, index: usize) -> Self {
        let mut stored = self.clone();
        stored.for_each_way(&mut |tensor, _| *tensor = tensor.replacen("{}", &index.to_string(), 1));
        stored
    }

    /// Changes the tensor's name, and whether it is transposed, of each way in which the weight may be stored.
    pub fn for_each_way(&mut self, change: &mut dyn FnMut(&mut String, &mut bool)) {
        match self {
            Stored::AsDeclared => {}
            Stored::Within { tensor, transposed, .. } => change(tensor, transposed),
            Stored::OneOf(ways) => ways.iter_mut().for_each(|way| way.for_each_way(change)),
        }
    }
}
