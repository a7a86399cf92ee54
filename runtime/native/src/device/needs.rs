//! What a variant needs, held against what an adapter has.

use std::fmt;

use kiln_bundle::{Feature, Limits, Variant};

/// One thing that an adapter lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// WebGPU's name of a feature.
    Feature(&'static str),
    /// WebGPU's name of a limit.
    Limit {
        name: &'static str,
        needed: u64,
        found: u64,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Feature(name) => write!(f, "feature {name} (not found)"),
            Missing::Limit { name, needed, found } => write!(f, "{name} of {needed} (found {found})"),
        }
    }
}

/// wgpu's flag of a feature.
pub(crate) fn flag(feature: Feature) -> wgpu::Features {
    match feature {
        Feature::ShaderF16 => wgpu::Features::SHADER_F16,
        Feature::Subgroups => wgpu::Features::SUBGROUP,
    }
}

/// Features as wgpu's flags.
pub(crate) fn flags(features: &[Feature]) -> wgpu::Features {
    let flags = features.iter().map(|&wanted| flag(wanted));
    flags.fold(wgpu::Features::empty(), |all, flag| all | flag)
}

/// Name, needed and found of each limit that a bundle states.
pub(crate) fn limits(needed: &Limits, found: &wgpu::Limits) -> [(&'static str, u64, u64); 6] {
    [
        (
            "maxStorageBuffersPerShaderStage",
            needed.max_storage_buffers_per_shader_stage.into(),
            found.max_storage_buffers_per_shader_stage.into(),
        ),
        (
            "maxStorageBufferBindingSize",
            needed.max_storage_buffer_binding_size,
            found.max_storage_buffer_binding_size,
        ),
        ("maxBufferSize", needed.max_buffer_size, found.max_buffer_size),
        (
            "maxComputeInvocationsPerWorkgroup",
            needed.max_compute_invocations_per_workgroup.into(),
            found.max_compute_invocations_per_workgroup.into(),
        ),
        (
            "maxComputeWorkgroupStorageSize",
            needed.max_compute_workgroup_storage_size.into(),
            found.max_compute_workgroup_storage_size.into(),
        ),
        (
            "maxComputeWorkgroupsPerDimension",
            needed.max_compute_workgroups_per_dimension.into(),
            found.max_compute_workgroups_per_dimension.into(),
        ),
    ]
}

/// What the variant needs and the adapter lacks; empty: it runs.
pub(crate) fn missing(variant: &Variant, features: wgpu::Features, found: &wgpu::Limits) -> Vec<Missing> {
    let lacking = variant.features.iter().map(|&wanted| (wanted.name(), flag(wanted)));
    let lacking = lacking.filter(|(_, flag)| !features.contains(*flag));
    let short = limits(&variant.limits, found).into_iter();
    let short = short.filter(|(_, needed, found)| needed > found);
    lacking
        .map(|(name, _)| Missing::Feature(name))
        .chain(short.map(|(name, needed, found)| Missing::Limit { name, needed, found }))
        .collect()
}

/// The limits to open the device with: WebGPU's defaults (or what the adapter has, if less), raised to what the
/// variant needs. The two sizes of buffers are the adapter's, for a session's context is chosen later.
pub(crate) fn request(variant: &Variant, adapter: &wgpu::Limits) -> wgpu::Limits {
    let needed = &variant.limits;
    let base = wgpu::Limits::defaults().or_worse_values_from(adapter);
    // A workgroup may be as long in x as it is large.
    let invocations = needed
        .max_compute_invocations_per_workgroup
        .max(base.max_compute_invocations_per_workgroup);
    wgpu::Limits {
        max_storage_buffers_per_shader_stage: needed
            .max_storage_buffers_per_shader_stage
            .max(base.max_storage_buffers_per_shader_stage),
        max_storage_buffer_binding_size: adapter.max_storage_buffer_binding_size,
        max_buffer_size: adapter.max_buffer_size,
        max_compute_invocations_per_workgroup: invocations,
        max_compute_workgroup_size_x: invocations.min(adapter.max_compute_workgroup_size_x),
        max_compute_workgroup_storage_size: needed
            .max_compute_workgroup_storage_size
            .max(base.max_compute_workgroup_storage_size),
        max_compute_workgroups_per_dimension: needed
            .max_compute_workgroups_per_dimension
            .max(base.max_compute_workgroups_per_dimension),
        ..base
    }
}

#[cfg(test)]
mod tests {
    use kiln_bundle::Manifest;
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Deserialize)]
    struct Cases {
        manifest: Manifest,
        fit: Vec<Case>,
    }

    /// The tests of the JavaScript package read them as well.
    #[derive(Deserialize)]
    struct Case {
        what: String,
        adapter: Adapter,
        missing: Vec<Vec<Value>>,
    }

    #[derive(Deserialize)]
    struct Adapter {
        features: Vec<String>,
        limits: Limits,
    }

    #[test]
    fn what_an_adapter_lacks_is_named() {
        let cases: Cases = serde_json::from_str(include_str!("../../../cases/fit.json")).unwrap();
        assert!(!cases.fit.is_empty());
        for case in cases.fit {
            let known = [Feature::ShaderF16, Feature::Subgroups];
            let features = known
                .into_iter()
                .filter(|feature| case.adapter.features.iter().any(|name| name == feature.name()));
            let limits = case.adapter.limits;
            let found = wgpu::Limits {
                max_storage_buffers_per_shader_stage: limits.max_storage_buffers_per_shader_stage,
                max_storage_buffer_binding_size: limits.max_storage_buffer_binding_size,
                max_buffer_size: limits.max_buffer_size,
                max_compute_invocations_per_workgroup: limits.max_compute_invocations_per_workgroup,
                max_compute_workgroup_storage_size: limits.max_compute_workgroup_storage_size,
                max_compute_workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
                ..wgpu::Limits::defaults()
            };
            let features = flags(&features.collect::<Vec<_>>());
            for variant in &cases.manifest.variants {
                let missing = missing(variant, features, &found)
                    .into_iter()
                    .map(|missing| match missing {
                        Missing::Feature(name) => vec![json!(variant.name), json!(name)],
                        Missing::Limit { name, needed, found } => {
                            vec![json!(variant.name), json!(name), json!(needed), json!(found)]
                        }
                    });
                // wgpu's WGSL is not a browser's.
                let is_language = |name: &Value| variant.language_features.iter().any(|feature| name == feature);
                let expected = case
                    .missing
                    .iter()
                    .filter(|missing| missing[0] == variant.name.as_str() && !is_language(&missing[1]));
                assert_eq!(
                    missing.collect::<Vec<_>>(),
                    expected.cloned().collect::<Vec<_>>(),
                    "{}",
                    case.what
                );
            }
        }
    }
}
