//! The whole way from a checkpoint to a bundle.

#[cfg(test)]
mod error_tests;
mod packed_values;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;

use kiln_bundle::{FORMAT_VERSION, Manifest, Model};
use thiserror::Error;

use self::packed_values::PackedValues;
use crate::architectures::{Registry, UnknownArchitecture};
use crate::checkpoint::{Checkpoint, CheckpointError, RandomWeights, TensorSource};
use crate::config::{ConfigError, ModelFacts, UnreadKey};
use crate::cost::{Profile, UnknownProfile};
use crate::dsl::DefineError;
use crate::emit::{self, EmitError, Staging, WeightLayout};
use crate::graph::{DeclaredWeight, ModelGraph, WeightRole};
use crate::kernels::Capability;
use crate::plan::{PlanError, PlanOptions, VariantPlan, WeightTable, plan_variant, rewrite_model};
use crate::progress::Progress;
use crate::reference::{self, EvalError};
use crate::rewrite::{Explanation, MoePlan, OptLevel};
use crate::weights::{PackError, Quant, WeightFormat, check_exact, format_for};

/// Which compiler this is: its version and a hash of its sources. Another one may make another bundle of the same.
pub const COMPILER: &str = concat!(env!("CARGO_PKG_VERSION"), "-", env!("KILN_COMPILER_SOURCES"));
/// Whether this compiler was built with optimization: without, packing takes many times as long.
pub const OPTIMIZED: bool = !cfg!(kiln_unoptimized);
/// Bytes of a storage binding that every browser grants.
pub const BINDING_LIMIT: u64 = 128 << 20;
/// Context of a session when neither the user nor the model says less.
const DEFAULT_CONTEXT: usize = 4096;
/// Most tokens of a prefill step unless told otherwise.
const DEFAULT_CHUNK: u32 = 512;
/// Tokens of the self-test.
const SELF_TEST_TOKENS: u32 = 6;

/// What to compile, and how.
#[derive(Clone, Debug)]
pub struct CompileOptions {
    /// A Hugging Face directory, a config.json or a .gguf file.
    pub source: PathBuf,
    /// Folder of the bundle.
    pub output: PathBuf,
    pub quant: Quant,
    /// Name of the device profile that costs are computed for.
    pub profile: String,
    pub level: OptLevel,
    /// How mixtures of experts run; absent: as is cheapest on the profile's device.
    pub moe_plan: Option<MoePlan>,
    /// Positions of a session by default; at most what the model was made for.
    pub context: Option<u32>,
    /// Most tokens of a prefill step.
    pub chunk: Option<u32>,
    /// Most bytes of one storage binding: [`BINDING_LIMIT`], or less to see how larger weights are split.
    pub binding_limit: u64,
    /// Invent weights from this seed instead of reading any.
    pub random_weights: Option<u64>,
    /// Write kernels and manifest only.
    pub no_weights: bool,
    /// Leave the CPU evaluator's self-test out.
    pub no_self_test: bool,
}

impl CompileOptions {
    /// Everything optional at its default.
    pub fn new(source: impl Into<PathBuf>, output: impl Into<PathBuf>) -> Self {
        CompileOptions {
            source: source.into(),
            output: output.into(),
            quant: Quant::Keep,
            profile: Profile::DEFAULT.to_string(),
            level: OptLevel::Full,
            moe_plan: None,
            context: None,
            chunk: None,
            binding_limit: BINDING_LIMIT,
            random_weights: None,
            no_weights: false,
            no_self_test: false,
        }
    }
}

/// What was compiled.
#[derive(Clone, Debug)]
pub struct CompileReport {
    pub manifest: Manifest,
    /// What the user should know of the checkpoint, a sentence each.
    pub warnings: Vec<String>,
    pub explanations: Vec<Explanation>,
    /// Mean dispatches of a layer in decode.
    pub layer_dispatches: f64,
    /// The same at level 0.
    pub unfused_layer_dispatches: f64,
    /// Bytes of WGSL over all variants.
    pub kernel_bytes: u64,
    pub seconds: f64,
    /// The files of the checkpoint that were read, in alphabetical order.
    pub files: Vec<PathBuf>,
}

