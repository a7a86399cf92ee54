//! Writes the bundle: kernels, packed weights, tokenizer files, manifest.

mod pack;
mod shards;
mod staging;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kiln_bundle::{Kernel, Manifest, TextFile, TextFiles, Variant, WeightTensor};
use thiserror::Error;

pub use staging::Staging;

use crate::checkpoint::{TensorSource, TextAssets};
use crate::graph::ModelGraph;
use crate::plan::{PackedPart, VariantPlan, WeightTable};
use crate::progress::Progress;
use crate::weights::{PackError, WeightFormat};
use pack::Packer;
use shards::{Layout, Planned, ShardWriter};

#[derive(Debug, Error)]
pub enum EmitError {
    #[error("{path}: {cause}")]
    Io { path: String, cause: std::io::Error },
    #[error("{path} exists and is no Kiln bundle; name another folder or remove it")]
    Occupied { path: String },
    #[error("{path} is no folder, and a bundle is one; name another path")]
    NoFolder { path: String },
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A fault of Kiln.
    #[error("tensor {name}: {packed} bytes packed, {planned} planned; please report this checkpoint")]
    Size { name: String, planned: u64, packed: u64 },
    #[error("interrupted; nothing was written")]
    Interrupted,
}

impl EmitError {
    pub(crate) fn io(path: &Path, cause: std::io::Error) -> Self {
        EmitError::Io {
            path: path.display().to_string(),
            cause,
        }
    }
}

/// Sizes and places of all packed tensors.
pub struct WeightLayout {
    layout: Layout,
}

impl WeightLayout {
    pub fn new(graph: &ModelGraph, weights: &WeightTable) -> Self {
        let planned: Vec<Planned> = weights
            .weights
            .iter()
            .flat_map(|weight| {
                let floats = !matches!(&weight.part, PackedPart::Matrix { format, .. } if *format != WeightFormat::F32);
                weight
                    .tensors(graph)
                    .into_iter()
                    .map(move |(name, bytes)| Planned { name, bytes, floats })
            })
            .collect();
        WeightLayout {
            layout: Layout::new(&planned),
        }
    }

    pub fn tensors(&self) -> &[WeightTensor] {
        &self.layout.tensors
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.layout.tensors.iter().map(|tensor| tensor.bytes).sum()
    }

    /// Packs and writes all weights. Packing and writing run side by side, with few tensors between them.
    ///
    /// # Errors
    /// Unreadable tensors, values that a format cannot hold, a file system that refuses, an interruption.
    pub fn write(
        &self,
        staging: &Staging,
        graph: &ModelGraph,
        weights: &WeightTable,
        source: &dyn TensorSource,
        progress: &dyn Progress,
    ) -> Result<Vec<kiln_bundle::Shard>, EmitError> {
        /// Tensors packed ahead of the writer.
        const AHEAD: usize = 2;
        progress.begin("Packing weights", self.bytes());
        let (send, receive) = std::sync::mpsc::sync_channel::<Vec<u8>>(AHEAD);
        let mut writer = ShardWriter::new(staging.folder().to_path_buf(), &self.layout);
        std::thread::scope(|scope| {
            let writing = scope.spawn(move || -> Result<_, EmitError> {
                for tensor in receive {
                    writer.write(&tensor)?;
                    progress.advance(tensor.len() as u64);
                }
                writer.finish()
            });
            let mut packer = Packer::new(graph, source);
            let packed = weights.weights.iter().try_for_each(|weight| {
                if progress.interrupted() {
                    return Err(EmitError::Interrupted);
                }
                for tensor in packer.pack(weight)? {
                    // A closed channel means that the writer has failed; its error is reported below.
                    if send.send(tensor).is_err() {
                        break;
                    }
                }
                Ok(())
            });
            drop(send);
            let written = writing.join().expect("the writer does not panic");
            packed?;
            progress.end();
            written
        })
    }
}

/// Writes the kernels of all variants and gives their part of the manifest. A text that several variants share is one
/// file of `kernels/`; one of a single variant lies in that variant's folder.
pub fn write_variants(staging: &Staging, plans: Vec<VariantPlan>) -> Result<Vec<Variant>, EmitError> {
    let shared = shared_texts(&plans);
    let mut variants = Vec::new();
    for plan in plans {
        let variant = plan.capability.name().to_string();
        let mut features = Vec::new();
        let mut language_features = BTreeSet::new();
        let mut kernels = Vec::new();
        for kernel in plan.kernels {
            let folder = match shared.get(&kernel.name) == Some(&kernel.wgsl) {
                true => String::new(),
                false => format!("{variant}/"),
            };
            let file = format!("kernels/{folder}{}.wgsl", kernel.name);
            staging.write(&file, kernel.wgsl.as_bytes())?;
            features.extend(kernel.features);
            // The one word of WGSL in our kernels that came after its first version, and not with a feature of the device.
            if kernel.wgsl.contains("@builtin(subgroup_id)") {
                language_features.insert("subgroup_id".to_string());
            }
            kernels.push(Kernel {
                name: kernel.name,
                file,
                sha256: kiln_bundle::sha256_hex(kernel.wgsl.as_bytes()),
                bindings: kernel.bindings,
            });
        }
        features.sort_unstable();
        features.dedup();
        variants.push(Variant {
            limits: plan.limits,
            name: variant,
            features,
            language_features: language_features.into_iter().collect(),
            kernels,
            buffers: plan.buffers,
            programs: plan.programs,
        });
    }
    Ok(variants)
}

/// By kernel name, the text that most variants have, if more than one has it.
fn shared_texts(plans: &[VariantPlan]) -> BTreeMap<String, String> {
    let mut users: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for kernel in plans.iter().flat_map(|plan| &plan.kernels) {
        *users.entry((&kernel.name, &kernel.wgsl)).or_default() += 1;
    }
    let mut shared: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for ((name, text), count) in users.into_iter().filter(|(_, count)| *count > 1) {
        let known = shared.entry(name).or_insert((count, text));
        if count > known.0 {
            *known = (count, text);
        }
    }
    let owned = shared.into_iter();
    owned
        .map(|(name, (_, text))| (name.to_string(), text.to_string()))
        .collect()
}

/// Writes tokenizer and chat template.
pub fn write_text(staging: &Staging, text: &TextAssets) -> Result<TextFiles, EmitError> {
    let write = |name: &str, content: &String| -> Result<TextFile, EmitError> {
        staging.write(name, content.as_bytes())?;
        Ok(TextFile::of(name, content.as_bytes()))
    };
    let optional =
        |name: &str, content: &Option<String>| content.as_ref().map(|content| write(name, content)).transpose();
    Ok(TextFiles {
        tokenizer: write("tokenizer.json", &text.tokenizer_json)?,
        tokenizer_config: optional("tokenizer_config.json", &text.tokenizer_config_json)?,
        chat_template: optional("chat_template.jinja", &text.chat_template)?,
    })
}

/// Writes the manifest; the last file of a bundle.
pub fn write_manifest(staging: &Staging, manifest: &Manifest) -> Result<(), EmitError> {
    staging.write(kiln_bundle::MANIFEST_FILE, manifest.to_json().as_bytes())
}
