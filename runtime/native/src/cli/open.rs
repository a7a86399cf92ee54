//! From command line to a loaded model, with a progress bar.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

use kiln_bundle::TextFile;

use super::args::{ModelArgs, SamplingArgs, TextArgs};
use super::no_bundle::what_is;
use crate::text::{Message, TextError, TextModel};
use crate::{
    Bundle, CancelToken, Device, DeviceOptions, DirectorySource, Error, GenerateOptions, LoadOptions, Model, Sampling,
    Session, TokenRule, Trust,
};

pub(super) type FolderBundle = Bundle<DirectorySource>;

pub(super) async fn bundle(folder: &Path) -> anyhow::Result<FolderBundle> {
    if let Some(mistaken) = what_is(folder) {
        return Err(mistaken.into());
    }
    let opened = Bundle::open(DirectorySource::new(folder)).await;
    opened.with_context(|| format!("cannot open bundle {}", folder.display()))
}

/// What a model is loaded for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Text as fast as the device can.
    Run,
    /// Timing kernels.
    Measure,
    /// Numbers as exact as the device can.
    Compare,
}

/// Opens the device that the arguments choose and loads the model.
pub(super) async fn model(
    bundle: &FolderBundle,
    args: &ModelArgs,
    purpose: Purpose,
    cancel: &CancelToken,
) -> Result<Arc<Model>, Error> {
    let options = DeviceOptions {
        device: args.device.clone(),
        variant: args.variant.clone(),
        precise: purpose == Purpose::Compare,
        timestamps: purpose == Purpose::Measure,
        ..DeviceOptions::default()
    };
    let device = Device::open(bundle.manifest(), &options).await?;
    let trust = match args.checked {
        true => Trust::nothing(),
        false => args.trust.iter().copied().fold(Trust::default(), Trust::and),
    };
    let model = load(bundle, device, !args.no_verify, trust, cancel).await?;
    let checks = model.kernel_checks();
    if checks.are_on() && !args.checked {
        super::tell(format_args!(
            "note: kernels run {checks}; if you trust it: --trust {}",
            bundle.digest()
        ));
    }
    Ok(model)
}

/// Loads with a progress bar, where standard error is a terminal.
pub(super) async fn load(
    bundle: &FolderBundle,
    device: Device,
    verify_checksums: bool,
    trust: Trust,
    cancel: &CancelToken,
) -> Result<Arc<Model>, Error> {
    let total = bundle.manifest().shards.iter().map(|shard| shard.bytes).sum();
    let bar = bar(total, "loading {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let mut progress = |done: crate::LoadProgress| bar.set_position(done.done);
    let options = LoadOptions {
        verify_checksums,
        trust,
        cancel: cancel.clone(),
        progress: Some(&mut progress),
    };
    let model = Model::load(device, bundle, options).await;
    bar.finish_and_clear();
    Ok(Arc::new(model?))
}

/// Feeds a prompt, with a progress bar for one of several chunks.
pub(super) async fn feed(session: &mut Session, ids: &[u32]) -> Result<(), Error> {
    let chunk = session.model().manifest().model.chunk as usize;
    session.check_tokens(ids)?;
    if ids.len() <= chunk {
        return session.feed(ids).await;
    }
    let bar = bar(
        ids.len() as u64,
        "reading the prompt {bar:30} {pos}/{len} tokens {per_sec} {eta}",
    );
    for chunk in ids.chunks(chunk) {
        session.feed(chunk).await?;
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();
    Ok(())
}

/// A progress bar on standard error, if that is a terminal.
pub(super) fn bar(total: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// Tokenizer and chat template of the bundle; `None` for one without.
pub(super) async fn text(bundle: &FolderBundle, args: &TextArgs) -> anyhow::Result<Option<TextModel>> {
    let Some(files) = &bundle.manifest().text else {
        return Ok(None);
    };
    let tokenizer = bundle.text(&files.tokenizer.file, &files.tokenizer.sha256).await?;
    let config = optional_text(bundle, files.tokenizer_config.as_ref()).await?;
    let template = optional_text(bundle, files.chat_template.as_ref()).await?;
    let text = TextModel::load(tokenizer.as_bytes(), config.as_deref(), template.as_deref());
    let mut text = text.with_context(|| format!("cannot read {}", files.tokenizer.file))?;
    if let Some(effort) = &args.reasoning {
        text.set_template_argument("reasoning_effort", effort.as_str().into());
    }
    for (name, value) in &args.template_arg {
        text.set_template_argument(name, value.clone());
    }
    Ok(Some(text))
}

/// A conversation as a prompt.
pub(super) struct Prompt {
    pub(super) ids: Vec<u32>,
    /// Where what the template adds for the model's turn begins: what comes before it stays as it is in the next turns.
    pub(super) opening: usize,
}

pub(super) fn prompt(text: &TextModel, messages: &[Message]) -> Result<Prompt, TextError> {
    let ids = text.encode_chat(messages, true)?;
    let closed = text.encode_chat(messages, false)?;
    let opening = ids.iter().zip(&closed).take_while(|(a, b)| a == b).count();
    Ok(Prompt { ids, opening })
}

async fn optional_text(bundle: &FolderBundle, file: Option<&TextFile>) -> Result<Option<String>, crate::Error> {
    match file {
        Some(TextFile { file, sha256 }) => bundle.text(file, sha256).await.map(Some),
        None => Ok(None),
    }
}

/// Options of a generation: the model's, but for what the arguments say; `temperature` where they give none.
pub(super) fn generate_options(model: &Model, args: &SamplingArgs, temperature: f32) -> GenerateOptions {
    let model = Sampling::of(&model.manifest().model);
    let ruled_out = args.suppress.iter().map(|id| TokenRule {
        ids: vec![*id],
        bias: None,
        first: None,
    });
    let rules = model.rules.into_iter().chain(ruled_out).chain(args.logit_bias.clone());
    GenerateOptions {
        max_tokens: args.max_tokens.unwrap_or(u32::MAX),
        sampling: Sampling {
            temperature: args.temperature.unwrap_or(temperature),
            top_k: args.top_k.unwrap_or(model.top_k),
            top_p: args.top_p.unwrap_or(model.top_p),
            min_p: args.min_p.unwrap_or(model.min_p),
            seed: args.seed,
            repetition_penalty: args.repetition_penalty.unwrap_or(model.repetition_penalty),
            presence_penalty: args.presence_penalty.unwrap_or(model.presence_penalty),
            frequency_penalty: args.frequency_penalty.unwrap_or(model.frequency_penalty),
            no_repeat_ngram: args.no_repeat_ngram.unwrap_or(model.no_repeat_ngram),
            min_tokens: args.min_tokens.unwrap_or(model.min_tokens),
            min_length: model.min_length,
            rules: rules.collect(),
        },
        stop_ids: None,
        steps_in_flight: args.steps_in_flight,
    }
}
