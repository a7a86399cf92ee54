//! From WGSL files to compute pipelines.

use kiln_bundle::{Access, Kernel, Variant};

use crate::{Bundle, BundleSource, Device, Error};

/// A kernel ready to be dispatched.
pub(crate) struct CompiledKernel {
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
}

/// Reads the text of each kernel of the variant and compares it with its checksum.
pub(super) async fn read<S: BundleSource>(bundle: &Bundle<S>, variant: &Variant) -> Result<Vec<String>, Error> {
    let mut texts = Vec::with_capacity(variant.kernels.len());
    for kernel in &variant.kernels {
        texts.push(bundle.kernel(&kernel.file, &kernel.sha256).await?);
    }
    Ok(texts)
}

pub(super) async fn compile(
    device: &Device,
    kernel: &Kernel,
    text: &str,
    checked: bool,
) -> Result<CompiledKernel, Error> {
    let gpu = &device.gpu;
    let scopes = [
        wgpu::ErrorFilter::OutOfMemory,
        wgpu::ErrorFilter::Internal,
        wgpu::ErrorFilter::Validation,
    ]
    .map(|filter| gpu.push_error_scope(filter));
    let module = module(device, kernel, text, checked);
    let (layout, pipeline_layout) = make_layout(gpu, &kernel.bindings);
    let pipeline = gpu.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(&kernel.name),
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some(&kernel.name),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    // Scopes are popped in reverse order of their creation, all of them before anything is awaited.
    let errors: Vec<_> = scopes.into_iter().rev().map(wgpu::ErrorScopeGuard::pop).collect();
    for error in errors {
        if let Some(error) = error.await {
            return Err(Error::Kernel {
                file: kernel.file.clone(),
                kernel: kernel.name.clone(),
                message: error.to_string(),
            });
        }
    }
    Ok(CompiledKernel { pipeline, layout })
}

fn module(device: &Device, kernel: &Kernel, text: &str, checked: bool) -> wgpu::ShaderModule {
    let text = format!("{}{text}", device.shader_prefix());
    let descriptor = wgpu::ShaderModuleDescriptor {
        label: Some(&kernel.name),
        source: wgpu::ShaderSource::Wgsl(text.into()),
    };
    if checked {
        return device.gpu.create_shader_module(descriptor);
    }
    // SAFETY: the bundle is trusted (`Trust`): its manifest is, byte for byte, one that the compiler wrote or that the
    // caller vouches for, and the text has the checksum which that manifest states. The compiler emits only counted
    // loops without division by zero, and indices that stay inside the buffers whose sizes the manifest states, whatever
    // values weights and states hold; buffers have those sizes or the model does not load. Token ids and positions that
    // come from outside are checked by the session. Running with checks holds the claim to the proof.
    unsafe {
        device
            .gpu
            .create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
    }
}

fn make_layout(gpu: &wgpu::Device, bindings: &[Access]) -> (wgpu::BindGroupLayout, wgpu::PipelineLayout) {
    let entries: Vec<_> = (0..)
        .zip(bindings)
        .map(|(binding, access)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage {
                    read_only: *access == Access::Read,
                },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    let layout = gpu.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: None,
        entries: &entries,
    });
    let pipeline_layout = gpu.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    (layout, pipeline_layout)
}
