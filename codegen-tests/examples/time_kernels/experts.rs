//! The kernels of experts that work token by token, and the router, over their settings.

use kiln_codegen_tests::whole_bank;
use kiln_compiler::graph::{Gate, RouteSpec, Scoring, Unary};
use kiln_compiler::kernels::{
    BankSpec, ExpertDownSpec, ExpertUpSpec, KernelSpec, Prologue, Residual, RouteKernelSpec, RouterSpec, Slots, Strided,
};
use kiln_compiler::weights::WeightFormat;
use wgpu::Buffer;

use crate::grouped::Mixture;
use crate::{Gpu, RING_BYTES, filled, print_sorted, settings, time_dispatches, weight_bytes, zeros};

const MIXTURES: [Mixture; 3] = [
    Mixture::GPT_OSS,
    Mixture::QWEN3,
    Mixture {
        name: "LFM2-8B-A1B",
        experts: 32,
        k: 4,
        hidden: 2048,
        width: 1792,
    },
];

const NORM: Prologue = Prologue::Norm {
    eps: 1e-5,
    unit_offset: false,
};

/// Times the routers, and all mixtures.
pub fn time_all(gpu: &Gpu) {
    for (experts, k, cols) in [(32, 4, 2880), (128, 8, 2048)] {
        time_router(gpu, experts, k, cols);
    }
    for format in [WeightFormat::Mxfp4, WeightFormat::Q4 { min: false }] {
        for mixture in &MIXTURES {
            time_mixture(gpu, format, mixture);
        }
    }
}

/// Router and route alone.
fn time_router(gpu: &Gpu, experts: u32, k: u32, cols: u32) {
    let (format, route) = (
        WeightFormat::Bf16,
        RouteSpec {
            experts_per_token: k,
            scoring: Scoring::SoftmaxChosen,
            normalize: None,
            scale: 1.0,
        },
    );
    let floats = |count: u32| zeros(gpu, 4 * u64::from(count));
    let [x, norm, bias, scores] = [floats(cols), floats(cols), floats(experts), floats(experts)];
    let routing = floats(2 * k);
    let copies = (RING_BYTES / weight_bytes(format, experts, cols)).clamp(1, 512);
    let weights: Vec<Buffer> = (0..copies)
        .map(|_| zeros(gpu, format.data_bytes(experts.into(), cols.into())))
        .collect();
    let router = KernelSpec::Router(RouterSpec {
        experts,
        cols,
        format,
        prologue: NORM,
        bias: true,
        route,
        selection_bias: false,
    });
    let bound: Vec<Vec<&Buffer>> = weights
        .iter()
        .map(|weight| vec![&x, &norm, weight, &bias, &routing])
        .collect();
    let router = time_dispatches(gpu, &router, &bound, 1);
    let alone = KernelSpec::Route(RouteKernelSpec {
        experts,
        route,
        scores: Strided {
            stride: experts,
            offset: 0,
        },
        selection_bias: false,
    });
    let alone = time_dispatches(gpu, &alone, &[vec![&scores, &routing]], 1);
    println!(
        "router {format} {experts}x{cols}, top {k}: {:.2} µs; route alone: {:.2} µs",
        router * 1e6,
        alone * 1e6
    );
}

/// Both halves of a mixture, over all settings.
fn time_mixture(gpu: &Gpu, format: WeightFormat, mixture: &Mixture) {
    let Mixture { k, hidden, width, .. } = *mixture;
    time_half(
        gpu,
        format,
        mixture,
        "up",
        2 * width,
        hidden,
        |bank, [workgroup, rows, words]| {
            KernelSpec::ExpertUp(ExpertUpSpec {
                bank,
                k,
                prologue: NORM,
                gate: Gate::Activated(Unary::Silu),
                bias: true,
                workgroup,
                rows_per_workgroup: rows,
                lane_words: words,
            })
        },
    );
    time_half(
        gpu,
        format,
        mixture,
        "down",
        hidden,
        width,
        |bank, [workgroup, rows, words]| {
            KernelSpec::ExpertDown(ExpertDownSpec {
                bank,
                k,
                slots: Slots::Routed,
                bias: true,
                residual: Residual::InPlace,
                workgroup,
                rows_per_workgroup: rows,
                lane_words: words,
            })
        },
    );
}

fn time_half(
    gpu: &Gpu,
    format: WeightFormat,
    mixture: &Mixture,
    half: &str,
    rows: u32,
    cols: u32,
    spec: impl Fn(BankSpec, [u32; 3]) -> KernelSpec,
) {
    let Mixture { name, experts, k, .. } = *mixture;
    let bytes_of_expert = weight_bytes(format, rows, cols);
    // Banks as in a model with several layers, until the experts of one turn are more than a cache holds.
    let turns = experts / k;
    let banks = RING_BYTES.div_ceil(bytes_of_expert * u64::from(experts)).max(1);
    let all_rows = u64::from(experts * rows);
    let limit = gpu.device.limits().max_storage_buffer_binding_size;
    let data_bytes = format.data_bytes(all_rows, cols.into());
    if data_bytes > limit {
        println!("expert {half} {format} {name}: a bank is more than a binding holds");
        return;
    }
    let banks: Vec<[Buffer; 2]> = (0..banks)
        .map(|_| {
            [
                zeros(gpu, data_bytes),
                zeros(gpu, format.scale_bytes(all_rows, cols.into())),
            ]
        })
        .collect();
    // Each turn goes to the next k experts, with weight 0.
    let routings: Vec<Buffer> = (0..turns)
        .map(|turn| {
            let assignments: Vec<u32> = (0..k).flat_map(|slot| [turn + slot * turns, 0]).collect();
            filled(gpu, &assignments)
        })
        .collect();
    let up = half == "up";
    let floats = |count: u32| zeros(gpu, 4 * u64::from(count));
    let [x, norm, bias, out] = [floats(k * cols), floats(cols), floats(experts * rows), floats(k * rows)];
    let bound: Vec<Vec<&Buffer>> = banks
        .iter()
        .flat_map(|[data, scales]| routings.iter().map(move |routing| (routing, data, scales)))
        .map(|(routing, data, scales)| match up {
            true => vec![&x, &norm, routing, data, scales, &bias, &out],
            false => vec![&x, routing, data, scales, &bias, &out],
        })
        .collect();
    let bank = whole_bank(experts, rows, cols, format);
    let results = settings(|setting| time_dispatches(gpu, &spec(bank.clone(), setting), &bound, 1));
    let title = format!("expert {half} {format} {name}, {k} of {experts} x {rows}x{cols}");
    print_sorted(&title, bytes_of_expert * u64::from(k), results);
}
