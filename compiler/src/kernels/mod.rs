//! Kernels: from a [`KernelSpec`], all constants known, to validated and readable WGSL.
//!
//! The plan decides *what* to run and fills in a spec; this module decides how it is written. Equal specs
//! give equal text, so kernels are shared by every place that uses them.

mod activation;
mod attention;
mod attention_join;
mod attention_prefill;
mod attention_split;
mod bank;
pub mod builder;
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
mod rope;
mod rope_cache;
mod route;
mod router;
mod sample;
mod sample_threshold;
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
pub fn build(spec: &KernelSpec, variant: Variant) -> Result<KernelSource, KernelError> {
    match spec {
        KernelSpec::Gather(spec) => gather::build(spec, variant),
        KernelSpec::Norm(spec) => norm::build(spec, variant),
        KernelSpec::Matvec(spec) => matvec::build(spec, variant),
        KernelSpec::Gemm(spec) => gemm::build(spec, variant),
        KernelSpec::Pointwise(spec) => pointwise::build(spec, variant),
        KernelSpec::AttentionSplit(spec) => attention_split::build(spec, variant),
        KernelSpec::AttentionReduce(spec) => attention_join::build(spec, variant),
        KernelSpec::SampleThreshold { vocab } => sample_threshold::build(*vocab, variant),
        KernelSpec::SamplePartial { vocab, groups } => sample::build_partial(*vocab, *groups, variant),
        KernelSpec::SampleFinal { groups, slots } => sample::build_final(*groups, *slots, variant),
        KernelSpec::Rope(spec) => rope::build(spec, variant),
        KernelSpec::CacheWrite(spec) => cache::build(spec, variant),
        KernelSpec::RopeCache(spec) => rope_cache::build(spec, variant),
        KernelSpec::AttentionPrefill(spec) => attention_prefill::build(spec, variant),
        KernelSpec::Convolution(spec) => convolution::build(spec, variant),
        KernelSpec::ConvolutionState(spec) => convolution::build_state(spec, variant),
        KernelSpec::GatedDelta(spec) => gated_delta::build(spec, variant),
        KernelSpec::Route(spec) => route::build(spec, variant),
        KernelSpec::Router(spec) => router::build(spec, variant),
        KernelSpec::ExpertUp(spec) => expert_up::build(spec, variant),
        KernelSpec::ExpertDown(spec) => expert_down::build(spec, variant),
        KernelSpec::Combine(spec) => combine::build(spec, variant),
        KernelSpec::Group(spec) => group::build(spec, variant),
        KernelSpec::GroupedUp(spec) => grouped::build_up(spec, variant),
        KernelSpec::GroupedDown(spec) => grouped::build_down(spec, variant),
        KernelSpec::DenseDown(spec) => dense::build(spec, variant),
    }
}
