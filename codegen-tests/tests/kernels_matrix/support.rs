//! Random inputs, comparison, and running a spec in all variants.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use kiln_bundle::StepWord;
pub use kiln_codegen_tests::Random;
use kiln_codegen_tests::{Data, Device, check_with_naga, check_with_tint};
use kiln_compiler::kernels::{Capability, KernelSource, KernelSpec, build};

static DEVICE: LazyLock<Device> = LazyLock::new(Device::software_or_any);

/// A step buffer: `tokens` tokens, row `row` wanted.
pub fn step(tokens: u32, row: u32) -> Data {
    let mut words = [0u32; StepWord::COUNT];
    words[StepWord::Tokens as usize] = tokens;
    words[StepWord::Row as usize] = row;
    (&words).into()
}

/// Builds `spec` in every variant of the device, checks the text, runs it for `tokens` tokens, and compares the last
/// binding with `expected`: every element within `tolerance` of it, relative to the largest expected.
pub fn check(spec: &KernelSpec, buffers: &[Data], tokens: u32, expected: &[f64], tolerance: f64) {
    check_each(spec, buffers, tokens, expected, |_| tolerance);
}

/// As [`check`], with a tolerance for each variant.
pub fn check_each(
    spec: &KernelSpec,
    buffers: &[Data],
    tokens: u32,
    expected: &[f64],
    tolerance: impl Fn(Capability) -> f64,
) {
    run_each(spec, buffers, tokens, |kernel, variant, found: Vec<f32>| {
        assert!(
            found.len() >= expected.len(),
            "{}: {} results",
            kernel.name,
            found.len()
        );
        let scale = expected
            .iter()
            .fold(1e-30f64, |largest, value| largest.max(value.abs()));
        for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            let error = (f64::from(found) - expected).abs() / scale;
            assert!(
                error <= tolerance(variant),
                "{} {variant:?}: element {index} is {found}, expected {expected} (error {error:e})\n{}",
                kernel.name,
                kernel.wgsl
            );
        }
    });
}

/// Builds `spec` in every variant of the device, checks the text, runs it for `tokens` tokens, and gives `look` the
/// last binding. A text that variants share runs once.
pub fn run_each<T: bytemuck::Pod>(
    spec: &KernelSpec,
    buffers: &[Data],
    tokens: u32,
    look: impl Fn(&KernelSource, Capability, Vec<T>),
) {
    let grid = spec.grid().map(|axis| axis.workgroups(tokens));
    let mut texts = BTreeSet::new();
    for variant in DEVICE.variants() {
        let kernel = build(spec, variant).unwrap_or_else(|error| panic!("{error}"));
        if !texts.insert(kernel.wgsl.clone()) {
            continue;
        }
        check_with_naga(&kernel);
        check_with_tint(&kernel);
        let found = DEVICE.run_for_output(&kernel, buffers, grid);
        look(&kernel, variant, found);
    }
}
