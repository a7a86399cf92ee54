//! The tensors of a checkpoint under the names that a definition has for them.
//!
//! Checkpoints of one model differ in what stands before the names: nothing (the base model was saved), the name of the
//! model within a larger one (`language_model.`), or what training wrapped around it (`module.`, `_orig_mod.`).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::{CheckpointError, TensorInfo, TensorSource};
use crate::graph::{DeclaredWeight, ModelGraph, Stored};

/// Modules that training puts around a model, or around one of its modules.
const WRAPPERS: &[&str] = &[
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
];

/// A checkpoint whose tensors are called as a model calls them. Those of parts that the model does not use are left out.
pub(super) struct Named<'a> {
    source: &'a dyn TensorSource,
    /// By the model's name, the checkpoint's. Tensors that the model does not have keep their names.
    names: BTreeMap<String, String>,
    /// Weights and the checkpoint's name of the tensor that is meant to equal it.
    tied: Vec<(String, String)>,
}

impl<'a> Named<'a> {
    /// Every tensor under its own name.
    pub fn plainly(source: &'a dyn TensorSource) -> Self {
        Named {
            names: source.names().into_iter().map(|name| (name.clone(), name)).collect(),
            tied: Vec::new(),
            source,
        }
    }

    /// Finds out what stands before the names, from the weights that the model has.
    pub fn new(source: &'a dyn TensorSource, graph: &ModelGraph, declared: &[DeclaredWeight]) -> Self {
        let wanted = wanted_names(graph, declared);
        let wrappers: Vec<&str> = (WRAPPERS.iter().copied())
            .filter(|wrapper| !wanted.iter().any(|name| name.split('.').any(|part| part == *wrapper)))
            .collect();
        let found: Vec<(String, String)> = (source.names().into_iter())
            .map(|name| (unwrapped(&name, &wrappers), name))
            .collect();
        let root = root(&wanted);
        let (within, beside): (Vec<&str>, Vec<&str>) =
            (wanted.iter().map(String::as_str)).partition(|name| name.starts_with(root));
        let within: BTreeSet<&str> = within.into_iter().filter_map(|name| name.strip_prefix(root)).collect();
        let prefix = prefix(found.iter().map(|(name, _)| name.as_str()), &within, root);

        let mut names = BTreeMap::new();
        for (name, original) in &found {
            let beside = beside.iter().find(|beside| is_beside(name, beside, prefix));
            let meant = match (beside, name.strip_prefix(prefix)) {
                (Some(beside), _) => beside.to_string(),
                (None, Some(rest)) => format!("{root}{rest}"),
                (None, None) => original.clone(),
            };
            if !wanted.contains(&meant) && is_part_of(graph.unused, name) {
                continue;
            }
            let meant = if names.contains_key(&meant) {
                original.clone()
            } else {
                meant
            };
            names.insert(meant, original.clone());
        }
        let mut tied = Vec::new();
        for pair in &graph.tied {
            let Some(original) = names.remove(&pair.tensor) else {
                continue;
            };
            // Writers of safetensors keep one of two tensors that share memory, whichever it is.
            if names.contains_key(&pair.weight) {
                tied.push((pair.weight.clone(), original));
            } else {
                names.insert(pair.weight.clone(), original);
            }
        }
        Named { source, names, tied }
    }

    /// Whether a tensor is there that is meant to equal a weight and does not.
    pub fn unties(&self) -> Result<bool, CheckpointError> {
        for (weight, tensor) in &self.tied {
            let (Some(left), Some(right)) = (self.info(weight), self.source.info(tensor)) else {
                continue;
            };
            let readable = [left, right].iter().all(|info| info.source.block().is_some());
            if readable && (left.shape != right.shape || left.source != right.source || !self.equal(weight, tensor)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn equal(&self, weight: &str, tensor: &str) -> Result<bool, CheckpointError> {
        const ROWS_AT_ONCE: usize = 1024;
        let rows = self.expect(weight)?.matrix().0;
        for start in (0..rows).step_by(ROWS_AT_ONCE) {
            let part = start..rows.min(start + ROWS_AT_ONCE);
            if self.read_rows(weight, part.clone())? != self.source.read_rows(tensor, part)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl TensorSource for Named<'_> {
    fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.source.info(self.names.get(name)?)
    }

    fn read_rows(&self, name: &str, rows: Range<usize>) -> Result<Cow<'_, [u8]>, CheckpointError> {
        self.source.read_rows(self.name_in_file(name), rows)
    }

    fn name_in_file<'n>(&'n self, name: &'n str) -> &'n str {
        self.names.get(name).map_or(name, String::as_str)
    }
}

/// Names of the tensors that the weights may lie in; of experts, the first's.
fn wanted_names(graph: &ModelGraph, declared: &[DeclaredWeight]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for weight in declared {
        names.insert(weight.name.clone());
        let mut stored: Stored = weight.stored.clone();
        stored.for_each_way(&mut |tensor, _| {
            names.insert(tensor.replacen("{expert}", "0", 1));
            names.insert(tensor.replacen(".{expert}", "", 1));
        });
    }
    names.extend(graph.tied.iter().map(|pair| pair.tensor.clone()));
    names
}

/// What stands before the layers' own list in the model's names: `model.` of `model.layers.0.mlp.up_proj.weight`.
fn root(wanted: &BTreeSet<String>) -> &str {
    let of_layers = wanted.iter().find_map(|name| {
        let number = name
            .match_indices('.')
            .find(|(at, _)| begins_with_number(&name[at + 1..]))?
            .0;
        let list = name[..number].rfind('.')?;
        Some(&name[..=list])
    });
    of_layers.unwrap_or("")
}

fn begins_with_number(name: &str) -> bool {
    let part = name.split('.').next().unwrap_or_default();
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}

fn unwrapped(name: &str, wrappers: &[&str]) -> String {
    let parts: Vec<&str> = name.split('.').filter(|part| !wrappers.contains(part)).collect();
    parts.join(".")
}

/// What stands before most of the names `within` the root; the root itself if nothing else is better.
fn prefix<'n>(found: impl Iterator<Item = &'n str>, within: &BTreeSet<&str>, root: &'n str) -> &'n str {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in found {
        let starts = std::iter::once(0).chain(name.match_indices('.').map(|(at, _)| at + 1));
        for start in starts.filter(|start| within.contains(&name[*start..])) {
            *counts.entry(&name[..start]).or_default() += 1;
        }
    }
    let most = counts
        .into_iter()
        .max_by_key(|(prefix, count)| (*count, *prefix == root, std::cmp::Reverse(prefix.len())));
    most.map_or(root, |(prefix, _)| prefix)
}

/// Whether a tensor is the one called `beside`, which lies outside the root: by that name, or under one of the modules
/// that contain the model.
fn is_beside(name: &str, beside: &str, prefix: &str) -> bool {
    match name.strip_suffix(beside) {
        Some("") => true,
        Some(before) => before.ends_with('.') && prefix.starts_with(before) && before != prefix,
        None => false,
    }
}

/// Whether a tensor lies in one of these parts, which stand beside the layers and not within.
fn is_part_of(parts: &[&str], name: &str) -> bool {
    let before_numbers = name.split('.').take_while(|part| !begins_with_number(part));
    before_numbers.into_iter().any(|part| parts.contains(&part))
}