#[derive(Debug, Error)]
pub enum CompileError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Architecture(#[from] UnknownArchitecture),
    #[error(transparent)]
    Define(#[from] DefineError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Profile(#[from] UnknownProfile),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Weights(#[from] PackError),
    #[error(transparent)]
    Emit(#[from] EmitError),
    #[error("self-test: {0}")]
    SelfTest(EvalError),
    #[error(
        "{source_path} holds no weights; add --random-weights SEED to invent some, or --no-weights for kernels only"
    )]
    NoWeights { source_path: String },
    #[error("a context of {asked} positions is more than the {most} that {name} was made for")]
    Context { asked: u32, most: usize, name: String },
    #[error("a chunk of {asked} tokens is out of range; choose 1 to 4096")]
    Chunk { asked: u32 },
}

/// Compiles a checkpoint to a bundle.
///
/// # Errors
/// See [`CompileError`]; nothing is left behind at `options.output` then.
pub fn compile(
    options: &CompileOptions,
    registry: &Registry,
    progress: &dyn Progress,
) -> Result<CompileReport, CompileError> {
    let started = Instant::now();
    let checkpoint = Checkpoint::open(&options.source)?;
    let architecture = registry.for_config(checkpoint.config())?;
    let mut defined = architecture.define(checkpoint.config())?;
    if options.random_weights.is_none() && checkpoint.unties_head(&defined.graph)? {
        defined.config["tie_word_embeddings"] = false.into();
        defined = architecture.define(&defined.config)?;
    }
    let not_read = |key: &UnreadKey| format!("config.json: {} does not read {key}", defined.graph.architecture);
    let unread: Vec<String> = defined.unread.iter().map(not_read).collect();
    let graph = defined.graph;
    let facts = ModelFacts::read(&defined.config)?;
    let plan_options = plan_options(options, &facts, checkpoint.name())?;

    let declared = graph.declared_weights();
    let config = checkpoint.config();
    let random = options
        .random_weights
        .map(|seed| RandomWeights::new(&declared, config, seed));
    let view = match &random {
        Some(_) => None,
        None if checkpoint.has_tensors() => Some(checkpoint.view(&graph)?),
        None if options.no_weights => None,
        None => {
            return Err(CompileError::NoWeights {
                source_path: options.source.display().to_string(),
            });
        }
    };
    let source: Option<&dyn TensorSource> = match (&random, &view) {
        (Some(random), _) => Some(random),
        (None, Some(view)) => Some(view),
        (None, None) => None,
    };
    let with_weights = source.filter(|_| !options.no_weights);
    if let Some(source) = with_weights {
        check_exact(source, &declared)?;
    }
    let formats = formats(&declared, config, source, options.quant);
    // Vectors are not asked for: they are always f32.
    let format_of = |name: &str| formats.get(name).copied().unwrap_or(WeightFormat::F32);
    let model = rewrite_model(&graph, &plan_options, &format_of)?;
    let mut weights = WeightTable::default();
    // The best comes first in the manifest.
    let plans = (Capability::ALL.into_iter().rev())
        .map(|capability| plan_variant(&graph, &model, &plan_options, capability, &mut weights))
        .collect::<Result<Vec<VariantPlan>, PlanError>>()?;
    let kernel_bytes = kernel_bytes(&plans);
    let level_0 = PlanOptions {
        level: OptLevel::None,
        ..plan_options.clone()
    };
    let unfused = rewrite_model(&graph, &level_0, &format_of)?;

    let staging = Staging::begin(&options.output)?;
    let layout = WeightLayout::new(&graph, &weights);
    let shards = match with_weights {
        Some(source) => layout.write(&staging, &graph, &weights, source, progress)?,
        None => Vec::new(),
    };
    let self_test = match with_weights.filter(|_| !options.no_self_test) {
        Some(source) => {
            progress.begin("Computing the self-test on the CPU", 0);
            let values = PackedValues::new(source, &declared, &format_of);
            let test = reference::self_test(&graph, &values, &self_test_ids(facts.vocab_size));
            let test = test.map_err(CompileError::SelfTest)?;
            progress.end();
            Some(test)
        }
        None => None,
    };
    let variants = emit::write_variants(&staging, plans)?;
    let text = checkpoint
        .text()
        .map(|text| emit::write_text(&staging, text))
        .transpose()?;
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        compiler: format!("kiln {}", env!("CARGO_PKG_VERSION")),
        model: model_of(&checkpoint, &declared, &graph, &facts, &plan_options, options, &formats),
        text,
        shards,
        weights: layout.tensors().to_vec(),
        variants,
        self_test,
    };
    emit::write_manifest(&staging, &manifest)?;
    if progress.interrupted() {
        return Err(EmitError::Interrupted.into());
    }
    staging.publish()?;
    Ok(CompileReport {
        manifest,
        warnings: [checkpoint.warnings(), &unread].concat(),
        explanations: model.explanations().into_iter().cloned().collect(),
        layer_dispatches: model.decode_dispatches_per_layer(),
        unfused_layer_dispatches: unfused.decode_dispatches_per_layer(),
        kernel_bytes,
        seconds: started.elapsed().as_secs_f64(),
        files: checkpoint.files().to_vec(),
    })
}

