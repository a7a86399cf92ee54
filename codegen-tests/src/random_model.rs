//! Tiny checkpoints of any shape with random weights: for sizes that no reference case has.
//! Everything here panics with a plain message: it only serves tests.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use kiln_compiler::architectures::Registry;
use kiln_compiler::graph::{ModelGraph, Op, WeightDecl, WeightId, WeightRole};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;
use tempfile::TempDir;

pub use crate::random::Random;

/// Which numbers the weight matrices are made of, so that packing them so loses nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grid {
    F32,
    /// Blocks of 32 of a row: `scale · q` with `q` in -127 ..= 127, and one of them ±127.
    Q8,
    /// Blocks of 32 of a row: `scale · q` with `q` in -8 ..= 7, and one of them -8.
    Q4,
}

/// A checkpoint on disk, the same weights in memory, and the graph.
pub struct RandomModel {
    pub folder: TempDir,
    pub graph: ModelGraph,
    pub weights: HashMap<String, Vec<f32>>,
}

impl RandomModel {
    /// A checkpoint for this `config.json`.
    pub fn new(config: &Value, grid: Grid, seed: u64) -> Self {
        Self::changed(config, grid, seed, |_, _| ())
    }

    /// As [`new`](Self::new), but `change` may overwrite the values of a tensor, whose name it is given.
    pub fn changed(config: &Value, grid: Grid, seed: u64, change: impl Fn(&str, &mut [f32])) -> Self {
        let registry = Registry::default();
        let architecture = registry.for_config(config).unwrap_or_else(|error| panic!("{error}"));
        let graph = architecture.build(config).unwrap_or_else(|error| panic!("{error}"));
        Self::of_graph(graph, config, grid, seed, change)
    }

    /// As [`changed`](Self::changed), of a graph that some architecture has made of the config.
    pub fn of_graph(
        graph: ModelGraph,
        config: &Value,
        grid: Grid,
        seed: u64,
        change: impl Fn(&str, &mut [f32]),
    ) -> Self {
        let norms_add_one = graph.architecture.starts_with("Gemma");

        let mut random = Random(seed);
        let mut tensors = BTreeMap::new();
        for (id, decl) in graph.weights.iter().enumerate() {
            for index in layers_of(&graph, WeightId(id)) {
                let mut values = values(decl, grid, norms_add_one, &mut random);
                let name = decl.name_in(index);
                change(&name, &mut values);
                tensors.insert(name, (decl, values));
            }
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let text = serde_json::to_string_pretty(config).expect("JSON");
        std::fs::write(folder.path().join("config.json"), text).expect("a written config");
        write(&folder.path().join("model.safetensors"), &tensors);
        let weights = tensors.into_iter().map(|(name, (_, values))| (name, values)).collect();
        RandomModel { folder, graph, weights }
    }
}

/// The numbers of the layers that have a weight; 0 for one of no layer.
fn layers_of(graph: &ModelGraph, id: WeightId) -> Vec<usize> {
    if !graph.weights[id.0].name.contains("{}") {
        return vec![0];
    }
    let uses = |template: usize| {
        let mut nodes = graph.templates[template].section.nodes.node_weights();
        nodes.any(|node| node.op == Op::Weight(id))
    };
    let layers = graph.layers.iter().filter(|layer| uses(layer.template));
    layers.map(|layer| layer.index).collect()
}

/// Scaled so that activations neither vanish nor grow, and logits spread.
fn values(decl: &WeightDecl, grid: Grid, norms_add_one: bool, random: &mut Random) -> Vec<f32> {
    let count = decl.elements() as usize;
    match decl.role {
        WeightRole::Vector if decl.name.contains("norm") => {
            let centre = if norms_add_one { 0.0 } else { 1.0 };
            (0..count).map(|_| centre + 0.25 * random.normal()).collect()
        }
        WeightRole::Vector => (0..count).map(|_| 0.2 * random.normal()).collect(),
        WeightRole::Matrix | WeightRole::Exact | WeightRole::Bank => {
            let columns = decl.shape.last().expect("a matrix has columns").value();
            let deviation = if decl.name.contains("embed") {
                0.4
            } else {
                1.3 / (columns as f32).sqrt()
            };
            let row = |_| (0..columns).map(|_| deviation * random.normal()).collect();
            let mut rows: Vec<Vec<f32>> = (0..count / columns).map(row).collect();
            for block in rows.iter_mut().flat_map(|row| row.chunks_mut(32)) {
                match grid {
                    // A router is never quantized, so it need not survive that.
                    _ if decl.role == WeightRole::Exact => {}
                    Grid::F32 => {}
                    Grid::Q8 => snap(block, -126.0..=126.0, 127.0, random),
                    Grid::Q4 => snap(block, -7.0..=7.0, -8.0, random),
                }
            }
            rows.concat()
        }
    }
}

/// Rounds a block to multiples of a scale, one of them `extreme`, so that the scale shows in the block.
fn snap(block: &mut [f32], range: std::ops::RangeInclusive<f32>, extreme: f32, random: &mut Random) {
    let largest = block.iter().fold(1e-3_f32, |most, x| most.max(x.abs()));
    // Few enough bits that the scale is exact in f16, and every product in f32.
    let scale = f32::from_bits((largest / extreme.abs()).to_bits() & 0xfff8_0000);
    let marked = random.below(block.len());
    for (i, x) in block.iter_mut().enumerate() {
        let steps = (*x / scale).round().clamp(*range.start(), *range.end());
        *x = scale * if i == marked { extreme } else { steps };
    }
}

fn write(path: &Path, tensors: &BTreeMap<String, (&WeightDecl, Vec<f32>)>) {
    let views = tensors.iter().map(|(name, (decl, values))| {
        let shape = decl.shape.iter().map(|dim| dim.value()).collect();
        let view = TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(values));
        (name.as_str(), view.expect("values fit their shape"))
    });
    safetensors::serialize_to_file(views, None, path).expect("a written checkpoint");
}
