//! Specs that cannot be built say why, and different specs have different names.

use std::collections::BTreeSet;

use kiln_compiler::graph::{Gate, Unary};
use kiln_compiler::kernels::{Capability, Epilogue, GemmSpec, KernelError, KernelSpec, MatvecSpec, Prologue, build};
use kiln_compiler::weights::WeightFormat;

fn matvec() -> MatvecSpec {
    MatvecSpec {
        rows: 64,
        cols: 64,
        format: WeightFormat::Q8 { block: 32 },
        prologue: Prologue::Direct,
        epilogue: vec![],
        row_from_step: false,
        out_offset: 0,
        workgroup: 64,
        rows_per_workgroup: 4,
        lane_words: 4,
    }
}

fn gemm() -> GemmSpec {
    GemmSpec {
        rows: 64,
        cols: 64,
        format: WeightFormat::Q8 { block: 32 },
        prologue: Prologue::Direct,
        epilogue: vec![],
        out_offset: 0,
        out_columns: 64,
    }
}

fn refusal(spec: MatvecSpec) -> String {
    build(&KernelSpec::Matvec(spec), Capability::Base)
        .expect_err("the spec is wrong")
        .to_string()
}

#[test]
fn what_a_matvec_cannot_do_is_named() {
    let glu = || Epilogue::Glu(Gate::Activated(Unary::Silu));
    let cases = [
        (
            MatvecSpec {
                workgroup: 96,
                ..matvec()
            },
            "a power of two",
        ),
        (
            MatvecSpec {
                workgroup: 512,
                ..matvec()
            },
            "the workgroup size is 512, the limit is 256",
        ),
        (
            MatvecSpec {
                rows_per_workgroup: 3,
                epilogue: vec![glu()],
                ..matvec()
            },
            "an even number",
        ),
        (
            MatvecSpec {
                rows_per_workgroup: 0,
                ..matvec()
            },
            "0 rows",
        ),
        (
            MatvecSpec {
                lane_words: 3,
                ..matvec()
            },
            "3 words",
        ),
        (
            MatvecSpec {
                rows: 63,
                epilogue: vec![glu()],
                ..matvec()
            },
            "odd number of rows",
        ),
        (
            MatvecSpec {
                epilogue: vec![glu(), glu()],
                ..matvec()
            },
            "more than one gated unit",
        ),
        (
            MatvecSpec {
                epilogue: vec![Epilogue::AddInPlace, Epilogue::Scale(2.0)],
                ..matvec()
            },
            "must come last",
        ),
        (
            MatvecSpec {
                epilogue: vec![Epilogue::Add; 6],
                ..matvec()
            },
            "storage buffers is 10, the limit is 8",
        ),
        (
            MatvecSpec {
                workgroup: 256,
                rows_per_workgroup: 32,
                ..matvec()
            },
            "workgroup memory",
        ),
    ];
    for (spec, reason) in cases {
        let message = refusal(spec);
        assert!(message.contains(reason), "{message} does not say {reason}");
        assert!(
            message.starts_with("kernel matvec_q8"),
            "{message} does not name the kernel"
        );
    }
}

#[test]
fn a_limit_is_an_error_of_its_own() {
    let spec = KernelSpec::Matvec(MatvecSpec {
        workgroup: 1024,
        ..matvec()
    });
    let error = build(&spec, Capability::Base).expect_err("more threads than a workgroup has");
    assert!(
        matches!(
            error,
            KernelError::Limit {
                found: 1024,
                limit: 256,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn names_tell_specs_apart() {
    let norm = |eps, unit_offset| Prologue::Norm { eps, unit_offset };
    let matvecs = [
        matvec(),
        MatvecSpec { rows: 32, ..matvec() },
        MatvecSpec { cols: 32, ..matvec() },
        MatvecSpec {
            format: WeightFormat::Q8 { block: 16 },
            ..matvec()
        },
        MatvecSpec {
            prologue: norm(1e-5, false),
            ..matvec()
        },
        MatvecSpec {
            prologue: norm(1e-6, false),
            ..matvec()
        },
        MatvecSpec {
            prologue: norm(1e-6, true),
            ..matvec()
        },
        MatvecSpec {
            epilogue: vec![Epilogue::Bias],
            ..matvec()
        },
        MatvecSpec {
            epilogue: vec![Epilogue::Scale(0.5)],
            ..matvec()
        },
        MatvecSpec {
            epilogue: vec![Epilogue::Scale(0.25)],
            ..matvec()
        },
        MatvecSpec {
            epilogue: vec![Epilogue::Scale(-0.25)],
            ..matvec()
        },
        MatvecSpec {
            epilogue: vec![Epilogue::Unary(Unary::Silu)],
            ..matvec()
        },
        MatvecSpec {
            epilogue: vec![Epilogue::Glu(Gate::Activated(Unary::Silu))],
            ..matvec()
        },
        MatvecSpec {
            epilogue: vec![Epilogue::Add, Epilogue::Bias],
            ..matvec()
        },
        MatvecSpec {
            epilogue: vec![Epilogue::Bias, Epilogue::Add],
            ..matvec()
        },
        MatvecSpec {
            row_from_step: true,
            ..matvec()
        },
        MatvecSpec {
            out_offset: 64,
            ..matvec()
        },
        MatvecSpec {
            workgroup: 32,
            ..matvec()
        },
        MatvecSpec {
            rows_per_workgroup: 2,
            ..matvec()
        },
        MatvecSpec {
            lane_words: 2,
            ..matvec()
        },
    ];
    let gemms = [
        gemm(),
        GemmSpec {
            out_columns: 128,
            ..gemm()
        },
        GemmSpec {
            out_columns: 128,
            out_offset: 64,
            ..gemm()
        },
        GemmSpec { rows: 32, ..gemm() },
    ];
    let specs = matvecs
        .map(KernelSpec::Matvec)
        .into_iter()
        .chain(gemms.map(KernelSpec::Gemm));
    let mut names = BTreeSet::new();
    for spec in specs {
        let kernel = build(&spec, Capability::Base).unwrap_or_else(|error| panic!("{error}"));
        assert!(
            names.insert(kernel.name.clone()),
            "{} names two specs: {spec:?}",
            kernel.name
        );
    }
}
