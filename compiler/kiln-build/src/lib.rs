//! Compiles models in a build script, into the program that runs them.
//!
//! `build.rs`, with `kiln-build` among the `[build-dependencies]`:
//!
//! ```no_run
//! use kiln_build::{Bundle, Quant};
//!
//! Bundle::new("models/SmolLM2-135M-Instruct.Q4_1.gguf").name("smollm2").quant(Quant::Keep).emit();
//! ```
//!
//! `src/main.rs`, with `kiln-runtime` among the `[dependencies]`:
//!
//! ```ignore
//! kiln_runtime::include_bundle!(mod smollm2);
//!
//! let bundle = smollm2::open().await?;
//! let device = Device::open(bundle.manifest(), &DeviceOptions::default()).await?;
//! let model = Model::load(device, &bundle, LoadOptions::default()).await?;
//! ```
//!
//! The module has the bundle's files (or, with [`Bundle::beside`], the way to them), `open()`, what the manifest says of
//! the model as constants, and its variants as an enum.
//!
//! **When it runs.** Cargo runs the build script again when a file of the checkpoint changes. Nothing is packed again
//! unless a file that was read, an option, the compiler or the definition of an architecture has changed.
//!
//! **How fast it is.** Cargo builds build scripts without optimization, in release builds too; packing then takes many times
//! as long, which is told where it is more than seconds. This in the `Cargo.toml` of the workspace makes it fast:
//!
//! ```toml
//! [profile.dev.build-override]
//! opt-level = 3
//! [profile.release.build-override]
//! opt-level = 3
//! ```
//!
//! **An architecture of your own** is a crate (or a module) that both build script and tests can use; the program that
//! runs the model needs it not:
//!
//! ```ignore
//! Bundle::new("models/Qwen2-0.5B").name("qwen2").architecture(new_architecture::qwen2()).emit();
//! ```

mod cargo;
mod error;
mod fingerprint;
mod module;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use kiln_bundle::{MANIFEST_FILE, Manifest};
use kiln_compiler::architectures::Registry;
use kiln_compiler::checkpoint::Checkpoint;
use kiln_compiler::compile::{CompileOptions, CompileReport, OPTIMIZED, compile};
use kiln_compiler::progress::Silent;

pub use error::BuildError;
pub use kiln_compiler::dsl::Architecture;
pub use kiln_compiler::weights::Quant;

use fingerprint::{Fingerprint, Stamp};
use module::Embedding;

/// Seconds of unoptimized work that are worth a warning.
const SLOW: f64 = 2.0;

/// A model to compile in a build script.
#[derive(Clone, Debug)]
#[must_use = "nothing is compiled before `emit`"]
pub struct Bundle {
    name: String,
    /// The output is set when Cargo's folder is known.
    options: CompileOptions,
    architectures: Vec<Architecture>,
    embedding: Embedding,
}

/// What [`Bundle::try_emit`] wrote.
#[derive(Clone, Debug)]
pub struct Emitted {
    pub manifest: Manifest,
    /// The bundle's folder.
    pub folder: PathBuf,
    /// The Rust module that `kiln_runtime::include_bundle!` takes in.
    pub module: PathBuf,
    /// Whether it was compiled now; otherwise it was there, made from the same.
    pub compiled: bool,
}

impl Bundle {
    /// A bundle of a Hugging Face folder, a `.gguf` file or, with [`Bundle::random_weights`], a `config.json`. A relative
    /// path begins at the package's folder.
    pub fn new(source: impl Into<PathBuf>) -> Self {
        Bundle {
            name: "model".to_string(),
            options: CompileOptions {
                no_self_test: true,
                ..CompileOptions::new(source, PathBuf::new())
            },
            architectures: Vec::new(),
            embedding: Embedding::Inside,
        }
    }

    /// Name of the module, as in `kiln_runtime::include_bundle!(mod smollm2)`; `model` unless told otherwise.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How weight matrices are stored; as in the checkpoint unless told otherwise.
    pub fn quant(mut self, quant: Quant) -> Self {
        self.options.quant = quant;
        self
    }

    /// Name of the device profile that costs are computed for, such as `h100`.
    pub fn profile(mut self, profile: impl Into<String>) -> Self {
        self.options.profile = profile.into();
        self
    }

    /// Positions of a session unless the program asks for another number.
    pub fn context(mut self, positions: u32) -> Self {
        self.options.context = Some(positions);
        self
    }

    /// Most tokens of a prefill step.
    pub fn chunk(mut self, tokens: u32) -> Self {
        self.options.chunk = Some(tokens);
        self
    }

    /// Invents weights from a seed.
    pub fn random_weights(mut self, seed: u64) -> Self {
        self.options.random_weights = Some(seed);
        self
    }

    /// Adds the self-test that `run-model verify` uses. For it the model runs once on the CPU, which takes most of the time
    /// where build scripts are not optimized.
    pub fn self_test(mut self) -> Self {
        self.options.no_self_test = false;
        self
    }

