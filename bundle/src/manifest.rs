use serde::{Deserialize, Serialize};

use crate::json::{Faults, FromJson};
use crate::{BundleError, Digest, FORMAT_VERSION};

/// All that the runtime needs to know of a compiled model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// See [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Name and version of the compiler that wrote the bundle.
    pub compiler: String,
    pub model: Model,
    /// Tokenizer files; `None` for a checkpoint without them (ids in, ids out).
    pub text: Option<TextFiles>,
    /// Weight shards in the order of their files; empty when compiled with `--no-weights`.
    pub shards: Vec<Shard>,
    /// Packed weight tensors, referred to by [`BufferKind::Weight`].
    pub weights: Vec<WeightTensor>,
    /// The same model for other device capabilities, most demanding first.
    pub variants: Vec<Variant>,
    /// A short prompt with its logits by the CPU evaluator; `None` when compiled without weights.
    pub self_test: Option<SelfTest>,
}

/// Facts of the model that a program shows or checks against.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Name of the model (folder or GGUF name).
    pub name: String,
    /// Hugging Face architecture name, e.g. `LlamaForCausalLM`.
    pub architecture: String,
    pub layers: u32,
    pub hidden_size: u32,
    pub vocab_size: u32,
    /// Positions the model was trained for; a session's context may not exceed it.
    pub max_context: u32,
    /// Context a session gets when none is asked for.
    pub default_context: u32,
    /// Most tokens in one prefill step.
    pub chunk: u32,
    /// Parameters in the checkpoint.
    pub parameters: u64,
    /// Weight quantization in words, e.g. `q4`, or `keep (bf16)`.
    pub quantization: String,
    /// Generation stops at any of these.
    pub eos_token_ids: Vec<u32>,
    pub bos_token_id: Option<u32>,
    /// How the checkpoint wants its tokens picked.
    pub sampling: SamplingDefaults,
}

/// What the checkpoint says of generating, under transformers' names; absent: nothing. How each is meant stands in
/// `docs/bundle-format.md`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SamplingDefaults {
    pub temperature: Option<f32>,
    pub top_k: Option<u32>,
    pub top_p: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_repeat_ngram_size: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_new_tokens: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_length: Option<u32>,
    pub rules: Vec<TokenRule>,
}

/// Makes a token more or less likely, or rules it out: wherever it may stand, or after certain tokens only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenRule {
    /// The token comes last; those before it are what must have come right before.
    pub ids: Vec<u32>,
    /// Added to the token's logit; absent: the token is ruled out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias: Option<f32>,
    /// Holds for so many first tokens of an answer; absent: for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u32>,
}

/// What turns text into token ids and back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextFiles {
    /// Hugging Face `tokenizer.json`.
    pub tokenizer: TextFile,
    /// Hugging Face `tokenizer_config.json` (special tokens), where there was one.
    pub tokenizer_config: Option<TextFile>,
    /// Jinja chat template, where there was one.
    pub chat_template: Option<TextFile>,
}

impl TextFiles {
    /// All that there are.
    pub fn iter(&self) -> impl Iterator<Item = &TextFile> {
        [
            Some(&self.tokenizer),
            self.tokenizer_config.as_ref(),
            self.chat_template.as_ref(),
        ]
        .into_iter()
        .flatten()
    }
}

/// A file of text, UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextFile {
    /// Path within the bundle.
    pub file: String,
    pub sha256: String,
}

impl TextFile {
    /// The file of this name with these bytes.
    pub fn of(file: impl Into<String>, bytes: &[u8]) -> Self {
        TextFile {
            file: file.into(),
            sha256: crate::sha256_hex(bytes),
        }
    }
}

/// One weight file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    pub file: String,
    pub bytes: u64,
    pub sha256: String,
}

/// A packed tensor as it is uploaded: `bytes` bytes from absolute `offset` in the shard's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightTensor {
    pub name: String,
    /// Index into [`Manifest::shards`].
    pub shard: u32,
    /// From the start of the file; a multiple of 4.
    pub offset: u64,
    /// A multiple of 4.
    pub bytes: u64,
}

/// One device capability level: its kernels, buffers and programs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// `base`, `subgroups` or `f16`.
    pub name: String,
    pub features: Vec<Feature>,
    /// WGSL's language features that the kernels use, by WGSL's names (`subgroup_id`). A browser lists those it knows
    /// apart from what the device can do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub language_features: Vec<String>,
    pub limits: Limits,
    pub kernels: Vec<Kernel>,
    pub buffers: Vec<Buffer>,
    pub programs: Programs,
}

/// A WebGPU feature that a variant's kernels use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    ShaderF16,
    Subgroups,
}

impl Feature {
    /// WebGPU's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Feature::ShaderF16 => "shader-f16",
            Feature::Subgroups => "subgroups",
        }
    }
}

