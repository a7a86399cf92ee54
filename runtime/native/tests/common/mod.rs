//! A toy bundle, written by hand, and the same model in plain Rust.
//!
//! The model's next token depends on every token before it through a growing state, and on the last 4 through a
//! ring: mistakes in positions, chunking, rewinding or running ahead change what it says.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_bundle::{
    Access, Binding, Buffer, BufferKind, Dispatch, FORMAT_VERSION, Feature, Grid, Kernel, Limits, MANIFEST_FILE,
    Manifest, Model as Facts, Programs, SelfTest, Shard, Variant, WeightTensor, sha256_hex,
};
use kiln_runtime::{Bundle, Device, DeviceOptions, DirectorySource, Error, LoadOptions, Model, Session, block_on};

pub const VOCAB: u32 = 17;
pub const CHUNK: u32 = 4;
pub const MAX_CONTEXT: u32 = 40;

/// The model in plain Rust.
pub mod reference {
    use super::VOCAB;

    /// A permutation of the vocabulary: the model's only weight.
    pub fn table() -> Vec<f32> {
        (0..VOCAB).map(|id| (id * 5 % VOCAB) as f32).collect()
    }

    fn hidden(ids: &[u32]) -> u32 {
        let all: u32 = (1..).zip(ids).map(|(weight, id)| weight * id).sum();
        let window: u32 = (0u32..4)
            .zip(ids.iter().rev())
            .map(|(back, id)| (back * back + 3) * id)
            .sum();
        (all + window) % VOCAB
    }

    fn logits_of(hidden: u32, ids: &[u32]) -> Vec<f32> {
        let position = ids.len() as f32 - 1.0;
        table()
            .iter()
            .map(|place| -(place - hidden as f32).abs() + position * 0.25)
            .collect()
    }

    fn continuation(hidden: impl Fn(&[u32]) -> u32, ids: &[u32], count: usize) -> Vec<u32> {
        let mut all = ids.to_vec();
        for _ in 0..count {
            let target = hidden(&all) as f32;
            let next = table().iter().position(|place| *place == target).unwrap();
            all.push(next as u32);
        }
        all[ids.len()..].to_vec()
    }

    /// Logits after the last of `ids`.
    pub fn logits(ids: &[u32]) -> Vec<f32> {
        logits_of(hidden(ids), ids)
    }

    /// The greedy continuation.
    pub fn generate(ids: &[u32], count: usize) -> Vec<u32> {
        continuation(hidden, ids, count)
    }

    /// The greedy continuation where the logits of all tokens that occurred are lower by `penalty`.
    pub fn generate_with_penalty(ids: &[u32], count: usize, penalty: f32) -> Vec<u32> {
        let mut all = ids.to_vec();
        for _ in 0..count {
            let mut logits = logits(&all);
            for id in 0..VOCAB {
                if all.contains(&id) {
                    logits[id as usize] -= penalty;
                }
            }
            let best = logits.iter().copied().fold(f32::MIN, f32::max);
            all.push(logits.iter().position(|logit| *logit == best).unwrap() as u32);
        }
        all[ids.len()..].to_vec()
    }

    /// The model of [`super::Toy::recurrent`].
    pub mod recurrent {
        use super::VOCAB;

        fn hidden(ids: &[u32]) -> u32 {
            let hash = |hash: u32, id: &u32| hash.wrapping_mul(31).wrapping_add(id + 1);
            (super::hidden(ids) + ids.iter().fold(0, hash) % VOCAB) % VOCAB
        }

        pub fn logits(ids: &[u32]) -> Vec<f32> {
            super::logits_of(hidden(ids), ids)
        }

        pub fn generate(ids: &[u32], count: usize) -> Vec<u32> {
            super::continuation(hidden, ids, count)
        }
    }
}

/// A folder with the toy bundle.
pub struct Toy {
    pub folder: tempfile::TempDir,
    pub manifest: Manifest,
}

