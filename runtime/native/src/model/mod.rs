//! A bundle on a device: kernels compiled, weights uploaded. Sessions share it.

mod check;
mod compiling;
mod kernels;
mod layout;
mod load;
mod memory;
mod trust;
mod weights;

use std::sync::Arc;

use kiln_bundle::{Manifest, Variant};

use crate::Device;
use crate::device::OwnedBuffer;
pub(crate) use check::check_manifest;
pub(crate) use kernels::CompiledKernel;
pub(crate) use layout::buffer_bytes;
pub use load::{LoadOptions, LoadProgress, LoadReport, OnProgress};
pub use memory::MemoryPlan;
pub use trust::{KernelChecks, Trust};

/// A bundle on a device: its kernels compiled, its weights uploaded. [`Session`](crate::Session)s share it.
pub struct Model {
    pub(crate) device: Arc<Device>,
    pub(crate) kernels: Vec<CompiledKernel>,
    /// One for each buffer of the variant: weights and arenas; `None` for what belongs to a session.
    pub(crate) shared: Vec<Option<Arc<OwnedBuffer>>>,
    manifest: Arc<Manifest>,
    checks: KernelChecks,
    report: LoadReport,
}

impl Model {
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The variant that runs.
    pub fn variant(&self) -> &Variant {
        &self.manifest.variants[self.device.variant()]
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Tells this compilation of the model from all others: SHA-256 of the manifest, which has the checksums of weights
    /// and kernels.
    pub fn fingerprint(&self) -> String {
        kiln_bundle::sha256_hex(self.manifest.to_json().as_bytes())
    }

    /// Whether the kernels run with bounds checks, and why.
    pub fn kernel_checks(&self) -> &KernelChecks {
        &self.checks
    }

    /// Device memory of the model with one session of `context` positions.
    pub fn memory_plan(&self, context: u32) -> MemoryPlan {
        MemoryPlan::new(&self.manifest, self.variant(), context)
    }

    pub fn load_report(&self) -> LoadReport {
        self.report
    }
}
