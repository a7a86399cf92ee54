//! What a variant asks of a device.

use kiln_bundle::{Buffer, BufferKind, Limits, Programs};

use crate::kernels::KernelSource;

/// The WebGPU limits that the kernels, buffers and programs need. States that grow with the context are not
/// counted: the runtime checks them for the context it is asked for.
pub fn limits(
    kernels: &[KernelSource],
    buffers: &[Buffer],
    programs: &Programs,
    weight_bytes: &[u64],
    chunk: u32,
) -> Limits {
    let buffer_bytes = |buffer: &Buffer| match buffer.kind {
        BufferKind::Weight { weight } => weight_bytes[weight as usize],
        BufferKind::State {
            bytes_per_position,
            positions,
            ..
        } => bytes_per_position * positions.unwrap_or(1),
        BufferKind::Recurrent { bytes }
        | BufferKind::Arena { bytes }
        | BufferKind::Hidden { bytes }
        | BufferKind::Logits { bytes }
        | BufferKind::Rules { bytes } => bytes,
        BufferKind::History { bytes_per_position } => bytes_per_position,
        BufferKind::Output { slots } => u64::from(slots) * 4,
        BufferKind::Tokens => u64::from(chunk) * 4,
        BufferKind::Step => 4 * kiln_bundle::StepWord::COUNT as u64,
    };
    let dispatches = programs.all().into_iter().flat_map(|(_, program)| program);
    let (mut binding, mut groups) = (0, 1);
    for dispatch in dispatches {
        for bound in &dispatch.bindings {
            let whole = buffer_bytes(&buffers[bound.buffer as usize]);
            binding = binding.max(bound.bytes.unwrap_or(whole - bound.offset));
        }
        groups = dispatch
            .grid
            .iter()
            .map(|grid| grid.workgroups(chunk))
            .fold(groups, u32::max);
    }
    let most = |of: fn(&KernelSource) -> u32| kernels.iter().map(of).max().unwrap_or(0);
    Limits {
        max_storage_buffers_per_shader_stage: most(|kernel| kernel.bindings.len() as u32),
        max_storage_buffer_binding_size: binding,
        max_buffer_size: buffers.iter().map(buffer_bytes).max().unwrap_or(0),
        max_compute_invocations_per_workgroup: most(|kernel| kernel.workgroup_size.iter().product()),
        max_compute_workgroup_storage_size: most(|kernel| kernel.workgroup_bytes),
        max_compute_workgroups_per_dimension: groups,
    }
}
