//! The second product of a mixture with all of its experts: one long sum over experts and columns, in which an expert
//! counts for a token as much as the routing says.

use kiln_bundle::{Access, StepWord};

use super::bank::{BankWeight, RoutingBuffer};
use super::builder::{Array, Builder, F32, KernelError, KernelSource, Pointer, U32, Vec4};
use super::names::{flag, lettered};
use super::quads::Quads;
use super::tile::{self, RowProducts, Tile, TileShape};
use super::{BankSpec, Capability, DenseDownSpec, Residual};

const SHAPE: TileShape = TileShape::LARGE;

impl DenseDownSpec {
    fn name(&self) -> String {
        let DenseDownSpec {
            bank,
            k,
            bias,
            residual,
        } = self;
        let (bias, residual) = (flag(*bias, "_bias"), residual.name());
        format!("dense_down{bias}{residual}_{}_top{k}", bank.name())
    }
}

pub fn build(spec: &DenseDownSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    let name = spec.name();
    spec.bank.check(&name)?;
    if spec.bank.bindings() > 1 {
        return Err(KernelError::Unsupported {
            kernel: name,
            what: "a bank in several bindings".to_string(),
        });
    }
    let b = Builder::new(name, SHAPE.threads, capability);
    body(&b, spec);
    b.finish()
}

fn body(b: &Builder, spec: &DenseDownSpec) {
    let BankSpec {
        of,
        first,
        experts,
        rows,
        cols,
        format,
        ..
    } = spec.bank;
    let a = Quads::bind(b, "a", cols, Access::Read);
    let choices = Choices {
        routing: RoutingBuffer::bind(b),
        k: spec.k,
    };
    let bank = BankWeight::bind(b, &spec.bank, SHAPE.weight_words(format));
    let bias = spec.bias.then(|| b.storage::<f32>("bias", Access::Read));
    let step = b.storage::<u32>("step_buffer", Access::Read);
    let residual = (spec.residual == Residual::Add).then(|| b.storage::<f32>("residual", Access::Read));
    let out = b.storage::<f32>("out", Access::ReadWrite);
    let residual = match spec.residual {
        Residual::InPlace => Some(out),
        _ => residual,
    };

    let tokens = step.load(StepWord::Tokens as u32).named("tokens");
    let first_row = (b.group().x() * TileShape::ROWS).named("first_row");
    let first_token = (b.group().y() * SHAPE.tokens).named("first_token");
    b.if_(first_token.ge(tokens), || b.return_());

    // Beyond the last row and the last token these are loaded again.
    let tile = Tile::new(b, SHAPE, 1);
    let load_row = (first_row + tile.load_row()).min(rows - 1).named("load_row");
    let load_token = (first_token + tile.tokens.slot).min(tokens - 1).named("load_token");
    let guarded = tile::guarded(cols);
    b.range("expert", first, first + experts, 1, |expert| {
        let weight = choices.weight(load_token, expert);
        let input_row = (load_token * of + expert).named("input_row");
        bank.with(bank.place(expert), |matrix, expert_row| {
            tile.accumulate(cols, matrix, expert_row + load_row, |quads| {
                (0..)
                    .zip(quads)
                    .map(|(i, &quad)| a.load(input_row, quad, guarded).named(&lettered("a", i)) * weight)
                    .collect::<Vec<Vec4>>()
            });
        });
    });

    let whole = rows.is_multiple_of(TileShape::ROWS);
    tile.each_token(|in_tile, outputs| {
        let token = (first_token + in_tile).named("token");
        b.if_(token.lt(tokens), || {
            let outputs: Vec<_> = outputs
                .into_iter()
                .map(|RowProducts { row, products }| ((first_row + row).named("row"), products[0]))
                .collect();
            let biases = bias.map(|bias| {
                // Biases of rows beyond the last are not used.
                let rows: Vec<U32> = match whole {
                    true => outputs.iter().map(|&(row, _)| row).collect(),
                    false => outputs.iter().map(|&(row, _)| row.min(rows - 1)).collect(),
                };
                choices.biases(&bank, token, bias, spec.bank.rows, &rows)
            });
            for (i, (row, product)) in outputs.into_iter().enumerate() {
                let store = || {
                    let at = (token * rows + row).named("at");
                    let value = match &biases {
                        Some(biases) => product + biases[i].load(),
                        None => product,
                    };
                    out.store(at, residual.map_or(value, |residual| value + residual.load(at)));
                };
                match whole {
                    true => store(),
                    false => b.if_(row.lt(rows), store),
                }
            }
        });
    });
}

/// Which experts each token goes to, and their weights.
struct Choices<'b> {
    routing: RoutingBuffer<'b>,
    k: u32,
}

impl<'b> Choices<'b> {
    fn each(&self, token: U32<'b>, body: impl FnOnce(U32<'b>, F32<'b>)) {
        token.builder().range("slot", 0, self.k, 1, |slot| {
            let (expert, weight) = self.routing.load(token * self.k + slot);
            body(expert, weight);
        });
    }

    /// The weight of `expert` for `token`: 0 unless the token goes to it.
    fn weight(&self, token: U32<'b>, expert: U32<'b>) -> F32<'b> {
        let found = token.builder().variable("found_weight", 0.0);
        self.each(token, |chosen, weight| {
            found.store(chosen.eq(expert).select(weight, found.load()));
        });
        found.load().named("weight")
    }

    /// The weighted sums of the biases of the token's experts in `bank`, for each of `rows` of `width`.
    fn biases(
        &self,
        bank: &BankWeight<'b>,
        token: U32<'b>,
        bias: Array<'b, f32>,
        width: u32,
        rows: &[U32<'b>],
    ) -> Vec<Pointer<'b, f32>> {
        let b = token.builder();
        let sums: Vec<_> = (0..rows.len())
            .map(|i| b.variable(&lettered("bias_sum", i), 0.0))
            .collect();
        self.each(token, |expert, weight| {
            b.if_(bank.has(bank.place(expert)), || {
                let first = (expert * width).named("first_bias");
                for (sum, &row) in sums.iter().zip(rows) {
                    sum.add(weight * bias.load(first + row));
                }
            });
        });
        sums
    }
}
