//! From WGSL files to compute pipelines.

use std::time::Duration;

use kiln_bundle::{Access, Kernel, Variant};

use crate::clock::Stopwatch;
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
        texts.push(bundle.text(&kernel.file, &kernel.sha256).await?);
    }
    Ok(texts)
}

/// The kernels of a variant, about to be compiled.
pub(super) struct Compile<'a> {
    pub(super) device: &'a Device,
    pub(super) variant: &'a Variant,
    pub(super) sources: &'a [String],
    pub(super) checked: bool,
}

impl Compile<'_> {
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn run_parallel(&self) -> (Result<Vec<CompiledKernel>, Error>, Duration) {
        use rayon::prelude::*;
        let watch = Stopwatch::start();
        let kernels = self.variant.kernels.par_iter().zip(self.sources);
        let compiled = kernels
            .map(|(kernel, source)| pollster::block_on(self.compile(kernel, source)))
            .collect();
        (compiled, watch.elapsed())
    }

    #[cfg(target_arch = "wasm32")]
    pub(super) async fn run(&self) -> (Result<Vec<CompiledKernel>, Error>, Duration) {
        let watch = Stopwatch::start();
        let mut compiled = Vec::with_capacity(self.sources.len());
        for (kernel, source) in self.variant.kernels.iter().zip(self.sources) {
            match self.compile(kernel, source).await {
                Ok(kernel) => compiled.push(kernel),
                Err(error) => return (Err(error), watch.elapsed()),
            }
        }
        (Ok(compiled), watch.elapsed())
    }

    async fn compile(&self, kernel: &Kernel, source: &str) -> Result<CompiledKernel, Error> {
        let gpu = &self.device.gpu;
        let scopes = [
            wgpu::ErrorFilter::OutOfMemory,
            wgpu::ErrorFilter::Internal,
            wgpu::ErrorFilter::Validation,
        ]
        .map(|filter| gpu.push_error_scope(filter));
        let module = self.module(kernel, source);
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

    fn module(&self, kernel: &Kernel, source: &str) -> wgpu::ShaderModule {
        let source = format!("{}{source}", self.device.shader_prefix());
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(&kernel.name),
            source: wgpu::ShaderSource::Wgsl(source.into()),
        };
        if self.checked {
            return self.device.gpu.create_shader_module(descriptor);
        }
        // SAFETY: the compiler emits only counted loops without division by zero, and indices that stay inside the
        // buffers whose sizes the manifest states; buffers have those sizes or the model does not load. The one
        // index that comes from outside, the token id, and the position are checked by the session. The text is
        // what the compiler wrote: its checksum was compared. `checked_shaders` holds the claim to the proof.
        unsafe {
            self.device
                .gpu
                .create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
        }
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
