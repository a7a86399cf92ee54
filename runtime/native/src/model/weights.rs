//! Weight shards, streamed to the device piece by piece: host memory stays at a few pieces whatever the model.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kiln_bundle::{BufferKind, Manifest, Shard, Variant, hex};
use sha2::{Digest, Sha256};

use super::{LoadProgress, OnProgress};
use crate::clock::Stopwatch;
use crate::device::{Fence, OwnedBuffer};
use crate::helper::{Helper, Outcome};
use crate::{Bundle, BundleSource, Device, Error};

/// Bytes read and uploaded at once; a multiple of 4.
const PIECE: usize = 1 << 20;
/// Pieces that are hashed and handed to the device while the next one is read.
const PIECES_BEHIND: usize = 2;
/// Pieces handed to the device before it must have copied those before them.
const PIECES_IN_FLIGHT: usize = 4;

pub(super) struct Upload<'a, S> {
    /// Hashes pieces and hands them to the device.
    pub(super) writer: &'a Helper,
    pub(super) device: &'a Arc<Device>,
    pub(super) bundle: &'a Bundle<S>,
    pub(super) variant: &'a Variant,
    /// The buffers of the variant; those of weights are set.
    pub(super) buffers: &'a [Option<Arc<OwnedBuffer>>],
}

impl<S: BundleSource> Upload<'_, S> {
    pub(super) async fn run(
        &self,
        verify_checksums: bool,
        mut on_progress: Option<&mut OnProgress<'_>>,
    ) -> Result<Duration, Error> {
        let watch = Stopwatch::start();
        let manifest = self.bundle.manifest();
        let total = manifest
            .shards
            .iter()
            .map(|shard| shard.bytes)
            .fold(0, u64::saturating_add);
        let mut done = 0;
        let mut pace = Pace::default();
        for (index, shard) in manifest.shards.iter().enumerate() {
            self.check_size(shard).await?;
            let sink = Arc::new(Mutex::new(Sink {
                device: Arc::clone(self.device),
                targets: self.targets(index),
                digest: verify_checksums.then(Sha256::new),
            }));
            let mut behind = VecDeque::new();
            let mut offset = 0;
            while offset < shard.bytes {
                let mut piece = match behind.len() {
                    PIECES_BEHIND => next(&mut behind).await,
                    _ => Vec::new(),
                };
                piece.resize((shard.bytes - offset).min(PIECE as u64) as usize, 0);
                self.read(shard, offset, &mut piece).await?;
                let bytes = piece.len() as u64;
                let sink = Arc::clone(&sink);
                behind.push_back(self.writer.run(move || {
                    let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
                    sink.take(offset, &piece);
                    piece
                }));
                pace.submit(self.device).await?;
                offset += bytes;
                done += bytes;
                if let Some(on_progress) = &mut on_progress {
                    on_progress(LoadProgress { done, total });
                }
            }
            while !behind.is_empty() {
                next(&mut behind).await;
            }
            let digest = sink.lock().unwrap_or_else(PoisonError::into_inner).digest.take();
            if let Some(digest) = digest {
                check_digest(shard, hex(&digest.finalize()))?;
            }
        }
        self.device.submit(None).wait(self.device).await?;
        Ok(watch.elapsed())
    }

    /// The weights of a shard, each once.
    fn targets(&self, shard: usize) -> Vec<Target> {
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
                    buffer: Arc::clone(allocated),
                });
            }
        }
        targets
    }

    async fn check_size(&self, shard: &Shard) -> Result<(), Error> {
        let size = self.bundle.source().size(&shard.file).await;
        let found = size.map_err(|cause| Error::Read {
            file: shard.file.clone(),
            cause,
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
        read.map_err(|cause| Error::Read {
            file: shard.file.clone(),
            cause,
        })
    }
}

/// Waits for the oldest piece and gives its memory back.
async fn next(behind: &mut VecDeque<Outcome<Vec<u8>>>) -> Vec<u8> {
    match behind.pop_front() {
        Some(oldest) => oldest.wait().await,
        None => Vec::new(),
    }
}

/// A range of a shard and the buffer that it fills.
struct Target {
    start: u64,
    end: u64,
    buffer: Arc<OwnedBuffer>,
}

/// Takes the pieces of one shard in their order.
struct Sink {
    device: Arc<Device>,
    targets: Vec<Target>,
    digest: Option<Sha256>,
}

impl Sink {
    /// Hashes a piece, and copies what of it belongs to weights.
    fn take(&mut self, offset: u64, piece: &[u8]) {
        if let Some(digest) = &mut self.digest {
            digest.update(piece);
        }
        let end = offset + piece.len() as u64;
        for target in &self.targets {
            let (from, to) = (target.start.max(offset), target.end.min(end));
            if from < to {
                let bytes = &piece[(from - offset) as usize..(to - offset) as usize];
                let buffer = &target.buffer.buffer;
                self.device.queue.write_buffer(buffer, from - target.start, bytes);
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
