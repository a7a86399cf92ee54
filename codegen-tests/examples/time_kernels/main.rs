//! Times matvec and GEMM kernels on the GPU over shapes and settings, to choose the settings by, the experts of
//! mixtures for one token (`experts`) and for chunks of tokens (`grouped`), and what Qwen3.5-4B has in the place of
//! attention (`mixers`):
//! `cargo run --release -p kiln-codegen-tests --example time_kernels [matvec|gemm|experts|grouped|mixers] [ROWSxCOLS ..]`
//!
//! Each dispatch waits for the one before, as in a model, and finds its weights in memory, not in a cache: a ring of
//! copies larger than any cache takes turns.

mod experts;
mod grouped;

use std::time::Instant;

use kiln_bundle::Feature;
use kiln_codegen_tests::pipeline_of;
use kiln_compiler::graph::{Gate, Unary};
use kiln_compiler::kernels::{
    Capability, ConvolutionSpec, Epilogue, GatedDeltaSpec, GemmSpec, KernelSource, KernelSpec, MatvecSpec, Prologue,
    Strided, build,
};
use kiln_compiler::weights::WeightFormat;
use wgpu::util::DeviceExt;

/// Weights of a ring in bytes: past the 50 MB of L2 of the largest GPUs.
const RING_BYTES: u64 = 160 << 20;
const TOKENS: u32 = 512;
const DISPATCHES: u32 = 200;
const ROUNDS: usize = 3;

/// q/k/v, output, gate and up, down, and head of SmolLM2-135M and Llama-3.2-1B.
const SHAPES: [(u32, u32); 10] = [
    (960, 576),
    (576, 576),
    (3072, 576),
    (576, 1536),
    (49_152, 576),
    (3072, 2048),
    (2048, 2048),
    (16_384, 2048),
    (2048, 8192),
    (128_256, 2048),
];

struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    variant: Capability,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let gpu = pollster::block_on(open());
    let mut shapes: Vec<(u32, u32)> = arguments.iter().filter_map(|text| shape(text)).collect();
    if shapes.is_empty() {
        shapes = SHAPES.to_vec();
    }
    let named = |name: &str| arguments.iter().any(|a| a == name);
    let wanted = |name: &str| {
        named(name)
            || !["matvec", "gemm", "experts", "grouped", "mixers"]
                .into_iter()
                .any(named)
    };
    if wanted("mixers") {
        time_mixers(&gpu);
    }
    if wanted("experts") {
        experts::time_all(&gpu);
    }
    for format in [WeightFormat::Q4 { min: false }, WeightFormat::Q8 { block: 32 }] {
        for &(rows, cols) in &shapes {
            if wanted("matvec") {
                time_matvec(&gpu, format, rows, cols);
            }
            if wanted("gemm") && rows < 40_000 {
                time_gemm(&gpu, format, rows, cols);
            }
        }
        if wanted("grouped") {
            grouped::time_all(&gpu, format);
        }
    }
}

fn shape(text: &str) -> Option<(u32, u32)> {
    let (rows, cols) = text.split_once('x')?;
    Some((rows.parse().ok()?, cols.parse().ok()?))
}

async fn open() -> Gpu {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let options = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..Default::default()
    };
    let adapter = instance.request_adapter(&options).await.expect("an adapter");
    println!("{}", adapter.get_info().name);
    let features = adapter.features() & (wgpu::Features::SUBGROUP | wgpu::Features::SHADER_F16);
    let subgroups = features.contains(wgpu::Features::SUBGROUP);
    let descriptor = wgpu::DeviceDescriptor {
        required_features: features,
        required_limits: adapter.limits(),
        ..Default::default()
    };
    let (device, queue) = adapter
        .request_device(&descriptor)
        .await
        .expect("the adapter's own limits");
    Gpu {
        device,
        queue,
        variant: if subgroups {
            Capability::Subgroups
        } else {
            Capability::Base
        },
    }
}

fn time_matvec(gpu: &Gpu, format: WeightFormat, rows: u32, cols: u32) {
    let bytes = weight_bytes(format, rows, cols);
    let results = settings(|[workgroup, rows_per_workgroup, lane_words]| {
        let spec = KernelSpec::Matvec(MatvecSpec {
            rows,
            cols,
            format,
            prologue: Prologue::Norm {
                eps: 1e-5,
                unit_offset: false,
            },
            epilogue: vec![],
            row_from_step: false,
            out_offset: 0,
            workgroup,
            rows_per_workgroup,
            lane_words,
        });
        time(gpu, &spec, format, rows, cols, 1)
    });
    print_sorted(&format!("matvec {format} {rows}x{cols}"), bytes, results);
}

