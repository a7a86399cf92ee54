//! The text of a few kernels, for people to read.

use kiln_codegen_tests::whole_bank;
use kiln_compiler::graph::{Gate, RouteSpec, Scoring, Unary};
use kiln_compiler::kernels::{
    BankSpec, Capability, CombineSpec, Epilogue, ExpertDownSpec, ExpertUpSpec, GatherSpec, GemmSpec, KernelSpec,
    MatvecSpec, NormSpec, PointwiseExpr, PointwiseSpec, Prologue, Residual, RouteKernelSpec, RouterSpec, Slots,
    Strided, build,
};
use kiln_compiler::weights::WeightFormat;

pub fn snapshot(name: &str, spec: KernelSpec, variant: Capability) {
    let kernel = build(&spec, variant).unwrap_or_else(|error| panic!("{error}"));
    insta::assert_snapshot!(name, kernel.wgsl, &kernel.name);
}

fn matvec() -> MatvecSpec {
    MatvecSpec {
        rows: 960,
        cols: 576,
        format: WeightFormat::Q4 { min: false },
        prologue: Prologue::Norm {
            eps: 1e-5,
            unit_offset: false,
        },
        epilogue: vec![],
        row_from_step: false,
        out_offset: 0,
        workgroup: 64,
        rows_per_workgroup: 2,
        lane_words: 2,
    }
}

#[test]
fn kernels_read_well() {
    snapshot("matvec_q4_norm_base", KernelSpec::Matvec(matvec()), Capability::Base);
    snapshot(
        "matvec_q4_norm_subgroups",
        KernelSpec::Matvec(matvec()),
        Capability::Subgroups,
    );
    let glu = MatvecSpec {
        format: WeightFormat::Q8 { block: 32 },
        prologue: Prologue::Direct,
        epilogue: vec![Epilogue::Glu(Gate::Activated(Unary::Silu))],
        ..matvec()
    };
    snapshot("matvec_q8_glu", KernelSpec::Matvec(glu), Capability::Base);
    let gemm = GemmSpec {
        rows: 3072,
        cols: 576,
        format: WeightFormat::Q8 { block: 32 },
        prologue: Prologue::Norm {
            eps: 1e-5,
            unit_offset: false,
        },
        epilogue: vec![Epilogue::Glu(Gate::Activated(Unary::Silu))],
        out_offset: 0,
        out_columns: 1536,
    };
    snapshot("gemm_q8_norm_glu", KernelSpec::Gemm(gemm), Capability::Base);
    let norm = NormSpec {
        width: 640,
        per_token: 1,
        eps: 1e-6,
        unit_offset: true,
        add: true,
        x_stride: 640,
        x_offset: 0,
    };
    snapshot("norm_unit_offset_add", KernelSpec::Norm(norm), Capability::Base);
    let gather = GatherSpec {
        rows: 49_152,
        first_row: 0,
        per_binding: 49_152,
        width: 576,
        format: WeightFormat::Q4 { min: true },
        scale: 24.0,
    };
    snapshot("gather_q4_min", KernelSpec::Gather(gather), Capability::Base);
    let half = |offset| Strided { stride: 3072, offset };
    let gate = PointwiseExpr::Unary(Unary::Silu, Box::new(PointwiseExpr::Input(0)));
    let pointwise = PointwiseSpec {
        width: 1536,
        inputs: vec![half(0), half(1536)],
        expression: PointwiseExpr::Binary(
            kiln_compiler::graph::Binary::Mul,
            Box::new(gate),
            Box::new(PointwiseExpr::Input(1)),
        ),
        in_place: false,
    };
    snapshot("pointwise_silu_mul", KernelSpec::Pointwise(pointwise), Capability::Base);
}

/// GPT-OSS's, but for the 8-bit weights.
#[test]
fn kernels_of_mixtures_of_experts_read_well() {
    let prologue = Prologue::Norm {
        eps: 1e-5,
        unit_offset: false,
    };
    let route = RouteSpec {
        experts_per_token: 4,
        scoring: Scoring::SoftmaxChosen,
        normalize: None,
        scale: 1.0,
    };
    let bank = |rows, per_binding| BankSpec {
        per_binding,
        ..whole_bank(32, rows, 2880, WeightFormat::Q8 { block: 32 })
    };
    let router = RouterSpec {
        experts: 32,
        cols: 2880,
        format: WeightFormat::Bf16,
        prologue: prologue.clone(),
        bias: true,
        route,
        selection_bias: false,
    };
    snapshot("router_bf16_norm", KernelSpec::Router(router), Capability::Base);
    let alone = RouteKernelSpec {
        experts: 64,
        route: RouteSpec {
            scoring: Scoring::Sigmoid,
            normalize: Some(1e-6),
            ..route
        },
        scores: Strided { stride: 64, offset: 0 },
        selection_bias: true,
    };
    snapshot("route_sigmoid_bias", KernelSpec::Route(alone), Capability::Base);
    let up = ExpertUpSpec {
        bank: bank(5760, 16),
        k: 4,
        prologue,
        gate: Gate::Clamped {
            alpha: 1.702,
            limit: 7.0,
        },
        bias: true,
        workgroup: 128,
        rows_per_workgroup: 2,
        lane_words: 2,
    };
    snapshot("expert_up_q8_norm_bias", KernelSpec::ExpertUp(up), Capability::Base);
    let down = ExpertDownSpec {
        bank: bank(2880, 32),
        k: 4,
        slots: Slots::Routed,
        bias: true,
        residual: Residual::InPlace,
        workgroup: 128,
        rows_per_workgroup: 2,
        lane_words: 2,
    };
    snapshot(
        "expert_down_q8_bias_accumulate",
        KernelSpec::ExpertDown(down),
        Capability::Base,
    );
    let combine = CombineSpec {
        width: 2880,
        k: 4,
        residual: Residual::InPlace,
    };
    snapshot("combine_accumulate", KernelSpec::Combine(combine), Capability::Base);
}
