//! The `compile-model` program. A program with architectures of its own calls [`run`] with its registry.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use clap::{CommandFactory, FromArgMatches, Parser};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use kiln_bundle::{Manifest, Programs, TrustStore};

use crate::architectures::Registry;
use crate::compile::{CompileError, CompileOptions, CompileReport, compile};
use crate::cost::Profile;
use crate::emit::EmitError;
use crate::progress::Progress;
use crate::rewrite::{MoePlan, OptLevel};
use crate::weights::Quant;

/// Compiles a model to a bundle of WGSL kernels specialized to it.
///
/// SOURCE is a Hugging Face model folder (config.json, safetensors, tokenizer), a single .gguf file, or a bare
/// config.json together with --random-weights or --no-weights. The bundle is a folder that `run-model`, a web page
/// or a server can run; nothing is compiled or tuned where it runs.
#[derive(Debug, Parser)]
#[command(
    name = "compile-model",
    version,
    after_help = "Exit codes: 0 compiled (also when nobody reads standard output), 1 error, 2 wrong usage, 130 interrupted (nothing is left behind)."
)]
struct Arguments {
    /// Model folder, .gguf file or config.json
    source: PathBuf,
    /// Folder of the bundle; an older bundle there is replaced
    #[arg(short, long, value_name = "BUNDLE")]
    output: PathBuf,
    /// Store weight matrices as: keep (as in the checkpoint), f32, f16, q8, q4 (blocks of 32); routers and MXFP4 stay
    #[arg(long, default_value = "keep")]
    quant: Quant,
    /// Device profile that costs are computed for
    #[arg(long, default_value = Profile::DEFAULT, value_name = "NAME")]
    profile: String,
    /// 0: one kernel for each operator; 1: all rewrites
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1), value_name = "N")]
    opt_level: u8,
    /// How mixtures of experts run, instead of what is cheapest: gather (each token visits its experts), grouped (tokens
    /// sorted by expert) or dense (every token visits every expert)
    #[arg(long, value_name = "PLAN")]
    moe_plan: Option<MoePlan>,
    /// Positions of a session unless run-model asks for another number
    #[arg(long, value_name = "N")]
    context: Option<u32>,
    /// Most tokens of a prefill step
    #[arg(long, value_name = "N")]
    chunk: Option<u32>,
    /// Say for each kind of layer what was fused, what was not and why, with costs
    #[arg(long)]
    explain: bool,
    /// Invent weights from a seed (to measure a shape without its checkpoint)
    #[arg(long, value_name = "SEED")]
    random_weights: Option<u64>,
    /// Write kernels and manifest, no weights
    #[arg(long)]
    no_weights: bool,
    /// Leave out the self-test that `run-model verify` uses (it runs the model once on the CPU)
    #[arg(long)]
    no_self_test: bool,
}

