//! A device opened for one variant of a bundle.

mod adapters;
mod faults;
mod fence;
mod needs;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_bundle::{Feature, Manifest, Variant};

use crate::Error;
use crate::helper::{Helper, apart};
pub use adapters::{AdapterSummary, adapters};
use faults::Faults;
pub(crate) use fence::{Fence, Readback, Reading};
pub use needs::Missing;

/// How to choose a device.
#[derive(Clone, Debug, Default)]
pub struct DeviceOptions {
    /// Part of the adapter's name, in either case; absent: the first that runs the bundle, GPUs before software.
    pub device: Option<String>,
    /// Name of the variant to use; absent: the first in the manifest that the adapter can run.
    pub variant: Option<String>,
    /// Without a named variant: rather one that computes in 32 bits throughout.
    pub precise: bool,
    /// Ask for timestamp queries where the adapter has them (needed to time kernels).
    pub timestamps: bool,
    /// Features that the host has seen itself and asks for when it opens the device. wgpu sees no `subgroups` in a
    /// browser.
    pub host_features: Vec<Feature>,
}

/// A device opened with exactly what one variant needs.
pub struct Device {
    pub(crate) gpu: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    name: String,
    variant: usize,
    needs_subgroups: bool,
    faults: Arc<Faults>,
    /// Does all that goes through the queue, in its order.
    submitter: Helper,
    /// Waits for one submission after the other.
    #[cfg(not(target_arch = "wasm32"))]
    waiter: Arc<Helper>,
    allocated: AtomicU64,
    most_allocated: AtomicU64,
}

impl Device {
    /// Picks adapter and variant and opens the adapter.
    ///
    /// # Errors
    /// No adapter, an unknown variant, or (with what is missing) no variant that an adapter can run.
    pub async fn open(manifest: &Manifest, options: &DeviceOptions) -> Result<Self, Error> {
        let candidates = wanted_variants(manifest, options)?;
        let all = apart("adapters", adapters::enumerate()).await;
        let names: Vec<String> = all.iter().map(|a| adapters::name(&a.get_info())).collect();
        let matches = |name: &String| match &options.device {
            Some(part) => name.to_ascii_lowercase().contains(&part.to_ascii_lowercase()),
            None => true,
        };
        let host = needs::flags(&options.host_features);
        let mut refused = None;
        for (adapter, name) in all.iter().zip(&names).filter(|(_, name)| matches(name)) {
            let mut missing = Vec::new();
            for &index in &candidates {
                let variant = &manifest.variants[index];
                let lacks = needs::missing(variant, adapter.features() | host, &adapter.limits());
                if lacks.is_empty() {
                    return Self::request(adapter, name, variant, index, options.timestamps).await;
                }
                missing.push((variant.name.clone(), lacks));
            }
            refused.get_or_insert(Error::Unsupported {
                adapter: name.clone(),
                missing,
            });
        }
        Err(refused.unwrap_or(Error::NoAdapter {
            wanted: options.device.clone(),
            available: names,
        }))
    }

