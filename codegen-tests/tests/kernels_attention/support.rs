//! Running a spec in all variants.

use std::sync::LazyLock;

use kiln_codegen_tests::{Data, Device, check_with_naga, check_with_tint};
use kiln_compiler::kernels::{CacheType, Capability, KernelSource, KernelSpec, build};

static DEVICE: LazyLock<Device> = LazyLock::new(Device::software_or_any);

/// Builds `spec` in every variant of the device, checks the text, runs it for `tokens` tokens, and gives the bytes
/// of all buffers to `compare`.
pub fn run_each(spec: &KernelSpec, buffers: &[Data], tokens: u32, compare: impl Fn(&KernelSource, &[Vec<u8>])) {
    let grid = spec.grid().map(|axis| axis.workgroups(tokens));
    for variant in DEVICE.variants() {
        if element(spec) == CacheType::F16 && variant < Capability::F16 {
            continue;
        }
        let kernel = checked(spec, variant);
        compare(&kernel, &DEVICE.run(&kernel, buffers, grid));
    }
}

/// As [`run_each`], in one variant and unchecked, for one token; gives the bytes of all buffers.
pub fn run_one(spec: &KernelSpec, variant: Capability, buffers: &[Data]) -> Vec<Vec<u8>> {
    let kernel = build(spec, variant).unwrap_or_else(|error| panic!("{error}"));
    DEVICE.run(&kernel, buffers, spec.grid().map(|axis| axis.workgroups(1)))
}

/// As [`run_each`], in one variant; gives the bytes of all buffers.
pub fn run_step(spec: &KernelSpec, variant: Capability, buffers: &[Data], tokens: u32) -> Vec<Vec<u8>> {
    let grid = spec.grid().map(|axis| axis.workgroups(tokens));
    DEVICE.run(&checked(spec, variant), buffers, grid)
}

/// The variants of the device.
pub fn variants() -> Vec<Capability> {
    DEVICE.variants()
}

fn checked(spec: &KernelSpec, variant: Capability) -> KernelSource {
    let kernel = build(spec, variant).unwrap_or_else(|error| panic!("{error}"));
    check_with_naga(&kernel);
    check_with_tint(&kernel);
    kernel
}

fn element(spec: &KernelSpec) -> CacheType {
    match spec {
        KernelSpec::CacheWrite(spec) => spec.cache.element,
        KernelSpec::RopeCache(spec) => spec.cache.element,
        KernelSpec::AttentionPrefill(spec) => spec.attention.cache.element,
        KernelSpec::AttentionSplit(spec) => spec.attention.cache.element,
        _ => CacheType::F32,
    }
}

/// Every number within `tolerance`, relative to the larger of 1 and the expected one.
pub fn close(kernel: &KernelSource, found: &[f32], expected: &[f64], tolerance: f64) {
    let what = format!("{} {:?}\n{}", kernel.name, kernel.features, kernel.wgsl);
    close_numbers(&what, found, expected, tolerance);
}

/// As [`close`], of `what`.
pub fn close_numbers(what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert!(found.len() >= expected.len(), "{} results of {what}", found.len());
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found) - expected).abs();
        assert!(
            error <= tolerance * expected.abs().max(1.0),
            "{index} is {found}, expected {expected}: {what}"
        );
    }
}

/// The numbers of a buffer.
pub fn numbers(bytes: &[u8]) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(bytes)
}

/// The words of a buffer.
pub fn words(bytes: &[u8]) -> Vec<u32> {
    bytemuck::pod_collect_to_vec(bytes)
}
