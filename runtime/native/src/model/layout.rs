use kiln_bundle::{BufferKind, Manifest, StepWord};

/// Bytes of a buffer in a session of `context` positions; `None` where they do not fit 64 bits.
pub(crate) fn buffer_bytes(manifest: &Manifest, kind: &BufferKind, context: u32) -> Option<u64> {
    match *kind {
        BufferKind::Weight { weight } => Some(manifest.weights.get(weight as usize)?.bytes),
        BufferKind::State {
            bytes_per_position,
            positions,
            ..
        } => bytes_per_position.checked_mul(positions.unwrap_or(context.into())),
        BufferKind::Recurrent { bytes }
        | BufferKind::Arena { bytes }
        | BufferKind::Hidden { bytes }
        | BufferKind::Logits { bytes }
        | BufferKind::Rules { bytes } => Some(bytes),
        BufferKind::History { bytes_per_position } => bytes_per_position.checked_mul(context.into()),
        BufferKind::Step => Some(StepWord::COUNT as u64 * 4),
        BufferKind::Tokens => Some(u64::from(manifest.model.chunk) * 4),
        BufferKind::Output { slots } => Some(u64::from(slots) * 4),
    }
}
