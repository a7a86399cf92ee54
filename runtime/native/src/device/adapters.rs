//! Which devices there are, and which is tried first.

use super::needs::{self, Missing};
use crate::helper::apart;
use kiln_bundle::{Feature, Variant};

/// What `run-model devices` shows of an adapter.
#[derive(Clone, Debug)]
pub struct AdapterSummary {
    /// Name and interface, e.g. `NVIDIA H100 (Vulkan)`; `--device` looks for its text in this.
    pub name: String,
    /// `discrete GPU`, `integrated GPU`, `virtual GPU`, `software` or `other`.
    pub kind: &'static str,
    pub driver: String,
    /// WebGPU's names of the features that a bundle may ask for.
    pub features: Vec<&'static str>,
    /// Whether kernels can be timed.
    pub timestamps: bool,
    /// Smallest and largest subgroup.
    pub subgroup_sizes: (u32, u32),
    pub limits: wgpu::Limits,
    features_found: wgpu::Features,
}

impl AdapterSummary {
    /// What the adapter lacks for a variant; empty: it runs.
    pub fn missing(&self, variant: &Variant) -> Vec<Missing> {
        needs::missing(variant, self.features_found, &self.limits)
    }
}

/// All adapters, the preferred one first.
pub async fn adapters() -> Vec<AdapterSummary> {
    apart("adapters", enumerate()).await.iter().map(summary).collect()
}

fn summary(adapter: &wgpu::Adapter) -> AdapterSummary {
    let info = adapter.get_info();
    let found = adapter.features();
    let known = [Feature::ShaderF16, Feature::Subgroups].map(|feature| (feature.name(), needs::flag(feature)));
    AdapterSummary {
        name: name(&info),
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete GPU",
            wgpu::DeviceType::IntegratedGpu => "integrated GPU",
            wgpu::DeviceType::VirtualGpu => "virtual GPU",
            wgpu::DeviceType::Cpu => "software",
            wgpu::DeviceType::Other => "other",
        },
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
        features: known
            .iter()
            .filter(|(_, flag)| found.contains(*flag))
            .map(|(name, _)| *name)
            .collect(),
        timestamps: found.contains(wgpu::Features::TIMESTAMP_QUERY),
        subgroup_sizes: (info.subgroup_min_size, info.subgroup_max_size),
        limits: adapter.limits(),
        features_found: found,
    }
}

pub(crate) fn name(info: &wgpu::AdapterInfo) -> String {
    format!("{} ({})", info.name, info.backend)
}

/// Real GPUs first, software last; among equals the driver's order.
pub(crate) async fn enumerate() -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    // No validation layers unless the environment asks for them, in debug builds too.
    descriptor.flags = wgpu::InstanceFlags::empty().with_env();
    let instance = wgpu::Instance::new(descriptor);
    #[cfg(not(target_arch = "wasm32"))]
    return sorted(instance.enumerate_adapters(wgpu::Backends::all()).await);
    #[cfg(target_arch = "wasm32")]
    return instance
        .request_adapter(&wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        })
        .await
        .into_iter()
        .collect();
}

#[cfg(not(target_arch = "wasm32"))]
fn sorted(mut adapters: Vec<wgpu::Adapter>) -> Vec<wgpu::Adapter> {
    adapters.sort_by_key(|adapter| match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    });
    adapters
}