/// Seconds with each setting: threads, rows of a workgroup, words of a lane.
fn settings(time: impl Fn([u32; 3]) -> f64) -> Vec<(f64, [u32; 3])> {
    let mut results = Vec::new();
    for workgroup in [32, 64, 128, 256] {
        for rows in [2, 4, 8] {
            for words in [1, 2, 4] {
                let setting = [workgroup, rows, words];
                results.push((time(setting), setting));
            }
        }
    }
    results
}

/// Prints the best settings for a kernel that reads `bytes` of weights, and the worst.
fn print_sorted(title: &str, bytes: u64, mut results: Vec<(f64, [u32; 3])>) {
    results.sort_by(|a, b| a.0.total_cmp(&b.0));
    println!(
        "{title}, {:.1} MB; µs, GB/s (threads, rows, words):",
        bytes as f64 / 1e6
    );
    let show = |&(seconds, [threads, rows, words]): &(f64, [u32; 3])| {
        println!(
            "  {:7.2} {:6.0}  ({threads}, {rows}, {words})",
            seconds * 1e6,
            bytes as f64 / seconds / 1e9
        );
    };
    results.iter().take(6).for_each(show);
    results.last().iter().for_each(|worst| show(worst));
}

fn time_gemm(gpu: &Gpu, format: WeightFormat, rows: u32, cols: u32) {
    for (name, epilogue, out_columns) in [
        ("", vec![], rows),
        (" glu", vec![Epilogue::Glu(Gate::Activated(Unary::Silu))], rows / 2),
    ] {
        let spec = KernelSpec::Gemm(GemmSpec {
            rows,
            cols,
            format,
            prologue: Prologue::Norm {
                eps: 1e-5,
                unit_offset: false,
            },
            epilogue,
            out_offset: 0,
            out_columns,
        });
        let seconds = time(gpu, &spec, format, rows, cols, TOKENS);
        let flops = 2.0 * f64::from(rows) * f64::from(cols) * f64::from(TOKENS);
        println!(
            "gemm{name} {format} {rows}x{cols}, {TOKENS} tokens: {:.1} µs, {:.1} TFLOP/s",
            seconds * 1e6,
            flops / seconds / 1e12
        );
    }
}

/// The convolution and the gated delta rule of Qwen3.5-4B: 16 heads for keys, 32 for values, of 128.
fn time_mixers(gpu: &Gpu) {
    const LAYERS: u32 = 24;
    let (key_heads, value_heads, head) = (16, 32, 128);
    let (keys, values) = (key_heads * head, value_heads * head);
    let stride = 2 * keys + values;
    let at = |offset| Strided { stride, offset };
    let gates = |offset| Strided {
        stride: 2 * value_heads,
        offset,
    };
    for tokens in [1, TOKENS] {
        let single = tokens == 1;
        let delta = KernelSpec::GatedDelta(GatedDeltaSpec {
            key_heads,
            value_heads,
            key_dim: head,
            value_dim: head,
            q: at(0),
            k: at(keys),
            v: at(2 * keys),
            a: gates(0),
            b: gates(value_heads),
            single,
        });
        let convolution = KernelSpec::Convolution(ConvolutionSpec {
            channels: stride,
            taps: 4,
            ring: 3 + TOKENS,
            x: at(0),
            gate_in: None,
            gate_out: None,
            bias: false,
            activation: Some(Unary::Silu),
            writes_state: single,
        });
        let floats = |count: u32| zeros(gpu, 4 * u64::from(count));
        let step = step(gpu, tokens);
        let [x, out] = [floats(tokens * stride), floats(tokens * stride)];
        let gate = floats(tokens * 2 * value_heads);
        let [parameters, weight] = [floats(2 * value_heads), floats(4 * stride)];
        // Each layer has its own.
        let states: Vec<wgpu::Buffer> = (0..LAYERS).map(|_| floats(values * head)).collect();
        let rings: Vec<wgpu::Buffer> = (0..LAYERS).map(|_| floats((3 + TOKENS) * stride)).collect();
        let of_delta = states.iter().map(|state| {
            let inputs = [&x, &gate, &gate, &parameters].into_iter();
            inputs.chain((!single).then_some(&step)).chain([state, &out]).collect()
        });
        let of_convolution = rings.iter().map(|ring| vec![&x, &weight, &step, ring, &out]);
        for (name, spec, bound) in [
            ("gated delta", delta, of_delta.collect::<Vec<_>>()),
            ("convolution", convolution, of_convolution.collect()),
        ] {
            let seconds = time_dispatches(gpu, &spec, &bound, tokens);
            println!("{name}, {tokens} tokens: {:.1} µs", seconds * 1e6);
        }
    }
}

