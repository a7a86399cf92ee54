//! The text of the kernels for grouped tokens, their names, and what they refuse.

use std::collections::BTreeSet;

use kiln_compiler::graph::{Gate, Unary};
use kiln_compiler::kernels::{
    BankSpec, Capability, DenseDownSpec, GroupSpec, GroupedDownSpec, GroupedUpSpec, KernelError, KernelSpec, Residual,
    build,
};
use kiln_compiler::weights::WeightFormat;

use crate::snapshots::snapshot;

const SILU: Gate = Gate::Activated(Unary::Silu);
const CLAMPED: Gate = Gate::Clamped {
    alpha: 1.702,
    limit: 7.0,
};

/// GPT-OSS-20B's grouping of a chunk of 512 tokens, and a bank of its sizes.
fn gpt_oss(rows: u32) -> (GroupSpec, BankSpec) {
    let group = GroupSpec {
        experts: 32,
        k: 4,
        tokens: 512,
        tile: 32,
    };
    let bank = BankSpec {
        of: 32,
        first: 0,
        experts: 32,
        per_binding: 32,
        rows,
        cols: 2880,
        format: WeightFormat::Q4 { min: false },
    };
    (group, bank)
}

fn up() -> GroupedUpSpec {
    let (group, bank) = gpt_oss(5760);
    GroupedUpSpec {
        bank,
        group,
        gate: CLAMPED,
        bias: true,
    }
}

fn down() -> GroupedDownSpec {
    let (group, bank) = gpt_oss(2880);
    GroupedDownSpec {
        bank,
        group,
        bias: true,
    }
}

fn dense() -> DenseDownSpec {
    DenseDownSpec {
        bank: gpt_oss(2880).1,
        k: 4,
        bias: true,
        residual: Residual::Add,
    }
}

#[test]
fn grouped_kernels_read_well() {
    snapshot("group_512_tokens", KernelSpec::Group(up().group), Capability::Base);
    snapshot(
        "grouped_up_q4_clamped_bias",
        KernelSpec::GroupedUp(up()),
        Capability::Base,
    );
    let half = BankSpec {
        first: 16,
        experts: 16,
        per_binding: 8,
        ..down().bank
    };
    let part = GroupedDownSpec { bank: half, ..down() };
    snapshot(
        "grouped_down_q4_part_in_two",
        KernelSpec::GroupedDown(part),
        Capability::Base,
    );
    snapshot(
        "dense_down_q4_bias_add",
        KernelSpec::DenseDown(dense()),
        Capability::Base,
    );
}

#[test]
fn names_of_grouped_kernels_tell_specs_apart() {
    let groups = [
        up().group,
        GroupSpec {
            experts: 33,
            ..up().group
        },
        GroupSpec { k: 5, ..up().group },
        GroupSpec {
            tokens: 513,
            ..up().group
        },
        GroupSpec { tile: 16, ..up().group },
    ];
    let banks = [
        BankSpec {
            per_binding: 16,
            ..up().bank
        },
        BankSpec {
            experts: 31,
            ..up().bank
        },
        BankSpec {
            first: 1,
            experts: 31,
            ..up().bank
        },
        BankSpec {
            cols: 2881,
            ..up().bank
        },
        BankSpec {
            rows: 5762,
            ..up().bank
        },
        BankSpec {
            format: WeightFormat::Bf16,
            ..up().bank
        },
    ];
    let mut specs: Vec<KernelSpec> = groups.iter().cloned().map(KernelSpec::Group).collect();
    for group in groups {
        specs.push(KernelSpec::GroupedUp(GroupedUpSpec { group, ..up() }));
    }
    for bank in banks {
        specs.push(KernelSpec::GroupedDown(GroupedDownSpec {
            bank: bank.clone(),
            ..down()
        }));
        specs.push(KernelSpec::GroupedUp(GroupedUpSpec { bank, ..up() }));
    }
    specs.extend([
        KernelSpec::GroupedUp(GroupedUpSpec { gate: SILU, ..up() }),
        KernelSpec::GroupedUp(GroupedUpSpec { bias: false, ..up() }),
        KernelSpec::GroupedDown(GroupedDownSpec { bias: false, ..down() }),
        KernelSpec::DenseDown(dense()),
        KernelSpec::DenseDown(DenseDownSpec { k: 3, ..dense() }),
        KernelSpec::DenseDown(DenseDownSpec { bias: false, ..dense() }),
        KernelSpec::DenseDown(DenseDownSpec {
            residual: Residual::InPlace,
            ..dense()
        }),
    ]);
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

#[test]
fn grouped_kernels_refuse_what_they_cannot_do() {
    let cases = [
        (
            KernelSpec::Group(GroupSpec {
                experts: 513,
                ..up().group
            }),
            "1 to 512 can be sorted",
        ),
        (KernelSpec::Group(GroupSpec { k: 33, ..up().group }), "33 of 32 experts"),
        (
            KernelSpec::GroupedUp(GroupedUpSpec {
                group: GroupSpec { tile: 24, ..up().group },
                ..up()
            }),
            "there are tiles of 16, 32 and 64",
        ),
        (
            KernelSpec::GroupedUp(GroupedUpSpec {
                bank: BankSpec {
                    rows: 5761,
                    ..up().bank
                },
                ..up()
            }),
            "an odd number of rows",
        ),
        (
            KernelSpec::GroupedDown(GroupedDownSpec {
                bank: BankSpec {
                    per_binding: 8,
                    ..down().bank
                },
                ..down()
            }),
            "the number of storage buffers is 9, the limit is 8",
        ),
        (
            KernelSpec::DenseDown(DenseDownSpec {
                bank: BankSpec {
                    per_binding: 16,
                    ..down().bank
                },
                ..dense()
            }),
            "a bank in several bindings",
        ),
    ];
    for (spec, reason) in cases {
        let error = build(&spec, Capability::Base).expect_err(reason);
        assert!(
            matches!(error, KernelError::Unsupported { .. } | KernelError::Limit { .. }),
            "{error}"
        );
        assert!(error.to_string().contains(reason), "{error} does not say {reason}");
    }
}
