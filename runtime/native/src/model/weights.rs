//! Weight shards, streamed to the device piece by piece: host memory stays at a few pieces whatever the model.

use std::sync::Arc;
use std::time::Duration;

use kiln_bundle::{BufferKind, Manifest, Shard, Variant, hex};
use sha2::{Digest, Sha256};

use super::{LoadOptions, LoadProgress};
use crate::clock::Stopwatch;
use crate::device::{Fence, OwnedBuffer};
use crate::{Bundle, BundleSource, Device, Error};

/// Bytes read and uploaded at once; a multiple of 4.
const PIECE: usize = 1 << 20;
/// Pieces handed to the device before it must have copied those before them.
const PIECES_IN_FLIGHT: usize = 4;

/// A range of a shard and the buffer that it fills.
struct Target<'a> {
    start: u64,
    end: u64,
    buffer: &'a wgpu::Buffer,
}

pub(super) struct Upload<'a, S> {
    pub(super) device: &'a Device,
    pub(super) bundle: &'a Bundle<S>,
    pub(super) variant: &'a Variant,
    /// The buffers of the variant; those of weights are set.
    pub(super) buffers: &'a [Option<Arc<OwnedBuffer>>],
}

impl<S: BundleSource> Upload<'_, S> {
    pub(super) async fn run(&self, options: &mut LoadOptions<'_>) -> Result<Duration, Error> {
        let watch = Stopwatch::start();
        let manifest = self.bundle.manifest();
        let total = manifest
            .shards
            .iter()
            .map(|shard| shard.bytes)
            .fold(0, u64::saturating_add);
        let mut done = 0;
        let mut piece = vec![0; PIECE];
        let mut pace = Pace::default();
        for (index, shard) in manifest.shards.iter().enumerate() {
            let targets = self.targets(index);
            self.check_size(shard).await?;
            let mut digest = options.verify_checksums.then(Sha256::new);
            let mut offset = 0;
            while offset < shard.bytes {
                options.cancel.check()?;
                let bytes = &mut piece[..(shard.bytes - offset).min(PIECE as u64) as usize];
                self.read(shard, offset, bytes).await?;
                if let Some(digest) = &mut digest {
                    digest.update(&*bytes);
                }
                self.write(&targets, offset, bytes);
                pace.submit(self.device).await?;
                offset += bytes.len() as u64;
                done += bytes.len() as u64;
                if let Some(progress) = &mut options.progress {
                    progress(LoadProgress { done, total });
                }
            }
            if let Some(digest) = digest {
                check_digest(shard, hex(&digest.finalize()))?;
            }
        }
        self.device.submit(None).wait(self.device).await?;
        Ok(watch.elapsed())
    }

    /// The weights of a shard, each once.
    fn targets(&self, shard: usize) -> Vec<Target<'_>> {
        let manifest = self.bundle.manifest();
        let mut seen = vec![false; manifest.weights.len()];
        let mut targets = Vec::new();
        for (buffer, allocated) in self.variant.buffers.iter().zip(self.buffers) {
            let (BufferKind::Weight { weight }, Some(allocated)) = (&buffer.kind, allocated) else {
                continue;
            };
            let tensor = &manifest.weights[*weight as usize];
            if tensor.shard as usize == shard && !std::mem::replace(&mut seen[*weight as usize], true) {
                targets.push(Target {
                    start: tensor.offset,
                    end: tensor.offset + tensor.bytes,
                    buffer: &allocated.buffer,
                });
            }
        }
        targets
    }

    async fn check_size(&self, shard: &Shard) -> Result<(), Error> {
        let size = self.bundle.source().size(&shard.file).await;
        let found = size.map_err(|source| Error::Read {
            file: shard.file.clone(),
            source,
        })?;
        if found != shard.bytes {
            return Err(Error::FileSize {
                file: shard.file.clone(),
                expected: shard.bytes,
                found,
            });
        }
        Ok(())
    }

    async fn read(&self, shard: &Shard, offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let read = self.bundle.source().read(&shard.file, offset, bytes).await;
        read.map_err(|source| Error::Read {
            file: shard.file.clone(),
            source,
        })
    }

    /// Copies what of the piece at `offset` belongs to weights.
    fn write(&self, targets: &[Target<'_>], offset: u64, piece: &[u8]) {
        let end = offset + piece.len() as u64;
        for target in targets {
            let (from, to) = (target.start.max(offset), target.end.min(end));
            if from < to {
                let bytes = &piece[(from - offset) as usize..(to - offset) as usize];
                self.device
                    .queue
                    .write_buffer(target.buffer, from - target.start, bytes);
            }
        }
    }
}

/// Keeps the staging memory of uploads bounded.
#[derive(Default)]
struct Pace {
    pieces: usize,
    before: Option<Fence>,
}

impl Pace {
    async fn submit(&mut self, device: &Device) -> Result<(), Error> {
        self.pieces += 1;
        if self.pieces == PIECES_IN_FLIGHT {
            self.pieces = 0;
            if let Some(before) = self.before.replace(device.submit(None)) {
                before.wait(device).await?;
            }
        }
        Ok(())
    }
}

fn check_digest(shard: &Shard, found: String) -> Result<(), Error> {
    if found == shard.sha256 {
        return Ok(());
    }
    Err(Error::Checksum {
        file: shard.file.clone(),
        expected: shard.sha256.clone(),
        found,
    })
}

/// Bytes of the weights that a variant uses.
pub(super) fn used_bytes(manifest: &Manifest, variant: &Variant) -> u64 {
    let mut used = vec![false; manifest.weights.len()];
    for buffer in &variant.buffers {
        if let BufferKind::Weight { weight } = buffer.kind {
            used[weight as usize] = true;
        }
    }
    let weights = manifest.weights.iter().zip(used);
    let bytes = weights.filter(|(_, used)| *used).map(|(weight, _)| weight.bytes);
    bytes.fold(0, u64::saturating_add)
}
