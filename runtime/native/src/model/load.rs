//! Loading: kernels are compiled and weights uploaded side by side; the first error ends both.

use std::sync::Arc;
use std::time::Duration;

use kiln_bundle::{BufferKind, Manifest};

use super::compiling::Compiling;
use super::{CompiledKernel, Model, Trust, check, kernels, weights};
use crate::cancel::Obeyed;
use crate::clock::Stopwatch;
use crate::device::OwnedBuffer;
use crate::helper::{Helper, apart};
use crate::{Bundle, BundleSource, CancelToken, Device, Error};

/// How far the weights are, in bytes; kernels compile beside them.
#[derive(Clone, Copy, Debug)]
pub struct LoadProgress {
    pub done: u64,
    pub total: u64,
}

/// Is told how far the weights are.
#[cfg(not(target_arch = "wasm32"))]
pub type OnProgress<'a> = dyn FnMut(LoadProgress) + Send + 'a;
/// Is told how far the weights are.
#[cfg(target_arch = "wasm32")]
pub type OnProgress<'a> = dyn FnMut(LoadProgress) + 'a;

/// How to load.
pub struct LoadOptions<'a> {
    /// Compare the weight shards with their SHA-256 while they stream by (about 1 s a GB). Kernels always are.
    pub verify_checksums: bool,
    /// Whose kernels run without bounds checks on native devices: a little faster, the results are the same unless a kernel
    /// is wrong or hostile. By default those of bundles that `compile-model` has compiled on this machine.
    pub trust: Trust,
    pub cancel: CancelToken,
    pub progress: Option<&'a mut OnProgress<'a>>,
}

impl Default for LoadOptions<'_> {
    fn default() -> Self {
        Self {
            verify_checksums: true,
            trust: Trust::default(),
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

impl Model {
    /// Compiles the kernels of the device's variant and streams the weights to the device.
    ///
    /// Natively all that takes long happens on other threads, so the executor that polls this stays free for other tasks,
    /// those among them that the bundle's source may wait for. Dropped halfway, the kernels under way are still
    /// compiled to their end in the background.
    ///
    /// # Errors
    /// Damaged or incomplete bundles, kernels that do not compile (told at once, the upload ends then), exhausted device
    /// memory, cancelation.
    pub async fn load<S: BundleSource>(
        device: Device,
        bundle: &Bundle<S>,
        options: LoadOptions<'_>,
    ) -> Result<Self, Error> {
        let watch = Stopwatch::start();
        let cancel = Obeyed::new(options.cancel.clone());
        let manifest = Arc::new(bundle.manifest().clone());
        let device = Arc::new(device);
        let index = device.variant();
        let variant = manifest
            .variants
            .get(index)
            .ok_or_else(|| crate::error::inconsistent("the device was opened for another bundle"))?;
        check::check_variant(&manifest, variant, &device.gpu.limits())?;

        let texts = cancel.unless_canceled(kernels::read(bundle, variant)).await?;
        let allocating = allocate(Arc::clone(&device), Arc::clone(&manifest), index);
        let shared = apart("buffers", allocating).await?;
        let mut report = LoadReport {
            weight_bytes: weights::used_bytes(&manifest, variant),
            ..LoadReport::default()
        };
        let (trust, digest) = (options.trust, bundle.digest());
        let checks = apart("trust", async move { trust.judge(digest) }).await;
        let compiling = Compiling::start(&device, &variant.kernels, texts, checks.are_on());
        let writer = Helper::start("weights");
        let upload = weights::Upload {
            writer: &writer,
            device: &device,
            bundle,
            variant,
            buffers: &shared,
        };
        let uploading = upload.run(options.verify_checksums, options.progress);
        let both = cancel.unless_canceled(run_both(&compiling, uploading)).await;
        // No thread is left in the driver, whatever came of it.
        compiling.stop().await;
        writer.run(|| ()).wait().await;
        let ((kernels, pipelines), weights) = both?;
        (report.pipelines, report.weights) = (pipelines, weights);
        device.check()?;
        report.total = watch.elapsed();
        Ok(Self {
            device,
            kernels,
            shared,
            manifest,
            checks,
            report,
        })
    }
}

type Compiled = (Vec<CompiledKernel>, Duration);

/// Waits for the kernels and the weights, or for the first error among both.
#[cfg(not(target_arch = "wasm32"))]
async fn run_both(
    compiling: &Compiling,
    uploading: impl Future<Output = Result<Duration, Error>>,
) -> Result<(Compiled, Duration), Error> {
    use std::pin::pin;
    use std::task::Poll;

    let (mut compiling, mut uploading) = (pin!(compiling.wait()), pin!(uploading));
    let (mut compiled, mut uploaded) = (None, None);
    std::future::poll_fn(move |context| {
        if compiled.is_none()
            && let Poll::Ready(outcome) = compiling.as_mut().poll(context)
        {
            compiled = Some(outcome?);
        }
        if uploaded.is_none()
            && let Poll::Ready(outcome) = uploading.as_mut().poll(context)
        {
            uploaded = Some(outcome?);
        }
        match (compiled.take(), uploaded.take()) {
            (Some(compiled), Some(uploaded)) => Poll::Ready(Ok((compiled, uploaded))),
            (one, other) => {
                (compiled, uploaded) = (one, other);
                Poll::Pending
            }
        }
    })
    .await
}

/// There, another variant may be tried: nothing is downloaded for one that does not compile.
#[cfg(target_arch = "wasm32")]
async fn run_both(
    compiling: &Compiling,
    uploading: impl Future<Output = Result<Duration, Error>>,
) -> Result<(Compiled, Duration), Error> {
    Ok((compiling.wait().await?, uploading.await?))
}

/// Weights and arenas. A weight that several buffers name is uploaded once.
async fn allocate(
    device: Arc<Device>,
    manifest: Arc<Manifest>,
    variant: usize,
) -> Result<Vec<Option<Arc<OwnedBuffer>>>, Error> {
    let variant = &manifest.variants[variant];
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
