//! A bundle on a device: kernels compiled, weights uploaded. Sessions share it.

mod check;
mod kernels;
mod layout;
mod memory;
mod weights;

use std::sync::Arc;
use std::time::Duration;

use kiln_bundle::{BufferKind, Manifest, Variant};

use crate::clock::Stopwatch;
use crate::device::OwnedBuffer;
use crate::{Bundle, BundleSource, CancelToken, Device, Error};
pub(crate) use check::check_manifest;
pub(crate) use kernels::CompiledKernel;
pub(crate) use layout::buffer_bytes;
pub use memory::MemoryPlan;

/// How far the weights are, in bytes; kernels compile beside them.
#[derive(Clone, Copy, Debug)]
pub struct LoadProgress {
    pub done: u64,
    pub total: u64,
}

/// How to load.
pub struct LoadOptions<'a> {
    /// Compare the weight shards with their SHA-256 while they stream by (about 1 s a GB). Kernels always are.
    pub verify_checksums: bool,
    /// Compile the kernels with wgpu's checks of array indices. Slower; the results are the same unless a kernel
    /// is wrong.
    pub checked_shaders: bool,
    pub cancel: CancelToken,
    pub progress: Option<&'a mut dyn FnMut(LoadProgress)>,
}

impl Default for LoadOptions<'_> {
    fn default() -> Self {
        Self {
            verify_checksums: true,
            checked_shaders: false,
            cancel: CancelToken::new(),
            progress: None,
        }
    }
}

/// How long loading took.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadReport {
    pub total: Duration,
    /// Compiling kernels to pipelines; runs beside the upload.
    pub pipelines: Duration,
    /// Reading, checking and uploading weights.
    pub weights: Duration,
    pub weight_bytes: u64,
}

/// See the module.
pub struct Model {
    pub(crate) device: Arc<Device>,
    pub(crate) kernels: Vec<CompiledKernel>,
    /// One for each buffer of the variant: weights and arenas; `None` for what belongs to a session.
    pub(crate) shared: Vec<Option<Arc<OwnedBuffer>>>,
    manifest: Manifest,
    report: LoadReport,
}

impl Model {
    /// Compiles the kernels of the device's variant and streams the weights to the device.
    ///
    /// # Errors
    /// Damaged or incomplete bundles, kernels that do not compile, exhausted device memory, cancelation.
    pub async fn load<S: BundleSource>(
        device: Device,
        bundle: &Bundle<S>,
        mut options: LoadOptions<'_>,
    ) -> Result<Self, Error> {
        let watch = Stopwatch::start();
        let manifest = bundle.manifest().clone();
        let device = Arc::new(device);
        let variant = manifest
            .variants
            .get(device.variant())
            .ok_or_else(|| crate::error::inconsistent("the device was opened for another bundle"))?;
        let limits = device.gpu.limits();
        check::check_variant(&manifest, variant, &limits)?;

        let kernels = kernels::read(bundle, variant).await?;
        let shared = allocate(&device, &manifest, variant).await?;
        let mut report = LoadReport {
            weight_bytes: weights::used_bytes(&manifest, variant),
            ..LoadReport::default()
        };
        let compile = kernels::Compile {
            device: &device,
            variant,
            sources: &kernels,
            checked: options.checked_shaders,
        };
        let upload = weights::Upload {
            device: &device,
            bundle,
            variant,
            buffers: &shared,
        };
        let ((kernels, pipelines), weights) = run_both(compile, upload, &mut options).await;
        (report.pipelines, report.weights) = (pipelines, weights?);
        let kernels = kernels?;
        device.check()?;
        report.total = watch.elapsed();
        Ok(Self {
            device,
            kernels,
            shared,
            manifest,
            report,
        })
    }

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

    /// Device memory of the model with one session of `context` positions.
    pub fn memory_plan(&self, context: u32) -> MemoryPlan {
        MemoryPlan::new(&self.manifest, self.variant(), context)
    }

    pub fn load_report(&self) -> LoadReport {
        self.report
    }
}

type Compiled = (Result<Vec<CompiledKernel>, Error>, Duration);

/// Compiles on other threads while this one uploads.
#[cfg(not(target_arch = "wasm32"))]
async fn run_both<S: BundleSource>(
    compile: kernels::Compile<'_>,
    upload: weights::Upload<'_, S>,
    options: &mut LoadOptions<'_>,
) -> (Compiled, Result<Duration, Error>) {
    std::thread::scope(|scope| {
        let compiling = scope.spawn(move || compile.run_parallel());
        let uploaded = pollster::block_on(upload.run(options));
        let compiled = compiling.join();
        (
            compiled.unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            uploaded,
        )
    })
}

#[cfg(target_arch = "wasm32")]
async fn run_both<S: BundleSource>(
    compile: kernels::Compile<'_>,
    upload: weights::Upload<'_, S>,
    options: &mut LoadOptions<'_>,
) -> (Compiled, Result<Duration, Error>) {
    let compiled = compile.run().await;
    // There, another variant may be tried: nothing is downloaded for one that does not compile.
    let uploaded = match compiled.0 {
        Ok(_) => upload.run(options).await,
        Err(_) => Ok(Duration::ZERO),
    };
    (compiled, uploaded)
}

/// Weights and arenas. A weight that several buffers name is uploaded once.
async fn allocate(
    device: &Arc<Device>,
    manifest: &Manifest,
    variant: &Variant,
) -> Result<Vec<Option<Arc<OwnedBuffer>>>, Error> {
    let mut weights: Vec<Option<Arc<OwnedBuffer>>> = vec![None; manifest.weights.len()];
    let mut shared = Vec::with_capacity(variant.buffers.len());
    for buffer in &variant.buffers {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        shared.push(match buffer.kind {
            BufferKind::Weight { weight } => {
                let slot = &mut weights[weight as usize];
                if slot.is_none() {
                    let bytes = manifest.weights[weight as usize].bytes;
                    *slot = Some(device.buffer(&buffer.name, bytes, usage).await?.into());
                }
                slot.clone()
            }
            BufferKind::Arena { bytes } => Some(device.buffer(&buffer.name, bytes, usage).await?.into()),
            _ => None,
        });
    }
    Ok(shared)
}
