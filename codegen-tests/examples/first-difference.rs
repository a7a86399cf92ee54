//! For whoever hunts a wrong logit: replays a bundle dispatch by dispatch, and says after each which value of the CPU
//! evaluator it has computed. The first dispatch without one is where to look (or where kernels fuse what the graph
//! has apart, or stack what lies apart there: compile with `--opt-level 0`).
//!
//! `cargo run -p kiln-codegen-tests --example first-difference -- CHECKPOINT BUNDLE VARIANT 1,2,3`
//!
//! A single id runs `decode`, more of them `prefill` (at most a chunk).

use std::path::{Path, PathBuf};

use kiln_bundle::{Access, BufferKind, Dispatch, MANIFEST_FILE, Manifest, StepWord, Variant};
use kiln_codegen_tests::oracle::relative_error;
use kiln_codegen_tests::pipeline_of;
use kiln_compiler::architectures::Registry;
use kiln_compiler::checkpoint::{Checkpoint, TensorSource};
use kiln_compiler::reference::Evaluator;
use wgpu::util::DeviceExt;

/// Relative; f16 variants differ by more.
const TOLERANCE: f64 = 3e-3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [checkpoint, bundle, variant, ids] = arguments.as_slice() else {
        panic!("usage: first-difference CHECKPOINT BUNDLE VARIANT IDS");
    };
    let ids: Vec<u32> = ids.split(',').map(|id| id.parse().expect("ids are numbers")).collect();
    let expected = evaluate(Path::new(checkpoint), &ids);
    let replay = Replay::new(PathBuf::from(bundle), variant, &ids);
    let programs = replay.variant.programs.clone();
    let layers = if ids.len() == 1 {
        &programs.decode
    } else {
        &programs.prefill
    };
    for dispatch in layers.iter().chain(&programs.head) {
        replay.run(dispatch);
        let kernel = &replay.variant.kernels[dispatch.kernel as usize];
        println!("{} [{}]", dispatch.label, kernel.name);
        for (place, access) in kernel.bindings.iter().enumerate() {
            if *access == Access::ReadWrite {
                let found = replay.read(dispatch, place);
                println!("    {}", describe(&found, &expected));
            }
        }
    }
}

/// Values of the evaluator with their names.
fn evaluate(checkpoint: &Path, ids: &[u32]) -> Vec<(String, Vec<f32>)> {
    let checkpoint = Checkpoint::open(checkpoint).expect("a checkpoint");
    let registry = Registry::default();
    let architecture = registry.for_config(checkpoint.config()).expect("a known architecture");
    let graph = architecture.build(checkpoint.config()).expect("a graph");
    let weights = |name: &str| checkpoint.read_f32(name);
    let mut values = Vec::new();
    let logits = Evaluator::new(&graph, &weights).feed_traced(ids, &mut |traced| {
        let layer = traced.layer.map(|layer| format!("layers.{layer} ")).unwrap_or_default();
        let name = traced.node.name.as_deref().unwrap_or("");
        values.push((format!("{layer}{name} = {:?}", traced.node.op), traced.values.to_vec()));
    });
    let last = logits.expect("logits").pop().expect("a position");
    values.push(("logits of the last token".to_string(), last));
    values
}

/// Which value a buffer begins with.
fn describe(found: &[f32], expected: &[(String, Vec<f32>)]) -> String {
    let mut best = ("nothing".to_string(), f64::INFINITY);
    for (name, values) in expected.iter().filter(|(_, values)| values.len() <= found.len()) {
        let error = relative_error(&found[..values.len()], values);
        if error < best.1 {
            best = (name.clone(), error);
        }
    }
    let (name, error) = best;
    match error < TOLERANCE {
        true => format!("is {name} ({error:.0e})"),
        false => format!(
            "DIFFERS; most like {name} ({error:.0e}); begins {:?}",
            &found[..found.len().min(4)]
        ),
    }
}

/// One variant of a bundle on a device, ready to run its dispatches one at a time.
struct Replay {
    variant: Variant,
    tokens: u32,
    device: wgpu::Device,
    queue: wgpu::Queue,
    buffers: Vec<wgpu::Buffer>,
    pipelines: Vec<wgpu::ComputePipeline>,
}