fn weight_bytes(format: WeightFormat, rows: u32, cols: u32) -> u64 {
    format.data_bytes(rows.into(), cols.into()) + format.scale_bytes(rows.into(), cols.into())
}

fn zeros(gpu: &Gpu, bytes: u64) -> wgpu::Buffer {
    gpu.device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: bytes.next_multiple_of(16),
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    })
}

fn step(gpu: &Gpu, tokens: u32) -> wgpu::Buffer {
    filled(gpu, &[0, tokens, 0, 0, 0, 0, 0, 0])
}

fn filled(gpu: &Gpu, words: &[u32]) -> wgpu::Buffer {
    gpu.device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
        label: None,
        contents: bytemuck::cast_slice(words),
        usage: wgpu::BufferUsages::STORAGE,
    })
}

/// Seconds of one dispatch of a matrix product.
fn time(gpu: &Gpu, spec: &KernelSpec, format: WeightFormat, rows: u32, cols: u32, tokens: u32) -> f64 {
    let step = step(gpu, tokens);
    let (x, norm, out) = (
        zeros(gpu, u64::from(tokens * cols * 4)),
        zeros(gpu, u64::from(cols * 4)),
        zeros(gpu, u64::from(tokens) * u64::from(rows) * 4),
    );
    let copies = (RING_BYTES / weight_bytes(format, rows, cols)).clamp(1, 64);
    let weights: Vec<[wgpu::Buffer; 2]> = (0..copies)
        .map(|_| {
            [
                zeros(gpu, format.data_bytes(rows.into(), cols.into())),
                zeros(gpu, format.scale_bytes(rows.into(), cols.into())),
            ]
        })
        .collect();
    let bound: Vec<Vec<&wgpu::Buffer>> = weights
        .iter()
        .map(|[data, scales]| {
            let mut buffers = vec![&x, &norm, data, scales];
            if matches!(spec, KernelSpec::Gemm(_)) {
                buffers.push(&step);
            }
            buffers.push(&out);
            buffers
        })
        .collect();
    time_dispatches(gpu, spec, &bound, tokens)
}

/// Seconds of one dispatch: the fastest of some rounds. The buffers of `bound` take turns.
fn time_dispatches(gpu: &Gpu, spec: &KernelSpec, bound: &[Vec<&wgpu::Buffer>], tokens: u32) -> f64 {
    let kernel = build(spec, gpu.variant).unwrap_or_else(|error| panic!("{error}"));
    let (pipeline, layout) = pipeline(gpu, &kernel);
    let groups: Vec<wgpu::BindGroup> = bound
        .iter()
        .map(|buffers| {
            let entries: Vec<wgpu::BindGroupEntry> = (0..)
                .zip(buffers)
                .map(|(binding, buffer)| wgpu::BindGroupEntry {
                    binding,
                    resource: buffer.as_entire_binding(),
                })
                .collect();
            gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &layout,
                entries: &entries,
            })
        })
        .collect();

    let grid = spec.grid().map(|axis| axis.workgroups(tokens));
    let run = |count: u32| {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        for index in 0..count {
            pass.set_bind_group(0, &groups[index as usize % groups.len()], &[]);
            pass.dispatch_workgroups(grid[0], grid[1], grid[2]);
        }
        drop(pass);
        let commands = encoder.finish();
        let start = Instant::now();
        gpu.queue.submit([commands]);
        gpu.device
            .poll(wgpu::PollType::wait_indefinitely())
            .expect("the device answers");
        start.elapsed().as_secs_f64()
    };
    run(DISPATCHES);
    // The difference of two lengths leaves out what submitting and waiting take.
    let rounds = (0..ROUNDS).map(|_| (run(2 * DISPATCHES) - run(DISPATCHES)) / f64::from(DISPATCHES));
    rounds.fold(f64::INFINITY, f64::min)
}

fn pipeline(gpu: &Gpu, kernel: &KernelSource) -> (wgpu::ComputePipeline, wgpu::BindGroupLayout) {
    assert!(kernel.features.iter().all(|feature| *feature == Feature::Subgroups));
    let descriptor = wgpu::ShaderModuleDescriptor {
        label: Some(&kernel.name),
        source: wgpu::ShaderSource::Wgsl(kernel.wgsl.as_str().into()),
    };
    // SAFETY: the kernels' indices are within their buffers, as the tests with checks on show.
    let module = unsafe {
        gpu.device
            .create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
    };
    pipeline_of(&gpu.device, &kernel.name, &module, &kernel.bindings)
}
