//! Kernels: from a [`KernelSpec`], all constants known, to validated and readable WGSL.
//!
//! The plan decides *what* to run and fills in a spec; this module decides how it is written. Equal specs
//! give equal text, so kernels are shared by every place that uses them.

mod activation;
mod adjust;
mod attention;
mod attention_join;
mod attention_prefill;
mod attention_split;
mod bank;
mod builder;
mod cache;
mod choice;
mod combine;
mod convolution;
mod dense;
mod dots;
mod epilogue;
mod expert_down;
mod expert_up;
mod gated_delta;
mod gather;
mod gemm;
mod grid;
mod group;
mod grouped;
mod math;
mod matvec;
mod names;
mod norm;
mod pointwise;
mod quads;
mod rope;
mod rope_cache;
mod route;
mod router;
mod sample;
mod sample_threshold;
mod select_row;
mod spec;
mod step;
mod tile;
mod weight;

pub use builder::{KernelError, KernelSource};
pub use spec::*;

/// Writes the kernel that `spec` asks for.
///
/// # Errors
/// The spec asks for something that the family does not do, or passes a limit of the `base` profile.
pub fn build(spec: &KernelSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    match spec {
        KernelSpec::Gather(spec) => gather::build(spec, capability),
        KernelSpec::Norm(spec) => norm::build(spec, capability),
        KernelSpec::Matvec(spec) => matvec::build(spec, capability),
        KernelSpec::Gemm(spec) => gemm::build(spec, capability),
        KernelSpec::Pointwise(spec) => pointwise::build(spec, capability),
        KernelSpec::AttentionSplit(spec) => attention_split::build(spec, capability),
        KernelSpec::AttentionReduce(spec) => attention_join::build(spec, capability),
        KernelSpec::TokenRules => adjust::build_rules(capability),
        KernelSpec::Penalties { groups } => adjust::build_penalties(*groups, capability),
        KernelSpec::RepeatBan { groups } => adjust::build_repeat_ban(*groups, capability),
        KernelSpec::SampleThreshold { vocab } => sample_threshold::build(*vocab, capability),
        KernelSpec::SamplePartial { vocab, groups } => sample::build_partial(*vocab, *groups, capability),
        KernelSpec::SampleFinal { groups, slots } => sample::build_final(*groups, *slots, capability),
        KernelSpec::SelectRow(spec) => select_row::build(spec, capability),
        KernelSpec::Rope(spec) => rope::build(spec, capability),
        KernelSpec::CacheWrite(spec) => cache::build(spec, capability),
        KernelSpec::RopeCache(spec) => rope_cache::build(spec, capability),
        KernelSpec::AttentionPrefill(spec) => attention_prefill::build(spec, capability),
        KernelSpec::Convolution(spec) => convolution::build(spec, capability),
        KernelSpec::ConvolutionState(spec) => convolution::build_state(spec, capability),
        KernelSpec::GatedDelta(spec) => gated_delta::build(spec, capability),
        KernelSpec::Route(spec) => route::build(spec, capability),
        KernelSpec::Router(spec) => router::build(spec, capability),
        KernelSpec::ExpertUp(spec) => expert_up::build(spec, capability),
        KernelSpec::ExpertDown(spec) => expert_down::build(spec, capability),
        KernelSpec::Combine(spec) => combine::build(spec, capability),
        KernelSpec::Group(spec) => group::build(spec, capability),
        KernelSpec::GroupedUp(spec) => grouped::build_up(spec, capability),
        KernelSpec::GroupedDown(spec) => grouped::build_down(spec, capability),
        KernelSpec::DenseDown(spec) => dense::build(spec, capability),
    }
}