/// WebGPU limits that the variant needs; the names are WebGPU's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    pub max_storage_buffers_per_shader_stage: u32,
    /// Bytes.
    pub max_storage_buffer_binding_size: u64,
    /// Bytes.
    pub max_buffer_size: u64,
    pub max_compute_invocations_per_workgroup: u32,
    /// Bytes.
    pub max_compute_workgroup_storage_size: u32,
    pub max_compute_workgroups_per_dimension: u32,
}

/// One WGSL compute entry point. Bindings are group 0, binding 0, 1, 2 ...
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Also the entry point's name.
    pub name: String,
    /// Path within the bundle, e.g. `kernels/f16/matvec_q4_norm_1536x576.wgsl`; texts that all variants share lie in `kernels/`.
    pub file: String,
    pub sha256: String,
    pub bindings: Vec<Access>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    Read,
    ReadWrite,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffer {
    pub name: String,
    pub kind: BufferKind,
}

/// What a buffer holds and how large it is. Each of the single-instance kinds (`Step` to `Rules`)
/// occurs exactly once in a variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum BufferKind {
    /// Index into [`Manifest::weights`].
    Weight { weight: u32 },
    /// Lives across steps, an entry for each position. Bytes: `bytes_per_position` times `positions`, a ring, or times
    /// the session's context where `positions` is absent. Zero at the start of a session.
    State {
        bytes_per_position: u64,
        positions: Option<u64>,
        /// Entries before its own position that a step reads, so that entries `p - window .. p` must be as they were
        /// for a session to go back to position `p`. Present with `positions`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window: Option<u64>,
    },
    /// Lives across steps and sums up all tokens so far, so a session can go back only to a copy of it. Zero at the
    /// start of a session.
    Recurrent { bytes: u64 },
    /// Activations of one step.
    Arena { bytes: u64 },
    /// See [`crate::StepWord`].
    Step,
    /// Token ids (u32) of the step, `chunk` of them; the sampler writes element 0.
    Tokens,
    /// Ring of sampled token ids (u32).
    Output { slots: u32 },
    /// Hidden states after the last layer, f32 `[chunk, hidden_size]`.
    Hidden { bytes: u64 },
    /// f32 `[vocab_size]`.
    Logits { bytes: u64 },
    /// For each position of the session's context the token there and, at its first place, 1 plus how often it was
    /// sampled (elsewhere 0): u32 pairs. What `adjust` looks back at.
    History { bytes_per_position: u64 },
    /// What `adjust` does to the logits, see [`crate::RuleWord`].
    Rules { bytes: u64 },
}

/// The static command lists.
///
/// A prompt is `prefill` for each chunk and, after the last, `head` and `sample`; a generated token
/// is `decode`, `head`, `sample`. `greedy` does for `sample` at temperature 0. `adjust` comes before either, where
/// something is asked of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Programs {
    /// A chunk of `Tokens` tokens at `Position`, through all layers, to `Hidden`.
    pub prefill: Vec<Dispatch>,
    /// One token, through all layers, to row 0 of `Hidden`.
    pub decode: Vec<Dispatch>,
    /// Row `Row` of `Hidden` to `Logits`.
    pub head: Vec<Dispatch>,
    /// Biases, penalties and bans on `Logits`; appends the token sampled last to `History`.
    pub adjust: Vec<Dispatch>,
    /// `Logits` to the most likely token's id; advances the step buffer.
    pub greedy: Vec<Dispatch>,
    /// `Logits` to the next token's id; advances the step buffer.
    pub sample: Vec<Dispatch>,
}

