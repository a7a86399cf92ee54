//! Kernels: from a [`KernelSpec`], all constants known, to validated and readable WGSL.
//!
//! The plan decides *what* to run and fills in a spec; this module decides how it is written. Equal specs
//! give equal text, so kernels are shared by every place that uses them.

pub mod builder;
mod grid;
mod names;
mod norm;
mod spec;

pub use builder::{KernelError, KernelSource};
pub use spec::*;

/// Writes the kernel that `spec` asks for.
///
/// # Errors
/// The spec asks for something that the family does not do, or passes a limit of the `base` profile.
pub fn build(spec: &KernelSpec, variant: Variant) -> Result<KernelSource, KernelError> {
    match spec {
        KernelSpec::Norm(spec) => norm::build(spec, variant),
        other => Err(KernelError::Unsupported {
            kernel: "?".to_string(),
            what: format!("no generator for {other:?} yet"),
        }),
    }
}
