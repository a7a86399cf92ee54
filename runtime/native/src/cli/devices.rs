use std::io::Write;
use std::process::ExitCode;

use super::args::DevicesArgs;
use super::open;
use crate::{AdapterSummary, Missing};
use kiln_bundle::Variant;

pub(super) async fn run(args: DevicesArgs) -> anyhow::Result<ExitCode> {
    let adapters = crate::adapters().await;
    if adapters.is_empty() {
        return Err(crate::Error::NoAdapter {
            wanted: None,
            available: Vec::new(),
        }
        .into());
    }
    let variants = match &args.bundle {
        Some(folder) => open::bundle(folder).await?.manifest().variants.clone(),
        None => Vec::new(),
    };
    let mut out = std::io::stdout().lock();
    for adapter in &adapters {
        show(&mut out, adapter)?;
        for variant in &variants {
            fits(&mut out, adapter, variant)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(out: &mut impl Write, adapter: &AdapterSummary) -> std::io::Result<()> {
    let limits = &adapter.limits;
    let mut features = adapter.features.clone();
    if adapter.timestamps {
        features.push("timestamp-query");
    }
    writeln!(out, "{} - {}, {}", adapter.name, adapter.kind, adapter.driver)?;
    writeln!(out, "  features: {}", features.join(", "))?;
    let (smallest, largest) = adapter.subgroup_sizes;
    writeln!(out, "  subgroup sizes: {smallest} to {largest}")?;
    let rows: [(&str, u64); 6] = [
        (
            "maxStorageBuffersPerShaderStage",
            limits.max_storage_buffers_per_shader_stage.into(),
        ),
        ("maxStorageBufferBindingSize", limits.max_storage_buffer_binding_size),
        ("maxBufferSize", limits.max_buffer_size),
        (
            "maxComputeInvocationsPerWorkgroup",
            limits.max_compute_invocations_per_workgroup.into(),
        ),
        (
            "maxComputeWorkgroupStorageSize",
            limits.max_compute_workgroup_storage_size.into(),
        ),
        (
            "maxComputeWorkgroupsPerDimension",
            limits.max_compute_workgroups_per_dimension.into(),
        ),
    ];
    for (name, value) in rows {
        writeln!(out, "  {name}: {value}")?;
    }
    Ok(())
}

fn fits(out: &mut impl Write, adapter: &AdapterSummary, variant: &Variant) -> std::io::Result<()> {
    let missing = adapter.missing(variant);
    if missing.is_empty() {
        return writeln!(out, "  variant {}: runs", variant.name);
    }
    let missing: Vec<String> = missing.iter().map(Missing::to_string).collect();
    writeln!(out, "  variant {}: lacks {}", variant.name, missing.join(", "))
}
