//! The whole way: a checkpoint is compiled to a bundle, loaded, and run on a GPU, real or software.
//! Everything here panics with a plain message: it only serves tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_compiler::architectures::Registry;
use kiln_compiler::compile::{CompileOptions, compile};
use kiln_compiler::progress::Silent;
use kiln_require::{Requirement, skip};
use kiln_runtime::{
    Bundle, Device, DeviceOptions, DirectorySource, Error, GenerateOptions, LoadOptions, Model, Session, block_on,
};
use tempfile::TempDir;

/// A compiled model in a temporary folder.
pub struct Compiled {
    folder: TempDir,
}

impl Compiled {
    /// Compiles `source`; `set` changes options from their defaults.
    pub fn new(source: &Path, set: impl FnOnce(&mut CompileOptions)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut options = CompileOptions::new(source, folder.path().join("bundle"));
        set(&mut options);
        compile(&options, &Registry::default(), &Silent)
            .unwrap_or_else(|error| panic!("{}: {error}", source.display()));
        Compiled { folder }
    }

    /// The bundle's folder.
    pub fn bundle(&self) -> PathBuf {
        self.folder.path().join("bundle")
    }

    /// Loads a variant; `None`, and loudly, where the device lacks a feature for it.
    pub fn load(&self, variant: &str) -> Option<Arc<Model>> {
        load(&self.bundle(), variant)
    }
}

/// Loads a variant of a bundle; `None`, and loudly, where the device lacks a feature for it. The environment's
/// `KILN_TEST_ADAPTER` (part of a name) picks the device.
pub fn load(bundle: &Path, variant: &str) -> Option<Arc<Model>> {
    block_on(async {
        let bundle = Bundle::open(DirectorySource::new(bundle)).await.expect("a bundle");
        let options = DeviceOptions {
            device: std::env::var("KILN_TEST_ADAPTER").ok(),
            variant: Some(variant.to_string()),
            ..DeviceOptions::default()
        };
        let device = match Device::open(bundle.manifest(), &options).await {
            Ok(device) => device,
            Err(error @ Error::Unsupported { .. }) if variant != "base" => {
                skip(Requirement::Gpu, format!("variant {variant}: {error}"));
                return None;
            }
            Err(error) => panic!("variant {variant}: {error}"),
        };
        let model = Model::load(device, &bundle, LoadOptions::default())
            .await
            .expect("a model");
        Some(Arc::new(model))
    })
}

/// Feeds `ids` to a session and gives the logits after each of them.
pub fn feed(session: &mut Session, ids: &[u32]) -> Vec<Vec<f32>> {
    let facts = &session.model().manifest().model;
    let (chunk, vocab) = (facts.chunk as usize, facts.vocab_size as usize);
    let mut all = Vec::with_capacity(ids.len());
    // The logits of one step at a time can be read.
    for ids in ids.chunks(chunk) {
        let logits = block_on(async {
            session.feed(ids).await?;
            session.logits_of_rows(session.rows()?).await
        });
        let logits = logits.unwrap_or_else(|error| panic!("feeding {} ids: {error}", ids.len()));
        all.extend(logits.chunks(vocab).map(<[f32]>::to_vec));
    }
    all
}

/// The ids that greedy decoding on the device appends to what the session was fed; no end token stops it.
pub fn greedy(session: &mut Session, count: usize) -> Vec<u32> {
    let options = GenerateOptions {
        max_tokens: count as u32,
        stop_ids: Some(Vec::new()),
        ..GenerateOptions::default()
    };
    block_on(async {
        let mut ids = Vec::with_capacity(count);
        let mut generation = session.generate(options)?;
        while let Some(id) = generation.next().await? {
            ids.push(id);
        }
        Ok::<_, Error>(ids)
    })
    .unwrap_or_else(|error| panic!("greedy decoding: {error}"))
}

/// A session of the model's default context.
pub fn session(model: &Arc<Model>) -> Session {
    block_on(Session::new(model.clone(), None)).unwrap_or_else(|error| panic!("a session: {error}"))
}

/// All variants of a bundle.
pub const VARIANTS: [&str; 3] = ["base", "subgroups", "f16"];

/// The most that `‖found − expected‖ / ‖expected‖` of a position's logits may be, against a reference in f32.
pub fn tolerance(variant: &str) -> f64 {
    match variant {
        // Tiles, attention and caches are rounded to f16 (relative 2^-11 = 5e-4) in every layer; the reference cases
        // differ by 1.1e-3 at most.
        "f16" => 5e-3,
        // The same f32 arithmetic in another order: the reference cases differ by 1.5e-6 at most on a CPU. Leaves room
        // for the functions of other devices; 1e-3 is what is promised.
        _ => 1e-4,
    }
}
