//! Kernels of mixtures of experts: what they cannot do, and their names.

use std::collections::BTreeSet;

use kiln_compiler::graph::{Gate, RouteSpec, Scoring, Unary};
use kiln_compiler::kernels::{
    BankSpec, Capability, CombineSpec, ExpertDownSpec, ExpertUpSpec, KernelSpec, Prologue, Residual, RouteKernelSpec,
    RouterSpec, Slots, Strided, build,
};
use kiln_compiler::weights::WeightFormat;

const NORM: Prologue = Prologue::Norm {
    eps: 1e-5,
    unit_offset: false,
};

fn route() -> RouteSpec {
    RouteSpec {
        experts_per_token: 4,
        scoring: Scoring::SoftmaxChosen,
        normalize: None,
        scale: 1.0,
    }
}

fn router() -> RouterSpec {
    RouterSpec {
        experts: 32,
        cols: 64,
        format: WeightFormat::Bf16,
        prologue: NORM,
        bias: false,
        route: route(),
        selection_bias: false,
    }
}

fn alone() -> RouteKernelSpec {
    RouteKernelSpec {
        experts: 32,
        route: route(),
        scores: Strided { stride: 32, offset: 0 },
        selection_bias: false,
    }
}

fn bank() -> BankSpec {
    BankSpec {
        of: 8,
        first: 0,
        experts: 8,
        per_binding: 8,
        rows: 32,
        cols: 64,
        format: WeightFormat::Q8 { block: 32 },
    }
}

fn up() -> ExpertUpSpec {
    ExpertUpSpec {
        bank: bank(),
        k: 4,
        prologue: NORM,
        gate: Gate::Activated(Unary::Silu),
        bias: true,
        workgroup: 64,
        rows_per_workgroup: 4,
        lane_words: 2,
    }
}

fn down() -> ExpertDownSpec {
    ExpertDownSpec {
        bank: bank(),
        k: 4,
        slots: Slots::Routed,
        bias: true,
        residual: Residual::InPlace,
        workgroup: 64,
        rows_per_workgroup: 4,
        lane_words: 2,
    }
}

const COMBINE: CombineSpec = CombineSpec {
    width: 64,
    k: 4,
    residual: Residual::None,
};

#[test]
fn what_kernels_of_experts_cannot_do_is_named() {
    let routed = |experts, experts_per_token| {
        KernelSpec::Router(RouterSpec {
            experts,
            route: RouteSpec {
                experts_per_token,
                ..route()
            },
            ..router()
        })
    };
    let banks = |per_binding| BankSpec { per_binding, ..bank() };
    let cases = [
        (routed(513, 4), "513 experts, expected 1 to 512"),
        (routed(0, 4), "0 experts"),
        (routed(32, 0), "0 of 32 experts for a token, expected 1 to 32"),
        (routed(3, 4), "4 of 3 experts for a token, expected 1 to 3"),
        (routed(64, 33), "33 of 64 experts for a token, expected 1 to 32"),
        (
            KernelSpec::ExpertUp(ExpertUpSpec { bank: banks(0), ..up() }),
            "a bank without experts",
        ),
        (
            KernelSpec::ExpertUp(ExpertUpSpec {
                bank: BankSpec { first: 1, ..bank() },
                ..up()
            }),
            "experts 1 and 7 after it of 8",
        ),
        (
            KernelSpec::ExpertUp(ExpertUpSpec { bank: banks(3), ..up() }),
            "storage buffers is 9, the limit is 8",
        ),
        (
            KernelSpec::ExpertUp(ExpertUpSpec {
                bank: BankSpec { rows: 33, ..bank() },
                ..up()
            }),
            "33 rows, expected pairs of gate and up",
        ),
        (
            KernelSpec::ExpertUp(ExpertUpSpec {
                rows_per_workgroup: 3,
                ..up()
            }),
            "an even number",
        ),
        (
            KernelSpec::ExpertDown(ExpertDownSpec {
                workgroup: 48,
                ..down()
            }),
            "a power of two",
        ),
        (
            KernelSpec::ExpertDown(ExpertDownSpec { k: 0, ..down() }),
            "no expert for a token",
        ),
        (
            KernelSpec::Combine(CombineSpec { k: 0, ..COMBINE }),
            "no expert for a token",
        ),
    ];
    for (spec, reason) in cases {
        let message = build(&spec, Capability::Base)
            .expect_err("the spec is wrong")
            .to_string();
        assert!(message.contains(reason), "{message} does not say {reason}");
    }
}