/// Runs `compile-model` on the command line's arguments with these architectures.
pub fn run(registry: &Registry) -> ExitCode {
    let arguments = arguments();
    let options = CompileOptions {
        quant: arguments.quant,
        profile: arguments.profile,
        level: if arguments.opt_level == 0 {
            OptLevel::None
        } else {
            OptLevel::Full
        },
        moe_plan: arguments.moe_plan,
        context: arguments.context,
        chunk: arguments.chunk,
        random_weights: arguments.random_weights,
        no_weights: arguments.no_weights,
        no_self_test: arguments.no_self_test,
        ..CompileOptions::new(arguments.source, arguments.output)
    };
    let bars = Bars::default();
    let interrupted = Arc::clone(&bars.interrupted);
    // Without a handler Ctrl-C still ends the program, only less tidily.
    let _ = ctrlc::set_handler(move || interrupted.store(true, Ordering::Relaxed));
    match compile(&options, registry, &bars) {
        Ok(report) => {
            for warning in &report.warnings {
                eprintln!("warning: {warning}");
            }
            let mut text = String::new();
            if arguments.explain {
                for explanation in &report.explanations {
                    text += &format!("{explanation}\n");
                }
            }
            text += &summary(&report, &options);
            remember(&report.manifest);
            print(&text)
        }
        Err(error) => {
            bars.end();
            tell_error(&error.to_string());
            match error {
                CompileError::Emit(EmitError::Interrupted) => ExitCode::from(130),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Notes that the bundle was compiled here: `run-model` runs its kernels without bounds checks then. The bundle is good
/// without it, too.
fn remember(manifest: &Manifest) {
    let digest = manifest.digest();
    let added = match TrustStore::of_user() {
        Some(store) => store
            .add(digest)
            .map_err(|error| format!("{}: {error}", store.file().display())),
        None => Err("there is no folder for the user's state".to_string()),
    };
    if let Err(problem) = added {
        // If somebody reads it.
        let _ = writeln!(
            std::io::stderr(),
            "warning: cannot note that the bundle was compiled here ({problem}); run-model will run its kernels with \
             bounds checks unless it is given --trust {digest}"
        );
    }
}

/// What follows an option that takes a value is its value, also where that begins with a hyphen.
fn arguments() -> Arguments {
    let mut command = Arguments::command().mut_args(|arg| {
        let takes_value = !arg.is_positional() && arg.get_action().takes_values();
        arg.allow_hyphen_values(takes_value)
    });
    Arguments::from_arg_matches(&command.get_matches_mut()).unwrap_or_else(|error| error.format(&mut command).exit())
}

/// Writes to standard output. Whoever reads it may have seen enough.
fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            tell_error(&format!(
                "the bundle is written, but nothing can be told of it: standard output: {error}"
            ));
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard error, if somebody reads it.
fn tell_error(text: &str) {
    let _ = writeln!(std::io::stderr(), "error: {text}");
}

fn summary(report: &CompileReport, options: &CompileOptions) -> String {
    let Manifest {
        model,
        variants,
        shards,
        ..
    } = &report.manifest;
    let weights: u64 = shards.iter().map(|shard| shard.bytes).sum();
    let mut text = format!(
        "{}: {}, {} layers, {:.1} M parameters, weights {}\n",
        model.name,
        model.architecture,
        model.layers,
        model.parameters as f64 / 1e6,
        model.quantization,
    );
    for variant in variants {
        let Programs {
            prefill,
            decode,
            head,
            adjust: _,
            greedy,
            sample,
        } = &variant.programs;
        text += &format!(
            "  {:<9} {:>3} kernels; dispatches: decode {}, prefill {}, head {}, greedy {}, sample {}\n",
            variant.name,
            variant.kernels.len(),
            decode.len(),
            prefill.len(),
            head.len(),
            greedy.len(),
            sample.len(),
        );
    }
    text += &format!(
        "Dispatches a layer in decode: {:.1}; at level 0: {:.1}\n",
        report.layer_dispatches, report.unfused_layer_dispatches
    );
    text += &format!(
        "Wrote {} ({} of weights, {} of kernels) in {:.2} s",
        options.output.display(),
        HumanBytes(weights),
        HumanBytes(report.kernel_bytes),
        report.seconds
    );
    text
}

/// Progress bars on the terminal; nothing where standard error is none.
#[derive(Default)]
struct Bars {
    bar: Mutex<Option<ProgressBar>>,
    interrupted: Arc<AtomicBool>,
}

impl Progress for Bars {
    fn begin(&self, stage: &str, total: u64) {
        let bar = if total > 0 {
            let style =
                ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} left");
            ProgressBar::new(total).with_style(style.expect("a checked template"))
        } else {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(std::time::Duration::from_millis(100));
            bar
        };
        bar.set_message(stage.to_string());
        *self.bar.lock().expect("bars do not panic") = Some(bar);
    }

    fn advance(&self, bytes: u64) {
        if let Some(bar) = &*self.bar.lock().expect("bars do not panic") {
            bar.inc(bytes);
        }
    }

    fn end(&self) {
        if let Some(bar) = self.bar.lock().expect("bars do not panic").take() {
            bar.finish_and_clear();
        }
    }

    fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}
