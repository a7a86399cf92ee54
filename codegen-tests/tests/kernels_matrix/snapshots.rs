//! The text of a few kernels, for people to read.

use kiln_compiler::graph::{Gate, Unary};
use kiln_compiler::kernels::{
    Epilogue, GatherSpec, GemmSpec, KernelSpec, MatvecSpec, NormSpec, PointwiseExpr, PointwiseSpec, Prologue, Strided,
    Variant, build,
};
use kiln_compiler::weights::WeightFormat;

fn snapshot(name: &str, spec: KernelSpec, variant: Variant) {
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
    snapshot("matvec_q4_norm_base", KernelSpec::Matvec(matvec()), Variant::Base);
    snapshot(
        "matvec_q4_norm_subgroups",
        KernelSpec::Matvec(matvec()),
        Variant::Subgroups,
    );
    let glu = MatvecSpec {
        format: WeightFormat::Q8 { block: 32 },
        prologue: Prologue::Direct,
        epilogue: vec![Epilogue::Glu(Gate::Activated(Unary::Silu))],
        ..matvec()
    };
    snapshot("matvec_q8_glu", KernelSpec::Matvec(glu), Variant::Base);
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
    snapshot("gemm_q8_norm_glu", KernelSpec::Gemm(gemm), Variant::Base);
    let norm = NormSpec {
        width: 640,
        per_token: 1,
        eps: 1e-6,
        unit_offset: true,
        add: true,
        x_stride: 640,
        x_offset: 0,
    };
    snapshot("norm_unit_offset_add", KernelSpec::Norm(norm), Variant::Base);
    let gather = GatherSpec {
        rows: 49_152,
        first_row: 0,
        width: 576,
        format: WeightFormat::Q4 { min: true },
        scale: 24.0,
    };
    snapshot("gather_q4_min", KernelSpec::Gather(gather), Variant::Base);
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
    snapshot("pointwise_silu_mul", KernelSpec::Pointwise(pointwise), Variant::Base);
}
