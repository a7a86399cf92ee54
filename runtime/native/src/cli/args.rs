use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand};
use kiln_bundle::{Digest, TokenRule};

/// Runs a model that compile-model made, on any GPU with Vulkan, Metal or DirectX 12 (or in software).
#[derive(Parser)]
#[command(name = "run-model", bin_name = "run-model", version, after_help = EXIT_CODES)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    done, or whoever read standard output has seen enough
  1    an error, told on standard error; for verify: a variant is out of tolerance
  2    wrong use of the command line
  130  interrupted with Ctrl-C";

#[derive(Subcommand)]
pub(super) enum Command {
    /// Chat with the model: type, press Enter; /reset starts anew, /exit or Ctrl-D leaves
    ///
    /// The model's state is kept between turns, so only what is new is computed. Ctrl-C ends an answer.
    /// What the model thinks before it answers is dimmed. Without a terminal, each line of standard input is one message,
    /// and names like [analysis] stand before what is not the answer. A line that begins with / is a command, one that
    /// begins with // a message that begins with /. A line that gets no answer (no command, not UTF-8, too long for the
    /// context) is told on standard error, and with --json as a line {"error": ...} in its place.
    Chat(ChatArgs),
    /// Answer one prompt, or continue token ids
    ///
    /// The prompt goes through the model's chat template (see --raw). Greedy unless --temperature is given.
    Generate(GenerateArgs),
    /// Write the logits after each token to a safetensors file
    ///
    /// The file holds one tensor, `logits`, f32 [tokens, vocabulary]. Without --variant, one that computes in 32 bits
    /// throughout is used, if the bundle has one for the device.
    Logits(LogitsArgs),
    /// Measure speed and memory
    ///
    /// Medians of several repetitions with random tokens, after the device has warmed up. The session is as long as the
    /// longest measurement; its memory is shown as planned from the bundle and as allocated.
    Bench(BenchArgs),
    /// Check the files, and the model's self-test in every variant that the device can run
    ///
    /// The error is the largest difference among the self-test's logits, relative to the root mean square of all
    /// logits; it may be 1e-3, in a variant with 16-bit arithmetic 2e-2. Kernels run with bounds checks.
    Verify(VerifyArgs),
    /// Show what is in a bundle
    Inspect(InspectArgs),
    /// List the devices that wgpu finds, the preferred one first
    ///
    /// With a bundle: also which of its variants each device can run, or what it lacks for them.
    Devices(DevicesArgs),
}

#[derive(Args)]
pub(super) struct ModelArgs {
    /// Folder made by compile-model
    pub(super) bundle: PathBuf,
    /// Part of the name of the device to use (see `run-model devices`)
    #[arg(long, value_name = "NAME")]
    pub(super) device: Option<String>,
    /// Variant of the kernels: base, subgroups or f16; default: the best that the device can run
    #[arg(long, value_name = "NAME")]
    pub(super) variant: Option<String>,
    /// Do not compare the weights with their checksums while loading
    #[arg(long)]
    pub(super) no_verify: bool,
    /// Run the kernels with bounds checks, even if the bundle is trusted
    #[arg(long)]
    pub(super) checked: bool,
    /// Run the kernels without bounds checks if the bundle's manifest.json has this SHA-256 (may be repeated); bundles
    /// compiled on this machine are trusted without it
    #[arg(long, value_name = "SHA256", conflicts_with = "checked")]
    pub(super) trust: Vec<Digest>,
}