impl Toy {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("kernels")).unwrap();
        let shard = write_shard(folder.path());
        let mut toy = Self {
            manifest: manifest(shard),
            folder,
        };
        for kernel in toy.manifest.variants[0].kernels.clone() {
            toy.set_kernel(&kernel.name, &kernel_text(&kernel.name));
        }
        toy.save();
        toy
    }

    /// The toy with a state, besides, that sums up all tokens.
    pub fn recurrent(max_context: u32) -> Self {
        let mut toy = Self::new();
        toy.manifest.model.max_context = max_context;
        make_recurrent(&mut toy.manifest.variants[0]);
        for name in ["accumulate", "mix_sums"] {
            toy.set_kernel(name, &kernel_text(name));
        }
        toy.save();
        toy
    }

    /// The toy with one thing of its manifest changed.
    pub fn with(change: impl FnOnce(&mut Manifest)) -> Self {
        let mut toy = Self::new();
        change(&mut toy.manifest);
        toy.save();
        toy
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn save(&self) {
        std::fs::write(self.file(MANIFEST_FILE), self.manifest.to_json()).unwrap();
    }

    /// Replaces a kernel's text and its checksum in every variant (call [`Toy::save`] after).
    pub fn set_kernel(&mut self, name: &str, text: &str) {
        for kernel in self
            .manifest
            .variants
            .iter_mut()
            .flat_map(|variant| &mut variant.kernels)
        {
            if kernel.name == name {
                std::fs::write(self.folder.path().join(&kernel.file), text).unwrap();
                kernel.sha256 = sha256_hex(text.as_bytes());
            }
        }
    }

    pub fn open(&self) -> Result<Bundle<DirectorySource>, Error> {
        block_on(Bundle::open(DirectorySource::new(self.path())))
    }

    pub fn load(&self) -> Result<Model, Error> {
        self.load_with(&DeviceOptions::default(), LoadOptions::default())
    }

    pub fn load_with(&self, device: &DeviceOptions, load: LoadOptions<'_>) -> Result<Model, Error> {
        let bundle = self.open()?;
        block_on(async {
            let device = Device::open(bundle.manifest(), device).await?;
            Model::load(device, &bundle, load).await
        })
    }

    pub fn session(&self, context: u32) -> Session {
        let model = Arc::new(self.load().unwrap());
        block_on(Session::new(model, Some(context))).unwrap()
    }
}

fn kernel_text(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/toy/kernels");
    std::fs::read_to_string(folder.join(format!("{name}.wgsl"))).unwrap()
}

/// A safetensors file whose tensor begins at some multiple of 4.
fn write_shard(folder: &Path) -> (Shard, u64) {
    let data: Vec<u8> = reference::table()
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let mut header = format!(
        r#"{{"table":{{"dtype":"F32","shape":[{VOCAB}],"data_offsets":[0,{}]}}}}"#,
        data.len()
    );
    while !header.len().is_multiple_of(4) {
        header.push(' ');
    }
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    let offset = bytes.len() as u64;
    bytes.extend(data);
    let file = "weights-00001.safetensors";
    std::fs::write(folder.join(file), &bytes).unwrap();
    let shard = Shard {
        file: file.to_string(),
        bytes: bytes.len() as u64,
        sha256: sha256_hex(&bytes),
    };
    (shard, offset)
}

fn manifest((shard, offset): (Shard, u64)) -> Manifest {
    let ids = vec![3, 1, 4, 1, 5];
    let logits = reference::logits(&ids);
    let mut top: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
    top.sort_by(|a, b| b.1.total_cmp(&a.1));
    Manifest {
        format_version: FORMAT_VERSION,
        compiler: "by hand".to_string(),
        model: Facts {
            name: "toy".to_string(),
            architecture: "ToyForCausalLM".to_string(),
            layers: 1,
            hidden_size: 2,
            vocab_size: VOCAB,
            max_context: MAX_CONTEXT,
            default_context: 32,
            chunk: CHUNK,
            parameters: VOCAB.into(),
            quantization: "keep (f32)".to_string(),
            eos_token_ids: vec![],
            bos_token_id: None,
            sampling: Default::default(),
        },
        text: None,
        shards: vec![shard],
        weights: vec![WeightTensor {
            name: "table".to_string(),
            shard: 0,
            offset,
            bytes: u64::from(VOCAB) * 4,
        }],
        variants: vec![variant("base", vec![])],
        self_test: Some(SelfTest {
            ids,
            top_logits: top[..5].to_vec(),
            norm: logits.iter().map(|logit| logit * logit).sum::<f32>().sqrt(),
        }),
    }
}

