//! Where definitions say that weights are stored, against the headers of real checkpoints.

use std::collections::BTreeMap;

use kiln_compiler::graph::{ModelGraph, RowBlocks, Stored, WeightDecl, WeightRole};
use serde_json::Value;

use super::{fixture, fixtures, graph};

/// The rows of each stored tensor (of each expert's part of it) that weights ask for, how many columns they have, and
/// whether each expert has such rows.
#[derive(Debug, Default)]
struct Asked {
    rows: Vec<usize>,
    shape: Option<Shape>,
}

#[derive(Clone, Debug, PartialEq)]
struct Shape {
    experts: Option<usize>,
    columns: Vec<usize>,
    transposed: bool,
}

fn ask(asked: &mut BTreeMap<String, Asked>, has: &dyn Fn(&str) -> bool, weight: &WeightDecl, layer: usize) {
    let shape: Vec<usize> = weight.shape.iter().map(|dim| dim.value()).collect();
    // A bias of a bank is a vector of two dimensions.
    let of_experts = weight.role == WeightRole::Bank || weight.role == WeightRole::Vector && shape.len() == 2;
    let (experts, matrix) = match of_experts {
        true => (Some(shape[0]), &shape[1..]),
        false => (None, &shape[..]),
    };
    let (rows, columns) = (matrix[0], matrix[1..].to_vec());
    let ways = match &weight.stored {
        Stored::OneOf(ways) => ways.as_slice(),
        way => std::slice::from_ref(way),
    };
    let place = |way: &Stored| match way {
        Stored::Within {
            tensor,
            rows,
            transposed,
        } => (tensor.replacen("{}", &layer.to_string(), 1), rows.clone(), *transposed),
        _ => (weight.name_in(layer), Vec::new(), false),
    };
    let mut places = ways.iter().map(place);
    let (tensor, blocks, transposed) = places
        .find(|(tensor, ..)| has(&tensor.replacen("{expert}", "0", 1)))
        .unwrap_or_else(|| place(&ways[0]));
    let names: Vec<String> = match tensor.contains("{expert}") {
        true => (0..experts.unwrap())
            .map(|expert| tensor.replacen("{expert}", &expert.to_string(), 1))
            .collect(),
        false => vec![tensor.clone()],
    };
    let shape = Shape {
        experts: experts.filter(|_| names.len() == 1 && !tensor.contains("{expert}")),
        columns,
        transposed,
    };
    for name in names {
        let entry = asked.entry(name.clone()).or_default();
        let known = entry.shape.get_or_insert_with(|| shape.clone());
        assert_eq!(*known, shape, "{name}");
        entry.rows.extend(stored_rows(rows, &blocks));
    }
}

/// The stored row of each of a weight's rows, in order.
fn stored_rows(rows: usize, blocks: &[RowBlocks]) -> Vec<usize> {
    if blocks.is_empty() {
        return (0..rows).collect();
    }
    let groups = rows / blocks.iter().map(|block| block.len).sum::<usize>();
    let of_block = |block: &RowBlocks| {
        let RowBlocks {
            group,
            start,
            len,
            step,
        } = *block;
        (0..groups).flat_map(move |n| (0..len).map(move |i| n * group + start + i * step))
    };
    blocks.iter().flat_map(of_block).collect()
}

fn asked_of(graph: &ModelGraph, has: &dyn Fn(&str) -> bool) -> BTreeMap<String, Asked> {
    let mut asked = BTreeMap::new();
    for weight in &graph.weights {
        let used_by = |layer: &&kiln_compiler::graph::Layer| {
            let nodes = graph.templates[layer.template].section.nodes.node_weights();
            nodes.into_iter().any(|node| match node.op {
                kiln_compiler::graph::Op::Weight(id) => graph.weights[id.0] == *weight,
                _ => false,
            })
        };
        match weight.name.contains("{}") {
            true => (graph.layers.iter().filter(used_by)).for_each(|layer| ask(&mut asked, has, weight, layer.index)),
            false => ask(&mut asked, has, weight, 0),
        }
    }
    asked
}

/// Names and shapes of a safetensors file's tensors; MXFP4's two are one of their logical shape.
fn header(case: &str) -> BTreeMap<String, Vec<usize>> {
    let bytes = std::fs::read(format!("{}/{case}/model.safetensors", fixtures())).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let tensors = header.as_object().unwrap().iter();
    let mut found = BTreeMap::new();
    for (name, tensor) in tensors.filter(|(name, _)| *name != "__metadata__" && !name.ends_with("_scales")) {
        let mut shape: Vec<usize> = serde_json::from_value(tensor["shape"].clone()).unwrap();
        if name.ends_with("_blocks") {
            let halves = shape.pop().unwrap() * shape.pop().unwrap();
            shape.push(2 * halves);
        }
        found.insert(name.trim_end_matches("_blocks").to_string(), shape);
    }
    found
}

/// Every tensor of the file is asked for, in its shape, and each of its rows by one weight.
pub fn check(case: &str) {
    let header = header(case);
    let has = |name: &str| header.contains_key(name);
    let asked = asked_of(&graph(&fixture(case, "config.json")), &has);
    let names = |map: Vec<&String>| map.into_iter().cloned().collect::<Vec<_>>();
    assert_eq!(names(asked.keys().collect()), names(header.keys().collect()), "{case}");
    for (name, Asked { mut rows, shape }) in asked {
        rows.sort_unstable();
        let count = rows.len();
        assert_eq!(rows, Vec::from_iter(0..count), "{case} {name}");
        let shape = shape.unwrap();
        let mut matrix = [vec![count], shape.columns].concat();
        if shape.transposed && !case.contains("mxfp4") {
            matrix.reverse();
        }
        let expected = [Vec::from_iter(shape.experts), matrix].concat();
        assert_eq!(expected, header[&name], "{case} {name}");
    }
}
