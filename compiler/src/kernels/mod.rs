//! Kernels: from a [`KernelSpec`], all constants known, to validated and readable WGSL.
//!
//! The plan decides *what* to run and fills in a spec; this module decides how it is written. Equal specs
//! give equal text, so kernels are shared by every place that uses them.

mod spec;

pub use spec::*;