#[test]
fn names_tell_specs_of_experts_apart() {
    let routes = [
        route(),
        RouteSpec {
            experts_per_token: 2,
            ..route()
        },
        RouteSpec {
            scoring: Scoring::SoftmaxAll,
            ..route()
        },
        RouteSpec {
            scoring: Scoring::Sigmoid,
            ..route()
        },
        RouteSpec {
            normalize: Some(0.0),
            ..route()
        },
        RouteSpec {
            normalize: Some(1e-6),
            ..route()
        },
        RouteSpec { scale: 2.5, ..route() },
    ];
    let more_routers = [
        RouterSpec {
            experts: 16,
            ..router()
        },
        RouterSpec { cols: 32, ..router() },
        RouterSpec {
            format: WeightFormat::F16,
            ..router()
        },
        RouterSpec {
            prologue: Prologue::Direct,
            ..router()
        },
        RouterSpec { bias: true, ..router() },
        RouterSpec {
            selection_bias: true,
            ..router()
        },
    ];
    let more_alone = [
        RouteKernelSpec { experts: 16, ..alone() },
        RouteKernelSpec {
            scores: Strided { stride: 40, offset: 8 },
            ..alone()
        },
        RouteKernelSpec {
            selection_bias: true,
            ..alone()
        },
    ];
    let banks = [
        bank(),
        BankSpec { of: 16, ..bank() },
        BankSpec {
            of: 16,
            first: 8,
            ..bank()
        },
        BankSpec {
            of: 16,
            first: 8,
            experts: 6,
            ..bank()
        },
        BankSpec {
            per_binding: 4,
            ..bank()
        },
        BankSpec { rows: 64, ..bank() },
        BankSpec { cols: 32, ..bank() },
        BankSpec {
            format: WeightFormat::Q4 { min: false },
            ..bank()
        },
    ];
    let more_ups = [
        ExpertUpSpec { k: 2, ..up() },
        ExpertUpSpec {
            prologue: Prologue::Direct,
            ..up()
        },
        ExpertUpSpec {
            gate: Gate::Clamped {
                alpha: 1.702,
                limit: 7.0,
            },
            ..up()
        },
        ExpertUpSpec { bias: false, ..up() },
        ExpertUpSpec { workgroup: 32, ..up() },
        ExpertUpSpec {
            rows_per_workgroup: 2,
            ..up()
        },
        ExpertUpSpec { lane_words: 1, ..up() },
    ];
    let more_downs = [
        ExpertDownSpec { k: 2, ..down() },
        ExpertDownSpec {
            slots: Slots::All,
            ..down()
        },
        ExpertDownSpec { bias: false, ..down() },
        ExpertDownSpec {
            residual: Residual::Add,
            ..down()
        },
        ExpertDownSpec {
            residual: Residual::None,
            ..down()
        },
        ExpertDownSpec {
            workgroup: 32,
            ..down()
        },
        ExpertDownSpec {
            rows_per_workgroup: 2,
            ..down()
        },
        ExpertDownSpec {
            lane_words: 1,
            ..down()
        },
    ];
    let combines = [
        COMBINE,
        CombineSpec { width: 32, ..COMBINE },
        CombineSpec { k: 2, ..COMBINE },
        CombineSpec {
            residual: Residual::Add,
            ..COMBINE
        },
        CombineSpec {
            residual: Residual::InPlace,
            ..COMBINE
        },
    ];
    let mut specs = Vec::new();
    for route in routes {
        specs.push(KernelSpec::Router(RouterSpec { route, ..router() }));
        specs.push(KernelSpec::Route(RouteKernelSpec { route, ..alone() }));
    }
    for bank in banks {
        specs.push(KernelSpec::ExpertUp(ExpertUpSpec {
            bank: bank.clone(),
            ..up()
        }));
        specs.push(KernelSpec::ExpertDown(ExpertDownSpec { bank, ..down() }));
    }
    specs.extend(more_routers.map(KernelSpec::Router));
    specs.extend(more_alone.map(KernelSpec::Route));
    specs.extend(more_ups.map(KernelSpec::ExpertUp));
    specs.extend(more_downs.map(KernelSpec::ExpertDown));
    specs.extend(combines.map(KernelSpec::Combine));
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