#[derive(Args)]
pub(super) struct SamplingArgs {
    /// Most tokens to generate
    #[arg(long, value_name = "N")]
    pub(super) max_tokens: Option<u32>,
    /// Randomness; 0 always takes the most likely token
    #[arg(long, value_name = "T", value_parser = non_negative)]
    pub(super) temperature: Option<f32>,
    /// Sample among the K most likely tokens; 0: among all [default: the model's]
    #[arg(long, value_name = "K")]
    pub(super) top_k: Option<u32>,
    /// Sample among the most likely tokens with this total probability [default: the model's]
    #[arg(long, value_name = "P", value_parser = probability)]
    pub(super) top_p: Option<f32>,
    /// Sample among the tokens that are at least P times as likely as the most likely one [default: the model's]
    #[arg(long, value_name = "P", value_parser = ratio)]
    pub(super) min_p: Option<f32>,
    /// Makes tokens that occurred less likely: divides their logits (multiplies negative ones); 1: does not [default: the
    /// model's]
    #[arg(long, value_name = "X", value_parser = positive)]
    pub(super) repetition_penalty: Option<f32>,
    /// Taken from the logits of tokens that stand in the answer
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(super) presence_penalty: Option<f32>,
    /// Taken from the logits of tokens that stand in the answer, as often as they do
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(super) frequency_penalty: Option<f32>,
    /// No sequence of N tokens occurs twice; 0: any may [default: the model's]
    #[arg(long, value_name = "N")]
    pub(super) no_repeat_ngram: Option<u32>,
    /// The answer has at least N tokens before its end token [default: the model's]
    #[arg(long, value_name = "N")]
    pub(super) min_tokens: Option<u32>,
    /// Never sample these token ids, besides those that the model rules out, e.g. 1,2,3
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub(super) suppress: Vec<u32>,
    /// Add to the logit of a token id, e.g. 17=-2.5 (may be repeated)
    #[arg(long, value_name = "ID=X", value_parser = logit_bias)]
    pub(super) logit_bias: Vec<TokenRule>,
    /// Seed of the sampler
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) seed: u32,
    /// Stop at this text, too (may be repeated)
    #[arg(long, value_name = "TEXT")]
    pub(super) stop: Vec<String>,
    /// Positions of the context [default: the model's]
    #[arg(long, value_name = "N")]
    pub(super) context: Option<u32>,
    /// Steps submitted to the device ahead of the token being read
    #[arg(long, value_name = "N", default_value_t = 4, hide = true)]
    pub(super) steps_in_flight: u32,
}

#[derive(Args)]
pub(super) struct TextArgs {
    /// How much the model thinks first, for models that can be told (template variable reasoning_effort)
    #[arg(long, value_name = "EFFORT", value_parser = ["low", "medium", "high"])]
    pub(super) reasoning: Option<String>,
    /// Variable for the chat template, e.g. enable_thinking=false; JSON, or else a text (may be repeated)
    #[arg(long, value_name = "NAME=VALUE", value_parser = template_argument)]
    pub(super) template_arg: Vec<(String, serde_json::Value)>,
    /// Show the answer only, not what the model thinks before it
    #[arg(long)]
    pub(super) hide_reasoning: bool,
}

#[derive(Args)]
pub(super) struct ChatArgs {
    #[command(flatten)]
    pub(super) model: ModelArgs,
    #[command(flatten)]
    pub(super) sampling: SamplingArgs,
    #[command(flatten)]
    pub(super) text: TextArgs,
    /// What the model is told first
    #[arg(long, value_name = "TEXT")]
    pub(super) system: Option<String>,
    /// Go on with the conversation in this file, if there is one, and save it there at the end
    #[arg(long, value_name = "FILE")]
    pub(super) session: Option<PathBuf>,
    /// Print each answer as one line of JSON: its text, and all channels
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args)]
#[command(group = ArgGroup::new("input").required(true).args(["prompt", "ids"]))]
pub(super) struct GenerateArgs {
    #[command(flatten)]
    pub(super) model: ModelArgs,
    /// Text of the prompt
    #[arg(long, value_name = "TEXT")]
    pub(super) prompt: Option<String>,
    /// Token ids of the prompt, e.g. 1,2,3
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub(super) ids: Option<Vec<u32>>,
    #[command(flatten)]
    pub(super) sampling: SamplingArgs,
    #[command(flatten)]
    pub(super) text: TextArgs,
    /// Take the prompt as it is, without chat template, and show the answer as it is, without telling channels apart
    #[arg(long)]
    pub(super) raw: bool,
    /// Compute only what follows the tokens that this file's session has in common with the prompt (if there is one),
    /// and save the session there at the end
    #[arg(long, value_name = "FILE")]
    pub(super) session: Option<PathBuf>,
    /// Go on after the model's end token
    #[arg(long)]
    pub(super) ignore_eos: bool,
    /// Print ids, text and timings as JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args)]
pub(super) struct LogitsArgs {
    #[command(flatten)]
    pub(super) model: ModelArgs,
    /// Token ids, e.g. 1,2,3
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true)]
    pub(super) ids: Vec<u32>,
    /// File to write
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: PathBuf,
    /// Feed the tokens in steps of at most N [default: the model's chunk]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) chunk: Option<u32>,
}

