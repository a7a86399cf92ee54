//! What must hold of a manifest before it is replayed, beyond what `Manifest::from_json` checks. Trusted kernels run
//! without bounds checks and rely on it; of foreign ones it bounds what they may ask of the host.

use kiln_bundle::{Access, BufferKind, Dispatch, Grid, Manifest, RuleWord, Variant};

use super::buffer_bytes;
use crate::Error;
use crate::error::inconsistent;

/// Bytes of a position's token and count.
const HISTORY_ENTRY: u64 = 8;
/// Most tokens of a step: sixteen times what the compiler makes.
const MAX_CHUNK: u32 = 1 << 16;
/// Most dispatches of a program and most kernels, buffers or weights of a bundle: far more than any model needs, few enough
/// to be recorded in no time.
const MAX_PARTS: usize = 1 << 16;

/// Device-independent facts of the model.
pub(crate) fn check_manifest(manifest: &Manifest) -> Result<(), Error> {
    let model = &manifest.model;
    let facts = [
        ("chunk", model.chunk),
        ("vocab_size", model.vocab_size),
        ("hidden_size", model.hidden_size),
        ("max_context", model.max_context),
        ("default_context", model.default_context),
    ];
    if let Some((name, _)) = facts.iter().find(|(_, value)| *value == 0) {
        return Err(inconsistent(format!("{name} is 0")));
    }
    if model.chunk > MAX_CHUNK {
        return Err(inconsistent(format!(
            "chunk is {}, at most {MAX_CHUNK} is possible",
            model.chunk
        )));
    }
    let parts = manifest.variants.iter().flat_map(|variant| {
        let programs = &variant.programs;
        [
            variant.kernels.len(),
            variant.buffers.len(),
            programs.prefill.len(),
            programs.decode.len(),
            programs.head.len(),
            programs.sample.len(),
        ]
    });
    if let Some(count) = parts.chain([manifest.weights.len()]).find(|count| *count > MAX_PARTS) {
        return Err(inconsistent(format!(
            "a list of it has {count} entries, at most {MAX_PARTS} are possible"
        )));
    }
    if manifest.variants.is_empty() {
        return Err(inconsistent("it has no variants"));
    }
    for weight in &manifest.weights {
        if weight.bytes == 0 || !weight.bytes.is_multiple_of(4) || !weight.offset.is_multiple_of(4) {
            return Err(inconsistent(format!(
                "weight {} is not made of whole words",
                weight.name
            )));
        }
    }
    Ok(())
}

/// Sizes, aliases and grids of one variant on a device with these limits.
pub(super) fn check_variant(manifest: &Manifest, variant: &Variant, limits: &wgpu::Limits) -> Result<(), Error> {
    let model = &manifest.model;
    let has_weights = variant
        .buffers
        .iter()
        .any(|buffer| matches!(buffer.kind, BufferKind::Weight { .. }));
    if has_weights && manifest.shards.is_empty() {
        return Err(Error::NoWeights {
            model: model.name.clone(),
        });
    }
    for buffer in &variant.buffers {
        let bytes = buffer_bytes(manifest, &buffer.kind, 1);
        let needed = match buffer.kind {
            // The chunk is small: this does not overflow.
            BufferKind::Hidden { .. } => 4 * u64::from(model.chunk) * u64::from(model.hidden_size),
            BufferKind::Logits { .. } => 4 * u64::from(model.vocab_size),
            BufferKind::History { .. } => HISTORY_ENTRY,
            BufferKind::Rules { .. } => 4 * RuleWord::COUNT as u64,
            _ => 4,
        };
        // Parts of a state are cleared and copied entry by entry.
        let in_words = match buffer.kind {
            BufferKind::State { bytes_per_position, .. } => bytes_per_position.is_multiple_of(4),
            _ => true,
        };
        if !in_words || bytes.is_none_or(|bytes| bytes < needed || !bytes.is_multiple_of(4)) {
            return Err(inconsistent(format!(
                "variant {}: buffer {} has an impossible size",
                variant.name, buffer.name
            )));
        }
    }
    let programs = &variant.programs;
    let chunk = model.chunk;
    for (name, program) in programs.all() {
        let tokens = match name {
            "prefill" | "head" => chunk,
            _ => 1,
        };
        for dispatch in program {
            check_aliases(variant, dispatch)?;
            check_grid(variant, dispatch, tokens, limits.max_compute_workgroups_per_dimension)?;
        }
    }
    Ok(())
}

/// WebGPU refuses a buffer that one dispatch binds both read-only and writable.
fn check_aliases(variant: &Variant, dispatch: &Dispatch) -> Result<(), Error> {
    let accesses = &variant.kernels[dispatch.kernel as usize].bindings;
    let bound = || dispatch.bindings.iter().zip(accesses);
    let clash = bound()
        .filter(|(_, access)| **access == Access::ReadWrite)
        .find(|(written, _)| bound().any(|(read, access)| *access == Access::Read && read.buffer == written.buffer));
    match clash {
        Some((binding, _)) => Err(inconsistent(format!(
            "variant {}: dispatch {} both reads and writes buffer {}",
            variant.name, dispatch.label, variant.buffers[binding.buffer as usize].name
        ))),
        None => Ok(()),
    }
}

fn check_grid(variant: &Variant, dispatch: &Dispatch, tokens: u32, most: u32) -> Result<(), Error> {
    let fits = |grid: &Grid| match *grid {
        Grid::Fixed(count) => count <= most,
        Grid::Tokens { per, times } => per > 0 && u64::from(times) * u64::from(tokens.div_ceil(per)) <= most.into(),
    };
    if dispatch.grid.iter().all(fits) {
        return Ok(());
    }
    Err(inconsistent(format!(
        "variant {}: dispatch {} has a grid of more than {most} workgroups",
        variant.name, dispatch.label
    )))
}