impl Replay {
    fn new(bundle: PathBuf, variant: &str, ids: &[u32]) -> Self {
        let text = std::fs::read(bundle.join(MANIFEST_FILE)).expect("a manifest");
        let manifest = Manifest::from_json(&text, MANIFEST_FILE).expect("a manifest");
        let variant = manifest
            .variants
            .iter()
            .find(|v| v.name == variant)
            .expect("a variant")
            .clone();
        let (device, queue) = pollster::block_on(open());
        let shards: Vec<Vec<u8>> = manifest
            .shards
            .iter()
            .map(|shard| std::fs::read(bundle.join(&shard.file)).expect("a shard"))
            .collect();
        let context = u64::from(manifest.model.default_context);
        let chunk = manifest.model.chunk as usize;
        let mut step = [0_u32; StepWord::COUNT];
        step[StepWord::Tokens as usize] = ids.len() as u32;
        step[StepWord::Row as usize] = ids.len() as u32 - 1;
        let mut tokens = ids.to_vec();
        tokens.resize(chunk, 0);
        let contents = variant.buffers.iter().map(|buffer| match &buffer.kind {
            BufferKind::Weight { weight } => {
                let tensor = &manifest.weights[*weight as usize];
                let start = tensor.offset as usize;
                shards[tensor.shard as usize][start..start + tensor.bytes as usize].to_vec()
            }
            BufferKind::State {
                bytes_per_position,
                positions,
                ..
            } => {
                vec![0; (bytes_per_position * positions.unwrap_or(context)) as usize]
            }
            // Not zeros: what is read before it is written should show.
            BufferKind::Recurrent { bytes } => vec![0; *bytes as usize],
            BufferKind::Arena { bytes } | BufferKind::Hidden { bytes } | BufferKind::Logits { bytes } => {
                vec![0x5a; *bytes as usize]
            }
            BufferKind::Step => bytemuck::cast_slice(&step).to_vec(),
            BufferKind::Tokens => bytemuck::cast_slice(&tokens).to_vec(),
            BufferKind::Output { slots } => vec![0; *slots as usize * 4],
            BufferKind::History { bytes_per_position } => vec![0; (bytes_per_position * context) as usize],
            BufferKind::Rules { bytes } => vec![0; *bytes as usize],
        });
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let buffers = contents
            .map(|contents| {
                let descriptor = wgpu::util::BufferInitDescriptor {
                    label: None,
                    contents: &contents,
                    usage,
                };
                device.create_buffer_init(&descriptor)
            })
            .collect();
        let pipelines = variant
            .kernels
            .iter()
            .map(|kernel| {
                let wgsl = std::fs::read_to_string(bundle.join(&kernel.file)).expect("a kernel");
                let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                    label: Some(&kernel.name),
                    source: wgpu::ShaderSource::Wgsl(wgsl.into()),
                });
                pipeline_of(&device, &kernel.name, &module, &kernel.bindings).0
            })
            .collect();
        Replay {
            variant,
            tokens: ids.len() as u32,
            device,
            queue,
            buffers,
            pipelines,
        }
    }

    fn run(&self, dispatch: &Dispatch) {
        let pipeline = &self.pipelines[dispatch.kernel as usize];
        let entries: Vec<_> = (0..)
            .zip(&dispatch.bindings)
            .map(|(place, binding)| wgpu::BindGroupEntry {
                binding: place,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &self.buffers[binding.buffer as usize],
                    offset: binding.offset,
                    size: binding.bytes.and_then(wgpu::BufferSize::new),
                }),
            })
            .collect();
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, &group, &[]);
            let [x, y, z] = dispatch.grid.map(|grid| grid.workgroups(self.tokens));
            pass.dispatch_workgroups(x, y, z);
        }
        self.queue.submit([encoder.finish()]);
    }

    /// The range that is bound at `place`, as f32.
    fn read(&self, dispatch: &Dispatch, place: usize) -> Vec<f32> {
        let binding = dispatch.bindings[place];
        let source = &self.buffers[binding.buffer as usize];
        let size = binding.bytes.unwrap_or(source.size() - binding.offset);
        let target = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(source, binding.offset, &target, 0, size);
        self.queue.submit([encoder.finish()]);
        target.map_async(wgpu::MapMode::Read, .., |result| result.expect("mapping for reading"));
        self.device
            .poll(wgpu::PollType::wait_indefinitely())
            .expect("the device answers");
        let bytes = target.get_mapped_range(..).expect("mapped").to_vec();
        bytemuck::pod_collect_to_vec(&bytes)
    }
}

async fn open() -> (wgpu::Device, wgpu::Queue) {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapters = instance.enumerate_adapters(wgpu::Backends::PRIMARY).await;
    let adapter = adapters.into_iter().next().expect("an adapter");
    let features = wgpu::Features::SUBGROUP | wgpu::Features::SHADER_F16;
    let descriptor = wgpu::DeviceDescriptor {
        required_features: adapter.features() & features,
        required_limits: adapter.limits(),
        ..Default::default()
    };
    adapter
        .request_device(&descriptor)
        .await
        .expect("the adapter's own limits")
}
