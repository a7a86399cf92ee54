//! The programs of a variant over the buffers of one session, with bind groups built once.

use std::sync::Arc;

use kiln_bundle::{Binding, Buffer, BufferKind, Dispatch, Grid};

use super::states::States;
use crate::device::OwnedBuffer;
use crate::error::inconsistent;
use crate::model::buffer_bytes;
use crate::{Error, Model};

/// One dispatch, ready to record.
pub(super) struct Call {
    /// Index of the kernel.
    pub(super) kernel: usize,
    group: wgpu::BindGroup,
    grid: [Grid; 3],
}

/// Buffers and programs of one session.
pub(super) struct Replay {
    pub(super) prefill: Vec<Call>,
    pub(super) decode: Vec<Call>,
    pub(super) head: Vec<Call>,
    pub(super) adjust: Vec<Call>,
    pub(super) greedy: Vec<Call>,
    pub(super) sample: Vec<Call>,
    pub(super) step: wgpu::Buffer,
    pub(super) tokens: wgpu::Buffer,
    pub(super) output: wgpu::Buffer,
    pub(super) output_slots: u32,
    pub(super) logits: wgpu::Buffer,
    pub(super) history: wgpu::Buffer,
    pub(super) rules: wgpu::Buffer,
    pub(super) states: States,
    /// Keeps all buffers alive and counted.
    _buffers: Vec<Arc<OwnedBuffer>>,
}

impl Replay {
    pub(super) async fn new(model: &Model, context: u32) -> Result<Self, Error> {
        let variant = model.variant();
        let buffers = allocate(model, context).await?;
        let calls = |program: &[Dispatch]| -> Result<Vec<Call>, Error> {
            program.iter().map(|dispatch| call(model, &buffers, dispatch)).collect()
        };
        let validation = model.device.gpu.push_error_scope(wgpu::ErrorFilter::Validation);
        let programs = variant.programs.all().map(|(_, program)| calls(program));
        if let Some(error) = validation.pop().await {
            return Err(Error::Device {
                message: error.to_string(),
            });
        }
        let [prefill, decode, head, adjust, greedy, sample] = programs;
        let find = |is: fn(&BufferKind) -> bool| -> Result<wgpu::Buffer, Error> {
            let index = variant.buffers.iter().position(|buffer| is(&buffer.kind));
            let index = index.ok_or_else(|| inconsistent("a buffer of the session is missing"))?;
            Ok(buffers[index].buffer.clone())
        };
        let output_slots = variant.buffers.iter().find_map(|buffer| match buffer.kind {
            BufferKind::Output { slots } => Some(slots),
            _ => None,
        });
        Ok(Self {
            prefill: prefill?,
            decode: decode?,
            head: head?,
            adjust: adjust?,
            greedy: greedy?,
            sample: sample?,
            step: find(|kind| matches!(kind, BufferKind::Step))?,
            tokens: find(|kind| matches!(kind, BufferKind::Tokens))?,
            output: find(|kind| matches!(kind, BufferKind::Output { .. }))?,
            output_slots: output_slots.unwrap_or(1),
            logits: find(|kind| matches!(kind, BufferKind::Logits { .. }))?,
            history: find(|kind| matches!(kind, BufferKind::History { .. }))?,
            rules: find(|kind| matches!(kind, BufferKind::Rules { .. }))?,
            states: States::new(variant, &buffers, context),
            _buffers: buffers,
        })
    }
}

/// Records a program for a step of `tokens` tokens.
pub(super) fn record(model: &Model, pass: &mut wgpu::ComputePass<'_>, program: &[Call], tokens: u32) {
    let mut current = None;
    for call in program {
        if current.replace(call.kernel) != Some(call.kernel) {
            pass.set_pipeline(&model.kernels[call.kernel].pipeline);
        }
        call.record(pass, tokens);
    }
}

impl Call {
    /// Binds and dispatches; the pipeline is set already.
    pub(super) fn record(&self, pass: &mut wgpu::ComputePass<'_>, tokens: u32) {
        let [x, y, z] = self.grid.map(|grid| grid.workgroups(tokens));
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }
}

/// The model's shared buffers and the session's own, in the variant's order.
async fn allocate(model: &Model, context: u32) -> Result<Vec<Arc<OwnedBuffer>>, Error> {
    let variant = model.variant();
    let mut buffers = Vec::with_capacity(variant.buffers.len());
    for (buffer, shared) in variant.buffers.iter().zip(&model.shared) {
        buffers.push(match shared {
            Some(shared) => Arc::clone(shared),
            None => Arc::new(allocate_one(model, buffer, context).await?),
        });
    }
    Ok(buffers)
}

async fn allocate_one(model: &Model, buffer: &Buffer, context: u32) -> Result<OwnedBuffer, Error> {
    let bytes = buffer_bytes(model.manifest(), &buffer.kind, context).unwrap_or(u64::MAX);
    let limits = model.device.gpu.limits();
    let limit = limits.max_buffer_size.min(limits.max_storage_buffer_binding_size);
    if let BufferKind::State {
        bytes_per_position,
        positions: None,
        ..
    } = buffer.kind
        && bytes > limit
    {
        return Err(Error::StateTooLarge {
            asked: context,
            bytes,
            limit,
            longest: limit / bytes_per_position.max(1),
        });
    }
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
    model.device.buffer(&buffer.name, bytes, usage).await
}

fn call(model: &Model, buffers: &[Arc<OwnedBuffer>], dispatch: &Dispatch) -> Result<Call, Error> {
    let kernel = dispatch.kernel as usize;
    let mut entries = Vec::with_capacity(dispatch.bindings.len());
    for (number, binding) in (0..).zip(&dispatch.bindings) {
        let buffer = &buffers[binding.buffer as usize].buffer;
        let size = checked_range(model, buffer.size(), binding).ok_or_else(|| {
            inconsistent(format!(
                "dispatch {}: binding {number} does not fit its buffer or the device's limits",
                dispatch.label
            ))
        })?;
        entries.push(wgpu::BindGroupEntry {
            binding: number,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer,
                offset: binding.offset,
                size: Some(size),
            }),
        });
    }
    let group = model.device.gpu.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &model.kernels[kernel].layout,
        entries: &entries,
    });
    Ok(Call {
        kernel,
        group,
        grid: dispatch.grid,
    })
}

/// Bytes that the binding covers, if the buffer has them and the device can bind them.
fn checked_range(model: &Model, buffer: u64, binding: &Binding) -> Option<wgpu::BufferSize> {
    let limits = model.device.gpu.limits();
    let rest = buffer.checked_sub(binding.offset)?;
    let bytes = binding.bytes.unwrap_or(rest);
    let fits = bytes <= rest
        && bytes <= limits.max_storage_buffer_binding_size
        && bytes.is_multiple_of(4)
        && binding
            .offset
            .is_multiple_of(limits.min_storage_buffer_offset_alignment.into());
    wgpu::BufferSize::new(bytes).filter(|_| fits)
}
