//! The kernels of experts that work on tokens sorted by expert.

use kiln_codegen_tests::{Random, whole_bank};
use kiln_compiler::graph::{Gate, Unary};
use kiln_compiler::kernels::{GroupSpec, GroupedDownSpec, GroupedUpSpec, KernelSpec};
use kiln_compiler::weights::WeightFormat;

use crate::{Gpu, TOKENS, filled, step, time_dispatches, zeros};

/// A layer of experts: their number, how many a token goes to, hidden size and width.
pub struct Mixture {
    pub name: &'static str,
    pub experts: u32,
    pub k: u32,
    pub hidden: u32,
    pub width: u32,
}

impl Mixture {
    pub const GPT_OSS: Mixture = Mixture {
        name: "GPT-OSS-20B",
        experts: 32,
        k: 4,
        hidden: 2880,
        width: 2880,
    };
    pub const QWEN3: Mixture = Mixture {
        name: "Qwen3-30B-A3B",
        experts: 128,
        k: 8,
        hidden: 2048,
        width: 768,
    };
}

const MIXTURES: [Mixture; 2] = [Mixture::GPT_OSS, Mixture::QWEN3];

/// Times all mixtures.
pub fn time_all(gpu: &Gpu, format: WeightFormat) {
    MIXTURES.iter().for_each(|mixture| time_grouped(gpu, format, mixture));
}

/// The three kernels of grouped experts, tokens routed at random.
fn time_grouped(gpu: &Gpu, format: WeightFormat, mixture: &Mixture) {
    let Mixture {
        name,
        experts,
        k,
        hidden,
        width,
    } = *mixture;
    let bank = |rows, cols| whole_bank(experts, rows, cols, format);
    for tokens in [TOKENS, 4 * TOKENS] {
        let routing = filled(gpu, &routing(tokens, experts, k));
        for tile in [16, 32, 64] {
            let group = GroupSpec {
                experts,
                k,
                tokens,
                tile,
            };
            let groups = zeros(gpu, u64::from(group.words()) * 4);
            let sort = KernelSpec::Group(group.clone());
            let step = step(gpu, tokens);
            let sorting = time_dispatches(gpu, &sort, &[vec![&routing, &step, &groups]], tokens);
            // Grouped as the last sort left it.
            let product = |spec: KernelSpec, rows: u32, cols: u32| {
                let (input, output) = (u64::from(tokens * k * cols), u64::from(tokens * k * rows));
                let (x, out) = (zeros(gpu, input * 4), zeros(gpu, output * 4));
                let data = zeros(gpu, format.data_bytes((experts * rows).into(), cols.into()));
                let scales = zeros(gpu, format.scale_bytes((experts * rows).into(), cols.into()));
                let seconds = time_dispatches(gpu, &spec, &[vec![&x, &groups, &data, &scales, &out]], tokens);
                let flops = 2.0 * f64::from(rows) * f64::from(cols) * f64::from(tokens * k);
                format!("{:.1} µs, {:.1} TFLOP/s", seconds * 1e6, flops / seconds / 1e12)
            };
            let up = GroupedUpSpec {
                bank: bank(2 * width, hidden),
                group: group.clone(),
                gate: Gate::Activated(Unary::Silu),
                bias: false,
            };
            let down = GroupedDownSpec {
                bank: bank(hidden, width),
                group,
                bias: false,
            };
            println!(
                "grouped {format} {name}, {tokens} tokens, tiles of {tile}: sort {:.1} µs; up {}; down {}",
                sorting * 1e6,
                product(KernelSpec::GroupedUp(up), 2 * width, hidden),
                product(KernelSpec::GroupedDown(down), hidden, width)
            );
        }
    }
}

/// `k` different experts for each token, with weight 0.
fn routing(tokens: u32, experts: u32, k: u32) -> Vec<u32> {
    let mut random = Random(1);
    let mut choose = |_| {
        let mut left: Vec<u32> = (0..experts).collect();
        (0..k)
            .flat_map(|_| [left.swap_remove(random.below(left.len())), 0])
            .collect::<Vec<u32>>()
    };
    (0..tokens).flat_map(&mut choose).collect()
}