pub fn variant(name: &str, features: Vec<Feature>) -> Variant {
    use Access::{Read, ReadWrite};
    let kernel = |name: &str, bindings: &[Access]| Kernel {
        name: name.to_string(),
        file: format!("kernels/{name}.wgsl"),
        sha256: String::new(),
        bindings: bindings.to_vec(),
    };
    let state = |positions| BufferKind::State {
        bytes_per_position: 4,
        positions,
        window: positions.map(|_| 3),
    };
    let buffers = [
        ("table", BufferKind::Weight { weight: 0 }),
        ("cache", state(None)),
        ("ring", state(Some(8))),
        (
            "mixed",
            BufferKind::Arena {
                bytes: 256 + u64::from(CHUNK) * 8,
            },
        ),
        ("step", BufferKind::Step),
        ("tokens", BufferKind::Tokens),
        ("output", BufferKind::Output { slots: 8 }),
        (
            "hidden",
            BufferKind::Hidden {
                bytes: u64::from(CHUNK) * 8,
            },
        ),
        (
            "logits",
            BufferKind::Logits {
                bytes: u64::from(VOCAB) * 4,
            },
        ),
        ("history", BufferKind::History { bytes_per_position: 8 }),
        ("rules", BufferKind::Rules { bytes: 256 }),
    ];
    let dispatch = |kernel: u32, names: &[&str], x: Grid| Dispatch {
        kernel,
        bindings: names
            .iter()
            .map(|name| Binding {
                buffer: buffers.iter().position(|(buffer, _)| buffer == name).unwrap() as u32,
                // The arena is used from its second 256 bytes on.
                offset: if *name == "mixed" { 256 } else { 0 },
                bytes: None,
            })
            .collect(),
        grid: [x, Grid::Fixed(1), Grid::Fixed(1)],
        label: format!("dispatch {kernel}"),
    };
    let layers = |x: Grid| {
        vec![
            dispatch(0, &["tokens", "step", "cache", "ring"], x),
            dispatch(1, &["cache", "ring", "step", "mixed"], x),
            dispatch(2, &["mixed", "hidden"], x),
        ]
    };
    let pick = || vec![dispatch(4, &["logits", "step", "tokens", "output"], Grid::Fixed(1))];
    Variant {
        name: name.to_string(),
        features,
        language_features: Vec::new(),
        limits: Limits {
            max_storage_buffers_per_shader_stage: 8,
            max_storage_buffer_binding_size: 1 << 20,
            max_buffer_size: 1 << 20,
            max_compute_invocations_per_workgroup: 64,
            max_compute_workgroup_storage_size: 1024,
            max_compute_workgroups_per_dimension: 1024,
        },
        kernels: vec![
            kernel("remember", &[Read, Read, ReadWrite, ReadWrite]),
            kernel("mix", &[Read, Read, Read, ReadWrite]),
            kernel("emit", &[Read, ReadWrite]),
            kernel("head", &[Read, Read, Read, ReadWrite]),
            kernel("pick", &[Read, ReadWrite, ReadWrite, ReadWrite]),
            kernel("adjust", &[Read, Read, Read, ReadWrite, ReadWrite]),
        ],
        programs: Programs {
            prefill: layers(Grid::Tokens { per: 1, times: 1 }),
            decode: layers(Grid::Fixed(1)),
            head: vec![dispatch(3, &["hidden", "table", "step", "logits"], Grid::Fixed(1))],
            adjust: vec![dispatch(
                5,
                &["step", "tokens", "rules", "history", "logits"],
                Grid::Fixed(1),
            )],
            greedy: pick(),
            sample: pick(),
        },
        buffers: buffers
            .into_iter()
            .map(|(name, kind)| Buffer {
                name: name.to_string(),
                kind,
            })
            .collect(),
    }
}

/// Adds the recurrent state, its kernel, and the kernel that reads it in place of `mix`.
fn make_recurrent(variant: &mut Variant) {
    use Access::{Read, ReadWrite};
    let kernel = |name: &str, bindings: &[Access]| Kernel {
        name: name.to_string(),
        file: format!("kernels/{name}.wgsl"),
        sha256: String::new(),
        bindings: bindings.to_vec(),
    };
    let named = |name: &str, kind| Buffer {
        name: name.to_string(),
        kind,
    };
    variant.buffers.push(named("sum", BufferKind::Recurrent { bytes: 8 }));
    let bytes = u64::from(CHUNK) * 4;
    variant.buffers.push(named("sums", BufferKind::Arena { bytes }));
    let number = variant.kernels.len() as u32;
    variant
        .kernels
        .push(kernel("accumulate", &[Read, Read, ReadWrite, ReadWrite]));
    variant
        .kernels
        .push(kernel("mix_sums", &[Read, Read, Read, Read, ReadWrite]));
    let buffers = &variant.buffers;
    let binding = |name: &str| Binding {
        buffer: buffers.iter().position(|buffer| buffer.name == name).unwrap() as u32,
        offset: 0,
        bytes: None,
    };
    for program in [&mut variant.programs.prefill, &mut variant.programs.decode] {
        let mix = &mut program[1];
        mix.kernel = number + 1;
        mix.bindings.insert(2, binding("sums"));
        program.insert(
            1,
            Dispatch {
                kernel: number,
                bindings: ["tokens", "step", "sum", "sums"].map(binding).to_vec(),
                grid: [Grid::Fixed(1); 3],
                label: "accumulate".to_string(),
            },
        );
    }
}