impl Programs {
    /// All of them, with their names in the manifest.
    pub fn all(&self) -> [(&'static str, &[Dispatch]); 6] {
        [
            ("prefill", &self.prefill),
            ("decode", &self.decode),
            ("head", &self.head),
            ("adjust", &self.adjust),
            ("greedy", &self.greedy),
            ("sample", &self.sample),
        ]
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispatch {
    /// Index into [`Variant::kernels`].
    pub kernel: u32,
    /// One for each of the kernel's bindings.
    pub bindings: Vec<Binding>,
    pub grid: [Grid; 3],
    /// Where it stands in the author's words, e.g. `layers.3 gate, up`.
    pub label: String,
}

/// A range of a buffer. `bytes` absent: to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Index into [`Variant::buffers`].
    pub buffer: u32,
    /// A multiple of 256.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offset: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Workgroups along one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", untagged)]
pub enum Grid {
    Fixed(u32),
    /// `times * ceil(tokens / per)` with the number of tokens of the step.
    Tokens {
        per: u32,
        times: u32,
    },
}

impl Grid {
    /// Workgroups for a step of `tokens` tokens.
    pub fn workgroups(self, tokens: u32) -> u32 {
        match self {
            Grid::Fixed(count) => count,
            Grid::Tokens { per, times } => times * tokens.div_ceil(per),
        }
    }
}

/// Token ids and the logits after the last of them, by the compiler's CPU evaluator in f32.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelfTest {
    pub ids: Vec<u32>,
    /// The largest logits: (token id, logit), largest first.
    pub top_logits: Vec<(u32, f32)>,
    /// Euclidean norm of all logits: the scale for relative errors.
    pub norm: f32,
}

impl Manifest {
    /// Reads and checks a manifest; `file` only names it in errors.
    ///
    /// # Errors
    /// Not JSON of this shape, another format version, or an index out of bounds.
    pub fn from_json(text: &[u8], file: &str) -> Result<Self, BundleError> {
        let syntax = |fault: crate::json::Fault| BundleError::Syntax {
            file: file.to_string(),
            what: fault.to_string(),
        };
        let json = crate::json::parse(text).map_err(syntax)?;
        let mut faults = Faults::default();
        let format_version = json.field("format_version", &mut faults);
        let format_version = faults.check(format_version).map_err(syntax)?;
        if format_version != FORMAT_VERSION {
            return Err(BundleError::Version {
                file: file.to_string(),
                found: format_version,
                supported: FORMAT_VERSION,
            });
        }
        let mut faults = Faults::default();
        let manifest: Manifest = FromJson::from_json(&json, &mut faults);
        let manifest = faults.check(manifest).map_err(syntax)?;
        manifest.check().map_err(|what| BundleError::Inconsistent {
            file: file.to_string(),
            what,
        })?;
        Ok(manifest)
    }

    /// The canonical text: compact JSON with a final newline.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string(self).expect("a manifest is plain data");
        text.push('\n');
        text
    }

    /// Of the canonical text, which is what the compiler writes.
    pub fn digest(&self) -> Digest {
        Digest::of(self.to_json().as_bytes())
    }

    fn check(&self) -> Result<(), String> {
        for weight in &self.weights {
            let end = weight.offset.checked_add(weight.bytes);
            match self.shards.get(weight.shard as usize) {
                Some(shard) if end.is_some_and(|end| end <= shard.bytes) => {}
                None if self.shards.is_empty() => {}
                _ => return Err(format!("weight {} lies outside its shard", weight.name)),
            }
        }
        for variant in &self.variants {
            variant
                .check(self.weights.len())
                .map_err(|what| format!("variant {}: {what}", variant.name))?;
        }
        Ok(())
    }
}

/// A state is a ring with a window, or neither.
fn check_ring(positions: Option<u64>, window: Option<u64>) -> Result<(), String> {
    match (positions, window) {
        (None, None) => Ok(()),
        (Some(positions), Some(window)) if window <= positions => Ok(()),
        (Some(positions), Some(window)) => {
            Err(format!("keeps {positions} positions, less than its window of {window}"))
        }
        (Some(_), None) => Err("is a ring without a window".to_string()),
        (None, Some(_)) => Err("has a window but is no ring".to_string()),
    }
}

impl Variant {
    fn check(&self, weights: usize) -> Result<(), String> {
        for buffer in &self.buffers {
            if let BufferKind::Weight { weight } = buffer.kind
                && weight as usize >= weights
            {
                return Err(format!("buffer {} names no weight", buffer.name));
            }
            if let BufferKind::State { positions, window, .. } = buffer.kind {
                check_ring(positions, window).map_err(|what| format!("state {} {what}", buffer.name))?;
            }
        }
        type Is = fn(&BufferKind) -> bool;
        let single: [(&str, Is); 7] = [
            ("step", |kind| matches!(kind, BufferKind::Step)),
            ("tokens", |kind| matches!(kind, BufferKind::Tokens)),
            ("output", |kind| matches!(kind, BufferKind::Output { .. })),
            ("hidden", |kind| matches!(kind, BufferKind::Hidden { .. })),
            ("logits", |kind| matches!(kind, BufferKind::Logits { .. })),
            ("history", |kind| matches!(kind, BufferKind::History { .. })),
            ("rules", |kind| matches!(kind, BufferKind::Rules { .. })),
        ];
        for (name, is) in single {
            let count = self.buffers.iter().filter(|buffer| is(&buffer.kind)).count();
            if count != 1 {
                return Err(format!("{count} {name} buffers, expected 1"));
            }
        }
        for dispatch in self.programs.all().into_iter().flat_map(|(_, program)| program) {
            let Some(kernel) = self.kernels.get(dispatch.kernel as usize) else {
                return Err(format!("dispatch {} names no kernel", dispatch.label));
            };
            if kernel.bindings.len() != dispatch.bindings.len() {
                return Err(format!(
                    "dispatch {}: {} bindings, kernel {} takes {}",
                    dispatch.label,
                    dispatch.bindings.len(),
                    kernel.name,
                    kernel.bindings.len()
                ));
            }
            if let Some(bad) = dispatch
                .bindings
                .iter()
                .find(|binding| binding.buffer as usize >= self.buffers.len())
            {
                return Err(format!("dispatch {}: no buffer {}", dispatch.label, bad.buffer));
            }
        }
        Ok(())
    }
}
