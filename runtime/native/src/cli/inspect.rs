use std::io::Write;
use std::process::ExitCode;

use kiln_bundle::{BufferKind, Dispatch, Grid, Manifest, Variant};

use super::args::InspectArgs;
use super::open::{self, FolderBundle};
use crate::{MemoryPlan, Trust};

pub(super) async fn run(args: InspectArgs) -> anyhow::Result<ExitCode> {
    let bundle = open::bundle(&args.bundle).await?;
    let mut out = std::io::stdout().lock();
    model(&mut out, bundle.manifest())?;
    let digest = bundle.digest();
    writeln!(
        out,
        "  kernels run {} (SHA-256 {digest})",
        Trust::default().judge(digest)
    )?;
    for variant in &bundle.manifest().variants {
        let kernel_bytes = kernel_bytes(&bundle, variant).await?;
        self::variant(&mut out, bundle.manifest(), variant, kernel_bytes)?;
        if args.dispatches {
            dispatches(&mut out, variant)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn model(out: &mut impl Write, manifest: &Manifest) -> std::io::Result<()> {
    let model = &manifest.model;
    writeln!(out, "{} ({}), by {}", model.name, model.architecture, manifest.compiler)?;
    writeln!(
        out,
        "  {} parameters, {} layers, hidden {}, vocabulary {}",
        model.parameters, model.layers, model.hidden_size, model.vocab_size
    )?;
    writeln!(
        out,
        "  context {} (by default {}), prefill in chunks of {}",
        model.max_context, model.default_context, model.chunk
    )?;
    let weights = manifest.weights.iter().map(|weight| weight.bytes).sum();
    writeln!(
        out,
        "  weights {}: {} in {} tensors, {} shards",
        model.quantization,
        size(weights),
        manifest.weights.len(),
        manifest.shards.len()
    )?;
    writeln!(
        out,
        "  end tokens {}, first token {}",
        list(model.eos_token_ids.iter().map(u32::to_string)),
        list(model.bos_token_id.iter().map(u32::to_string))
    )?;
    let text = match &manifest.text {
        Some(files) if files.chat_template.is_some() => "tokenizer and chat template",
        Some(_) => "tokenizer",
        None => "none: token ids in and out",
    };
    writeln!(out, "  text: {text}")?;
    let test = manifest.self_test.as_ref().map_or(0, |test| test.ids.len());
    writeln!(out, "  self-test: {test} tokens")
}

/// `a, b`, or `none`.
fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    if items.is_empty() {
        "none".to_string()
    } else {
        items.join(", ")
    }
}

fn variant(out: &mut impl Write, manifest: &Manifest, variant: &Variant, kernel_bytes: u64) -> std::io::Result<()> {
    let features = list(variant.features.iter().map(|feature| feature.name().to_string()));
    writeln!(out, "variant {}: features {features}", variant.name)?;
    writeln!(
        out,
        "  {} kernels, {} of WGSL",
        variant.kernels.len(),
        size(kernel_bytes)
    )?;
    let programs = &variant.programs;
    let layers = f64::from(manifest.model.layers.max(1));
    for (name, program) in programs.all() {
        let count = program.len();
        write!(out, "  {name}: {count} dispatches")?;
        if matches!(name, "prefill" | "decode") {
            write!(out, ", {:.1} a layer", count as f64 / layers)?;
        }
        writeln!(out)?;
    }
    memory(out, manifest, variant)
}

/// States, alike ones together, and what all takes on a device.
fn memory(out: &mut impl Write, manifest: &Manifest, variant: &Variant) -> std::io::Result<()> {
    let context = manifest.model.default_context;
    let mut states: Vec<(&BufferKind, &str, usize)> = Vec::new();
    for buffer in &variant.buffers {
        if !matches!(buffer.kind, BufferKind::State { .. } | BufferKind::Recurrent { .. }) {
            continue;
        }
        match states.iter_mut().find(|(kind, ..)| **kind == buffer.kind) {
            Some((.., count)) => *count += 1,
            None => states.push((&buffer.kind, &buffer.name, 1)),
        }
    }
    writeln!(out, "  memory for {context} positions:")?;
    let row = |out: &mut dyn Write, what: &str, bytes: u64| writeln!(out, "    {what:<88} {:>12}", size(bytes));
    for (kind, name, count) in states {
        let bytes = crate::model::buffer_bytes(manifest, kind, context).unwrap_or(u64::MAX);
        let what = match *kind {
            BufferKind::State {
                bytes_per_position,
                positions: Some(positions),
                window,
            } => {
                let window = window.unwrap_or(positions);
                format!("ring of {positions} positions of {bytes_per_position} bytes, the last {window} needed")
            }
            BufferKind::State { bytes_per_position, .. } => format!("{bytes_per_position} bytes a position"),
            _ => "recurrent, sums up all tokens".to_string(),
        };
        let what = format!("{count} × {what} ({name}{})", if count > 1 { " ..." } else { "" });
        row(out, &what, bytes.saturating_mul(count as u64))?;
    }
    let plan = MemoryPlan::new(manifest, variant, context);
    row(out, "weights", plan.weights)?;
    if plan.copies > 0 {
        row(out, "copies of states to go back to, at most", plan.copies)?;
    }
    row(out, "arenas", plan.arenas)?;
    row(out, "hidden states, logits, tokens", plan.others)?;
    row(out, "all", plan.total())
}

fn dispatches(out: &mut impl Write, variant: &Variant) -> std::io::Result<()> {
    for (name, program) in variant.programs.all() {
        writeln!(out, "  {name}:")?;
        for dispatch in program {
            let kernel = &variant.kernels[dispatch.kernel as usize].name;
            writeln!(out, "    {:<36} {kernel} {}", dispatch.label, grid(dispatch))?;
        }
    }
    Ok(())
}

fn grid(dispatch: &Dispatch) -> String {
    let sides = dispatch.grid.map(|side| match side {
        Grid::Fixed(count) => count.to_string(),
        Grid::Tokens { per, times } => format!("{times}*ceil(tokens/{per})"),
    });
    sides.join(" x ")
}

async fn kernel_bytes(bundle: &FolderBundle, variant: &Variant) -> Result<u64, crate::Error> {
    let mut bytes = 0;
    for kernel in &variant.kernels {
        bytes += bundle.file(&kernel.file).await?.len() as u64;
    }
    Ok(bytes)
}

/// Bytes, readable.
fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}