    /// Adds an architecture to those that Kiln ships. It goes before one of the same name.
    pub fn architecture(mut self, architecture: Architecture) -> Self {
        self.architectures.push(architecture);
        self
    }

    /// Leaves the bundle a folder, instead of having its files in the program. The program looks for it beside itself
    /// under the name `NAME.kiln`, then where it was built.
    pub fn beside(mut self) -> Self {
        self.embedding = Embedding::Beside;
        self
    }

    /// Compiles the model if it has to be, and writes bundle and module into Cargo's `OUT_DIR`. An error is reported to
    /// Cargo and ends the build script.
    pub fn emit(self) {
        if let Err(error) = self.try_emit() {
            cargo::error(&error.to_string());
            std::process::exit(1);
        }
    }

    /// As [`Bundle::emit`], for build scripts that do something else about an error.
    ///
    /// # Errors
    /// The checkpoint, the definition or an option cannot be compiled, the model is too large to lie in a program, its name
    /// is none or taken, or this is no build script.
    pub fn try_emit(self) -> Result<Emitted, BuildError> {
        let out = std::env::var_os("OUT_DIR").ok_or(BuildError::NoBuildScript)?;
        self.check_name(Path::new(&out))?;
        self.emit_into(Path::new(&out))
    }

    /// Two bundles of one name would overwrite each other.
    fn check_name(&self, out: &Path) -> Result<(), BuildError> {
        static TAKEN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
        module::check_name(&self.name)?;
        let mut taken = TAKEN.lock().unwrap_or_else(|broken| broken.into_inner());
        if taken.insert(out.join(&self.name)) {
            return Ok(());
        }
        Err(BuildError::NameTaken {
            name: self.name.clone(),
        })
    }

    fn emit_into(mut self, out: &Path) -> Result<Emitted, BuildError> {
        // For files that are added, too.
        cargo::rerun_if_changed(&self.options.source);
        let folder = out.join(format!("{}.kiln", self.name));
        self.options.output = folder.clone();
        let registry = (self.architectures.iter().cloned()).fold(Registry::default(), Registry::with);
        let definition = self.definition(&registry);
        let fingerprint = |files: &[PathBuf]| Fingerprint::new(&self.options, definition.clone(), files);

        let path = out.join(format!("{}.stamp.json", self.name));
        let known = Stamp::read(&path).filter(|known| known.fingerprint == fingerprint(&known.files()));
        let known = known.and_then(|known| Some((known.bundle(&folder)?, known.files())));
        let compiled = known.is_none();
        let (manifest, files) = match known {
            Some(known) => known,
            None => {
                remove_unfinished(out, &folder);
                let report = compile(&self.options, &registry, &Silent)?;
                warn_if_slow(&report);
                let CompileReport { manifest, files, .. } = report;
                let digest = module::file_digest(&folder.join(MANIFEST_FILE))?;
                let stamp = Stamp::new(fingerprint(&files), digest);
                stamp.write(&path).map_err(BuildError::io(&path))?;
                (manifest, files)
            }
        };
        files.iter().for_each(|file| cargo::rerun_if_changed(file));
        let module = out.join(format!("{}.rs", self.name));
        let text = module::text(&self.name, &folder, &manifest, self.embedding)?;
        // An untouched file does not make Cargo compile the program again.
        if fs::read_to_string(&module).ok().as_deref() != Some(&text) {
            fs::write(&module, text).map_err(BuildError::io(&module))?;
        }
        Ok(Emitted {
            manifest,
            folder,
            module,
            compiled,
        })
    }

    /// SHA-256 of the graph, where it may be one of the author's own: those of Kiln are known by the compiler's sources.
    /// `None` also where there will be an error, which is told when it is compiled.
    fn definition(&self, registry: &Registry) -> Option<String> {
        if self.architectures.is_empty() {
            return None;
        }
        let checkpoint = Checkpoint::open(&self.options.source).ok()?;
        let architecture = registry.for_config(checkpoint.config()).ok()?;
        let graph = architecture.build(checkpoint.config()).ok()?;
        Some(kiln_bundle::sha256_hex(format!("{graph:?}").as_bytes()))
    }
}

/// Removes what builds that were interrupted have left of the bundle: Cargo runs one build script at a time in `out`.
fn remove_unfinished(out: &Path, bundle: &Path) {
    let name = bundle.file_name().unwrap_or_default().to_string_lossy();
    for entry in fs::read_dir(out).into_iter().flatten().flatten() {
        if (entry.file_name().to_string_lossy()).starts_with(&format!("{name}.partial-")) {
            // At worst it stays and takes room.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn warn_if_slow(report: &CompileReport) {
    if !OPTIMIZED && report.seconds > SLOW {
        cargo::warn(&format!(
            "{} took {:.0} s to compile, without optimization; \
             [profile.dev.build-override] opt-level = 3 in Cargo.toml makes that fast (see the docs of kiln-build)",
            report.manifest.model.name, report.seconds
        ));
    }
}