/// Spread over the vocabulary, the same for every build.
fn self_test_ids(vocab: usize) -> Vec<u32> {
    let id = |i: u32| (i * 7919 + 1) % vocab.max(1) as u32;
    (0..SELF_TEST_TOKENS).map(id).collect()
}

fn plan_options(options: &CompileOptions, facts: &ModelFacts, name: &str) -> Result<PlanOptions, CompileError> {
    let context = options.context.unwrap_or(DEFAULT_CONTEXT.min(facts.max_context) as u32);
    if context as usize > facts.max_context || context == 0 {
        return Err(CompileError::Context {
            asked: context,
            most: facts.max_context,
            name: name.to_string(),
        });
    }
    let chunk = options.chunk.unwrap_or(DEFAULT_CHUNK.min(context));
    if chunk == 0 || chunk > 4096 {
        return Err(CompileError::Chunk { asked: chunk });
    }
    Ok(PlanOptions {
        level: options.level,
        moe_plan: options.moe_plan,
        profile: Profile::named(&options.profile)?,
        chunk,
        context,
        binding_limit: options.binding_limit,
    })
}

/// Bytes of WGSL, texts that variants share counted once.
fn kernel_bytes(plans: &[VariantPlan]) -> u64 {
    let texts: BTreeSet<&str> = plans
        .iter()
        .flat_map(|plan| &plan.kernels)
        .map(|kernel| kernel.wgsl.as_str())
        .collect();
    texts.into_iter().map(|text| text.len() as u64).sum()
}

/// The format of every weight that is no vector. Without weights to look at, they are taken to be stored as random ones
/// would be.
fn formats(
    declared: &[DeclaredWeight],
    config: &serde_json::Value,
    source: Option<&dyn TensorSource>,
    quant: Quant,
) -> BTreeMap<String, WeightFormat> {
    let matrices = declared.iter().filter(|weight| weight.role != WeightRole::Vector);
    matrices
        .map(|weight| {
            let stored = source.and_then(|source| source.info(&weight.name));
            let stored = stored.map_or_else(|| RandomWeights::source_type(weight, config), |info| info.source);
            let quant = match weight.role {
                WeightRole::Exact => Quant::Keep,
                _ => quant,
            };
            (weight.name.clone(), format_for(stored, quant))
        })
        .collect()
}

fn model_of(
    checkpoint: &Checkpoint,
    declared: &[DeclaredWeight],
    graph: &ModelGraph,
    facts: &ModelFacts,
    plan: &PlanOptions,
    options: &CompileOptions,
    formats: &BTreeMap<String, WeightFormat>,
) -> Model {
    let generation = checkpoint.generation();
    let mut sampling = generation.sampling.defaults.clone();
    // No token outside the vocabulary is ever sampled.
    let is_known = |id: &u32| (*id as usize) < facts.vocab_size;
    sampling.rules.retain(|rule| rule.ids.iter().all(is_known));
    let elements = |shape: &[usize]| shape.iter().map(|dim| *dim as u64).product::<u64>();
    let formats: BTreeSet<String> = formats.values().map(WeightFormat::to_string).collect();
    let formats: Vec<String> = formats.into_iter().collect();
    Model {
        name: checkpoint.name().to_string(),
        architecture: graph.architecture.clone(),
        layers: facts.layers as u32,
        hidden_size: facts.hidden_size as u32,
        vocab_size: facts.vocab_size as u32,
        max_context: facts.max_context as u32,
        default_context: plan.context,
        chunk: plan.chunk,
        parameters: declared.iter().map(|weight| elements(&weight.shape)).sum(),
        quantization: format!("{} ({})", options.quant, formats.join(", ")),
        eos_token_ids: generation.eos_token_ids.clone(),
        bos_token_id: generation.bos_token_id,
        sampling,
    }
}