#[derive(Args)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    pub(super) model: ModelArgs,
    /// Tokens of the prompt; several are measured one after another, e.g. 512,2048
    #[arg(long, value_name = "N", default_value = "512", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) prefill: Vec<u32>,
    /// Tokens to generate
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) decode: u32,
    /// Tokens in the context before decoding starts; several are measured one after another, e.g. 512,8192
    #[arg(long, value_name = "N", default_value = "1", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) context: Vec<u32>,
    /// Repetitions of each measurement
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) repetitions: u32,
    /// Steps submitted to the device ahead of the token being read
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(super) steps_in_flight: u32,
    /// Print as JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args)]
pub(super) struct VerifyArgs {
    /// Folder made by compile-model
    pub(super) bundle: PathBuf,
    /// Part of the name of the device to use (see `run-model devices`)
    #[arg(long, value_name = "NAME")]
    pub(super) device: Option<String>,
    /// Only this variant
    #[arg(long, value_name = "NAME")]
    pub(super) variant: Option<String>,
}

#[derive(Args)]
pub(super) struct InspectArgs {
    /// Folder made by compile-model
    pub(super) bundle: PathBuf,
    /// List the dispatches of every program
    #[arg(long)]
    pub(super) dispatches: bool,
}

#[derive(Args)]
pub(super) struct DevicesArgs {
    /// Folder made by compile-model
    pub(super) bundle: Option<PathBuf>,
}

fn non_negative(text: &str) -> Result<f32, String> {
    let value: f32 = text.parse().map_err(|_| "not a number".to_string())?;
    let good = value.is_finite() && value >= 0.0;
    good.then_some(value).ok_or_else(|| "must be 0 or more".to_string())
}

fn probability(text: &str) -> Result<f32, String> {
    let value = non_negative(text)?;
    let good = value > 0.0 && value <= 1.0;
    good.then_some(value)
        .ok_or_else(|| "must be above 0 and at most 1".to_string())
}

fn ratio(text: &str) -> Result<f32, String> {
    let value = non_negative(text)?;
    (value <= 1.0)
        .then_some(value)
        .ok_or_else(|| "must be from 0 to 1".to_string())
}

fn positive(text: &str) -> Result<f32, String> {
    let value = non_negative(text)?;
    (value > 0.0)
        .then_some(value)
        .ok_or_else(|| "must be above 0".to_string())
}

fn logit_bias(text: &str) -> Result<TokenRule, String> {
    let (id, bias) = text.split_once('=').ok_or("must be ID=NUMBER")?;
    let id = id.parse().map_err(|_| format!("{id:?} is no token id"))?;
    let bias: f32 = bias.parse().map_err(|_| format!("{bias:?} is no number"))?;
    Ok(TokenRule {
        ids: vec![id],
        bias: Some(bias),
        first: None,
    })
}

fn template_argument(text: &str) -> Result<(String, serde_json::Value), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    if name.is_empty() {
        return Err("must be NAME=VALUE".to_string());
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok((name.to_string(), value))
}