    async fn request(
        adapter: &wgpu::Adapter,
        name: &str,
        variant: &Variant,
        index: usize,
        timestamps: bool,
    ) -> Result<Self, Error> {
        let mut required_features = needs::flags(&variant.features);
        if timestamps {
            required_features |= adapter.features() & wgpu::Features::TIMESTAMP_QUERY;
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("kiln"),
            required_features,
            required_limits: needs::request(variant, &adapter.limits()),
            // Buffers are few and live long: blocks as large as they are.
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let adapter = adapter.clone();
        let opened = apart("device", async move { adapter.request_device(&descriptor).await }).await;
        let (gpu, queue) = opened.map_err(|cause| Error::Open {
            adapter: name.to_string(),
            cause,
        })?;
        Ok(Self {
            submitter: Helper::start("submitter"),
            #[cfg(not(target_arch = "wasm32"))]
            waiter: Arc::new(Helper::start("waiter")),
            faults: Faults::watch(&gpu),
            gpu,
            queue,
            name: name.to_string(),
            variant: index,
            needs_subgroups: variant.features.contains(&Feature::Subgroups),
            allocated: AtomicU64::new(0),
            most_allocated: AtomicU64::new(0),
        })
    }

    /// Name and interface, e.g. `NVIDIA H100 (Vulkan)`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Index of the variant it was opened for.
    pub fn variant(&self) -> usize {
        self.variant
    }

    /// Bytes of all buffers made so far and not freed.
    pub fn allocated_bytes(&self) -> u64 {
        self.allocated.load(Ordering::Relaxed)
    }

    /// The most that [`Device::allocated_bytes`] has been.
    pub fn most_allocated_bytes(&self) -> u64 {
        self.most_allocated.load(Ordering::Relaxed)
    }

    /// Bytes that wgpu holds of the device's memory for buffers, unused parts of blocks and staging included; `None`
    /// where it cannot tell.
    pub fn reserved_bytes(&self) -> Option<u64> {
        self.gpu
            .generate_allocator_report()
            .map(|report| report.total_reserved_bytes)
    }

    /// Frees the device at once; whatever uses it reports a lost device from then on.
    pub fn destroy(&self) {
        self.gpu.destroy();
        self.faults.lose("it was destroyed".to_string());
    }

    /// Whether kernels can be timed.
    pub fn has_timestamps(&self) -> bool {
        self.gpu.features().contains(wgpu::Features::TIMESTAMP_QUERY)
    }

    /// Browsers demand a line that naga refuses, so kernels are stored without it.
    pub(crate) fn shader_prefix(&self) -> &'static str {
        if cfg!(target_arch = "wasm32") && self.needs_subgroups {
            "enable subgroups;\n"
        } else {
            ""
        }
    }

    /// # Errors
    /// What the device reported since it was opened: loss, or a refused operation.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.faults.check()
    }

    /// Makes a buffer, zero at first.
    ///
    /// # Errors
    /// Out of memory, or a size that the device refuses.
    pub(crate) async fn buffer(
        self: &Arc<Self>,
        label: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<OwnedBuffer, Error> {
        let memory = self.gpu.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.gpu.push_error_scope(wgpu::ErrorFilter::Validation);
        let buffer = self.gpu.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes,
            usage,
            mapped_at_creation: false,
        });
        let invalid = validation.pop();
        let exhausted = memory.pop();
        if let Some(error) = invalid.await {
            return Err(Error::Device {
                message: format!("buffer {label} of {bytes} bytes: {error}"),
            });
        }
        if exhausted.await.is_some() {
            return Err(Error::OutOfMemory {
                what: label.to_string(),
                bytes,
            });
        }
        let before = self.allocated.fetch_add(bytes, Ordering::Relaxed);
        self.most_allocated.fetch_max(before + bytes, Ordering::Relaxed);
        Ok(OwnedBuffer {
            buffer,
            device: Arc::clone(self),
        })
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Drop for Device {
    /// Waits for what was submitted, as wgpu does: a program that ends right after must not take the driver away from
    /// under the waiter.
    fn drop(&mut self) {
        self.submitter.join();
        // Nobody else has it now.
        if let Some(waiter) = Arc::get_mut(&mut self.waiter) {
            waiter.join();
        }
    }
}

/// A buffer counted in [`Device::allocated_bytes`] as long as it lives.
pub(crate) struct OwnedBuffer {
    pub(crate) buffer: wgpu::Buffer,
    device: Arc<Device>,
}

impl Drop for OwnedBuffer {
    fn drop(&mut self) {
        self.device.allocated.fetch_sub(self.buffer.size(), Ordering::Relaxed);
    }
}

fn wanted_variants(manifest: &Manifest, options: &DeviceOptions) -> Result<Vec<usize>, Error> {
    let name = options.variant.as_deref();
    let variants = manifest.variants.iter().enumerate();
    let wanted = variants
        .filter(|(_, variant)| name.is_none_or(|name| variant.name == name))
        .map(|(index, _)| index);
    // Among the precise ones, and among the others, the manifest's order holds.
    let short = |index: &usize| options.precise && manifest.variants[*index].features.contains(&Feature::ShaderF16);
    let (last, mut wanted): (Vec<usize>, Vec<usize>) = wanted.partition(short);
    wanted.extend(last);
    match name {
        Some(name) if wanted.is_empty() => Err(Error::UnknownVariant {
            name: name.to_string(),
            available: manifest.variants.iter().map(|v| v.name.clone()).collect(),
        }),
        _ => Ok(wanted),
    }
}
