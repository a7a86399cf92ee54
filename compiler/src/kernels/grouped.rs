//! The two products of a mixture for tokens that are sorted by expert: a tile is weight rows of one expert by some of
//! its assignments. There are as many workgroups as the worst routing needs; those without a tile return at once.

use kiln_bundle::Access;

use super::activation::{gate_name, gated};
use super::bank::BankWeight;
use super::builder::{Array, Builder, F32, KernelError, KernelSource, U32};
use super::names::{flag, lettered};
use super::quads::Quads;
use super::tile::{self, RowProducts, Tile, TileShape};
use super::{BankSpec, Capability, GroupSpec, GroupedDownSpec, GroupedUpSpec};
use crate::graph::Gate;

pub fn build_up(spec: &GroupedUpSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    let gate = Some(spec.gate);
    let GroupedUpSpec { bank, group, bias, .. } = spec;
    build(
        &Half {
            bank,
            group,
            gate,
            bias: *bias,
        },
        capability,
    )
}

pub fn build_down(spec: &GroupedDownSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    let GroupedDownSpec { bank, group, bias } = spec;
    build(
        &Half {
            bank,
            group,
            gate: None,
            bias: *bias,
        },
        capability,
    )
}

/// One of the two products.
struct Half<'s> {
    bank: &'s BankSpec,
    group: &'s GroupSpec,
    /// Of the first: it reads tokens and writes places in the order, the second reads places and writes assignments.
    gate: Option<Gate>,
    bias: bool,
}

impl Half<'_> {
    fn name(&self) -> String {
        let half = match self.gate {
            Some(gate) => format!("up_{}", gate_name(gate)),
            None => "down".to_string(),
        };
        let bias = flag(self.bias, "_bias");
        format!("grouped_{half}{bias}_{}_{}", self.bank.name(), self.group.name())
    }

    fn rows_per_output(&self) -> u32 {
        if self.gate.is_some() { 2 } else { 1 }
    }
}

fn build(half: &Half, capability: Capability) -> Result<KernelSource, KernelError> {
    let name = half.name();
    half.bank.check(&name)?;
    let shape = TileShape::of(half.group.tile, &name)?;
    if !half.bank.rows.is_multiple_of(half.rows_per_output()) {
        return Err(KernelError::Unsupported {
            kernel: name,
            what: "a gated unit with an odd number of rows".to_string(),
        });
    }
    let b = Builder::new(name, shape.threads, capability);
    body(&b, half, shape);
    b.finish()
}

fn body(b: &Builder, half: &Half, shape: TileShape) {
    let BankSpec { rows, cols, format, .. } = *half.bank;
    let x = Quads::bind(b, "x", cols, Access::Read);
    let groups = b.storage::<u32>("groups", Access::Read);
    let bank = BankWeight::bind(b, half.bank, shape.weight_words(format));
    let bias = half.bias.then(|| b.storage("bias", Access::Read));
    let out = b.storage::<f32>("out", Access::ReadWrite);

    let number = b.group().y().named("tile");
    b.if_(number.ge(groups.load(0)), || b.return_());
    let tile_at = (number * 3 + 1).named("tile_at");
    let expert = groups.load(tile_at).named("expert");
    let place_in_bank = bank.place(expert);
    if half.bank.experts < half.bank.of {
        b.if_(bank.lacks(place_in_bank), || b.return_());
    }
    let first_place = groups.load(tile_at + 1).named("first_place");
    let count = groups.load(tile_at + 2).named("count");
    let first_row = (b.group().x() * TileShape::ROWS).named("first_row");
    let order = Order {
        groups,
        at: half.group.order_at(),
    };

    // Beyond the last row and the last assignment these are loaded again.
    let tile = Tile::new(b, shape, half.rows_per_output());
    let load_row = (first_row + tile.load_row()).min(rows - 1).named("load_row");
    let load_place = (first_place + tile.tokens.slot.min(count - 1)).named("load_place");
    let input_row = match half.gate {
        Some(_) => (order.assignment(load_place) / half.group.k).named("load_token"),
        None => load_place,
    };
    let guarded = tile::guarded(cols);
    bank.with(place_in_bank, |weight, expert_row| {
        tile.accumulate(cols, weight, expert_row + load_row, |quads| {
            (0..)
                .zip(quads)
                .map(|(i, &quad)| x.load(input_row, quad, guarded).named(&lettered("x", i)))
                .collect()
        });
    });

    let columns = rows / half.rows_per_output();
    let whole = rows.is_multiple_of(TileShape::ROWS);
    tile.each_token(|in_tile, outputs| {
        b.if_(in_tile.lt(count), || {
            let place = first_place + in_tile;
            let out_row = match half.gate {
                Some(_) => place.named("place"),
                None => order.assignment(place).named("assignment"),
            };
            for RowProducts { row, products } in outputs {
                let row = (first_row + row).named("row");
                let store = || {
                    let finished = finish(half, bias, expert * rows + row, &products);
                    out.store(out_row * columns + row / half.rows_per_output(), finished);
                };
                match whole {
                    true => store(),
                    false => b.if_(row.lt(rows), store),
                }
            }
        });
    });
}

/// Adds biases, the first of which lies at `bias_at`, and joins gate and up.
fn finish<'b>(half: &Half, bias: Option<Array<'b, f32>>, bias_at: U32<'b>, products: &[F32<'b>]) -> F32<'b> {
    let biased = |row: u32| match bias {
        Some(bias) => products[row as usize] + bias.load(bias_at + row),
        None => products[row as usize],
    };
    match half.gate {
        Some(gate) => gated(gate, biased(0).named("gate"), biased(1).named("up")),
        None => biased(0),
    }
}

/// The assignments in the order of their experts, as [`GroupSpec`] lays them out.
struct Order<'b> {
    groups: Array<'b, u32>,
    at: u32,
}

impl<'b> Order<'b> {
    fn assignment(&self, place: U32<'b>) -> U32<'b> {
        self.groups.load(place + self.at)
    }
}
