//! Kernels that use optional features, and bounds checks.

mod common;

use common::{Toy, reference, variant};
use kiln_bundle::Feature;
use kiln_require::{Requirement, skip};
use kiln_runtime::{DeviceOptions, Error, GenerateOptions, LoadOptions, Session, block_on};

/// `emit` through 16-bit floats (exact for the toy's small integers) and a subgroup operation.
const EMIT: &str = "enable f16;

@group(0) @binding(0) var<storage, read> mixed: array<f32>;
@group(0) @binding(1) var<storage, read_write> hidden: array<f32>;

@compute @workgroup_size(8)
fn emit(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let value = f16(mixed[group.x * 2u + (lane & 1u)]);
    let state = subgroupMax(select(0h, value, (lane & 1u) == 0u));
    if lane == 0u {
        hidden[group.x * 2u] = f32(state);
    }
    if lane == 1u {
        hidden[group.x * 2u + 1u] = f32(value);
    }
}
";

fn generate(session: &mut Session, ids: &[u32], count: u32) -> Vec<u32> {
    block_on(async {
        session.feed(ids).await.unwrap();
        let options = GenerateOptions {
            max_tokens: count,
            ..GenerateOptions::default()
        };
        let mut generation = session.generate(options).unwrap();
        let mut found = Vec::new();
        while let Some(id) = generation.next().await.unwrap() {
            found.push(id);
        }
        found
    })
}

#[test]
fn f16_and_subgroups_run_where_the_device_has_them() {
    let mut toy = Toy::with(|manifest| {
        let kernels = manifest.variants[0].kernels.clone();
        let mut f16 = variant("f16", vec![Feature::ShaderF16, Feature::Subgroups]);
        f16.kernels = kernels;
        manifest.variants = vec![f16];
    });
    toy.set_kernel("emit", EMIT);
    toy.save();
    let ids = [3, 1, 4, 1, 5];
    match toy.load() {
        Ok(model) => {
            let mut session = block_on(Session::new(model.into(), None)).unwrap();
            assert_eq!(generate(&mut session, &ids, 9), reference::generate(&ids, 9));
        }
        Err(Error::Unsupported { adapter, missing }) => {
            skip(Requirement::Gpu, format!("{adapter} lacks {missing:?}"));
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_kernel_may_not_use_a_feature_that_its_variant_does_not_list() {
    let mut toy = Toy::new();
    toy.set_kernel("emit", EMIT);
    toy.save();
    assert!(matches!(toy.load().err(), Some(Error::Kernel { kernel, .. }) if kernel == "emit"));
}

#[test]
fn bounds_checks_change_nothing_in_correct_kernels_and_tame_wrong_ones() {
    let checked = || LoadOptions {
        checked_shaders: true,
        ..LoadOptions::default()
    };
    let mut toy = Toy::new();
    let ids = [2, 7, 1, 8];
    let model = toy.load_with(&DeviceOptions::default(), checked()).unwrap();
    let mut session = block_on(Session::new(model.into(), None)).unwrap();
    assert_eq!(generate(&mut session, &ids, 9), reference::generate(&ids, 9));

    let text = std::fs::read_to_string(toy.file("kernels/remember.wgsl")).unwrap();
    let beyond = text.replace("cache[position]", "cache[position + (1u << 28u)]");
    assert_ne!(text, beyond);
    toy.set_kernel("remember", &beyond);
    toy.save();
    let model = toy.load_with(&DeviceOptions::default(), checked()).unwrap();
    let mut session = block_on(Session::new(model.into(), None)).unwrap();
    assert_eq!(generate(&mut session, &ids, 3).len(), 3);
}
