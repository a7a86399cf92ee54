//! What definitions are put together from: a few operators that belong together, on rows chosen at random.

use kiln_compiler::graph::{Gate, Scoring, Unary};

use super::definition::{Operator, Turn};
use super::generate::Maker;

type Block = fn(&mut Maker);

/// All blocks.
pub(super) const BLOCKS: [Block; 14] = [
    product,
    norm,
    elementwise,
    pair,
    slices,
    scaled_rows,
    rope,
    attention,
    convolution,
    delta_rule,
    experts,
    gated_unit,
    long_chain,
    many_inputs,
];

/// Those of them that have no state.
const STATELESS: [Block; 10] = [
    product,
    norm,
    elementwise,
    pair,
    slices,
    scaled_rows,
    experts,
    gated_unit,
    long_chain,
    many_inputs,
];

/// Some block that the section may have.
pub(super) fn any(maker: &mut Maker) {
    let block = match maker.inside {
        true => *maker.random.choice(&BLOCKS),
        false => *maker.random.choice(&STATELESS),
    };
    block(maker);
}

/// Widths that no kernel has a liking for, among some that they have.
const WIDTHS: [usize; 10] = [1, 3, 7, 8, 12, 20, 31, 32, 48, 68];

fn product(maker: &mut Maker) {
    let (from, width) = (maker.row(), *maker.random.choice(&WIDTHS));
    let product = maker.linear(from, width);
    // Another of the same row may be stacked with it.
    if maker.random.below(2) == 0 {
        maker.linear(from, width);
    } else if maker.random.below(2) == 0 {
        let residual = maker.row_of(width);
        maker.add(residual, product);
    }
}

fn norm(maker: &mut Maker) {
    let from = maker.row();
    let heads = heads_of(maker, maker.width(from));
    let normed = maker.norm(from, heads);
    if maker.random.below(2) == 0 {
        let residual = maker.row_of(maker.width(normed));
        maker.add(normed, residual);
    }
}

/// A number of heads that `width` may be split into.
fn heads_of(maker: &mut Maker, width: usize) -> usize {
    let fitting: Vec<usize> = (1..=4).filter(|heads| width.is_multiple_of(*heads)).collect();
    *maker.random.choice(&fitting)
}

fn elementwise(maker: &mut Maker) {
    let from = maker.row();
    maker.elementwise(from);
}

fn pair(maker: &mut Maker) {
    let left = maker.row();
    let right = maker.row_of(maker.width(left));
    maker.binary(left, right);
}

/// Two slices of one row, which may overlap, and their sum or product.
fn slices(maker: &mut Maker) {
    let from = maker.row();
    let width = maker.width(from);
    let len = 1 + maker.random.below(width);
    let [one, other] = [(); 2].map(|()| {
        let start = maker.random.below(width - len + 1);
        maker.push(Operator::Slice { start, len }, &[from])
    });
    if maker.random.below(2) == 0 {
        let one = maker.elementwise(one);
        maker.binary(one, other);
    }
}

fn scaled_rows(maker: &mut Maker) {
    let (row, from) = (maker.row(), maker.row());
    let factor = maker.linear(from, 1);
    let factor = match maker.random.below(2) {
        0 => factor,
        _ => maker.push(Operator::Unary(Unary::Sigmoid), &[factor]),
    };
    maker.push(Operator::ScaleRows, &[row, factor]);
}

fn turn(maker: &mut Maker, width: usize) -> Turn {
    let theta = *maker.random.choice(&[100.0, 10_000.0]);
    // Rotations of an even number of elements.
    let partial = width.is_multiple_of(4) && width >= 8 && maker.random.below(3) == 0;
    let share = match (partial, width % 2) {
        (true, _) => 0.5,
        (false, 0) => 1.0,
        (false, _) => (width - 1) as f64 / width as f64,
    };
    Turn { theta, share }
}

fn rope(maker: &mut Maker) {
    let (heads, width) = (1 + maker.random.below(3), *maker.random.choice(&[2, 6, 8, 12]));
    let row = maker.row_of(heads * width);
    let turn = turn(maker, width);
    maker.push(Operator::Rope { heads, turn }, &[row]);
}

/// Self-attention in many ways: with or without norms and ropes of queries and keys, of products of one row or of
/// anything; sometimes a second look at the same cache.
fn attention(maker: &mut Maker) {
    let kv_heads = 1 + maker.random.below(2);
    let heads = kv_heads * *maker.random.choice(&[1, 2, 3, 5]);
    let width = match maker.random.below(60) {
        // Too many elements for a kernel that has a thread for each. Seldom: a software device takes many seconds to
        // compile the prefill kernel of such heads.
        0 => 130,
        _ => *maker.random.choice(&[4, 5, 8, 8, 16, 24]),
    };
    let (queries, keys) = (heads * width, kv_heads * width);
    let [mut q, mut k, v] = match maker.random.below(4) {
        0 => [queries, keys, keys].map(|width| maker.row_of(width)),
        // One product, already stacked.
        1 => {
            let from = maker.row();
            let all = maker.linear(from, queries + 2 * keys);
            [(0, queries), (queries, keys), (queries + keys, keys)]
                .map(|(start, len)| maker.push(Operator::Slice { start, len }, &[all]))
        }
        _ => {
            let from = maker.row();
            let bias = maker.random.below(3) == 0;
            [queries, keys, keys].map(|rows| maker.push(Operator::Linear { rows, bias }, &[from]))
        }
    };
    let (norms, ropes) = (maker.random.below(4), maker.random.below(4));
    if norms == 0 {
        // Alike, as a kernel does both at once; or not.
        let plus_one = maker.random.below(2) == 0;
        let eps = [1e-5, *maker.random.choice(&[1e-5, 1e-2])];
        let norm = |heads, eps| Operator::Norm { heads, plus_one, eps };
        q = maker.push(norm(heads, eps[0]), &[q]);
        k = maker.push(norm(kv_heads, eps[1]), &[k]);
    }
    if ropes > 0 && width > 1 {
        let one = turn(maker, width);
        let other = if ropes == 1 { turn(maker, width) } else { one };
        // Split into other heads than those that attend, now and then.
        let halves = heads.is_multiple_of(2) && width >= 4 && maker.random.below(5) == 0;
        let (heads, one) = match halves {
            true => (heads / 2, Turn { share: 1.0, ..one }),
            false => (heads, one),
        };
        q = maker.push(Operator::Rope { heads, turn: one }, &[q]);
        k = maker.push(
            Operator::Rope {
                heads: kv_heads,
                turn: other,
            },
            &[k],
        );
    }
    let cache = maker.push(Operator::Cache { kv_heads }, &[k, v]);
    let attend = |maker: &mut Maker, q: usize| {
        let operator = Operator::Attention {
            heads,
            scale: (maker.random.below(3) == 0).then_some(0.3),
            window: (maker.random.below(3) == 0).then(|| 1 + maker.random.below(6)),
            softcap: (maker.random.below(4) == 0).then_some(3.0),
            sinks: maker.random.below(4) == 0,
        };
        maker.push(operator, &[q, cache])
    };
    let attended = attend(maker, q);
    if maker.random.below(4) == 0 {
        let q = maker.row_of(queries);
        let again = attend(maker, q);
        maker.add(attended, again);
    }
}

fn convolution(maker: &mut Maker) {
    let mut x = maker.row();
    if maker.random.below(3) == 0 {
        let gate = maker.row_of(maker.width(x));
        x = maker.binary(gate, x);
    }
    let taps = 2 + maker.random.below(7);
    let bias = maker.random.below(2) == 0;
    let mut out = maker.push(Operator::Convolution { taps, bias }, &[x]);
    if maker.random.below(2) == 0 {
        out = maker.unary(out);
    }
    if maker.random.below(2) == 0 {
        let gate = maker.row_of(maker.width(out));
        maker.binary(gate, out);
    }
}

/// Queries, keys and values from one row, from a convolution of it, or from anywhere.
fn delta_rule(maker: &mut Maker) {
    let key_heads = 1 + maker.random.below(2);
    let value_heads = key_heads * (1 + maker.random.below(3));
    let keys = key_heads * *maker.random.choice(&[4, 7, 16]);
    let values = value_heads * *maker.random.choice(&[4, 9, 16]);
    let [q, k, v] = match maker.random.below(3) {
        0 => [keys, keys, values].map(|width| maker.row_of(width)),
        one_row => {
            let from = maker.row();
            let mut all = maker.linear(from, 2 * keys + values);
            if one_row == 1 {
                all = maker.push(Operator::Convolution { taps: 3, bias: false }, &[all]);
                all = maker.push(Operator::Unary(Unary::Silu), &[all]);
            }
            [(0, keys), (keys, keys), (2 * keys, values)]
                .map(|(start, len)| maker.push(Operator::Slice { start, len }, &[all]))
        }
    };
    let [a, b] = [(); 2].map(|()| {
        let from = maker.row();
        maker.linear(from, value_heads)
    });
    maker.push(Operator::GatedDelta { key_heads, value_heads }, &[q, k, v, a, b]);
}

fn experts(maker: &mut Maker) {
    let x = maker.row();
    let experts = 1 + maker.random.below(6);
    let bias = maker.random.below(3) == 0;
    let scores = maker.push(Operator::Router { experts, bias }, &[x]);
    let route = Operator::Route {
        chosen: 1 + maker.random.below(experts),
        scoring: *maker
            .random
            .choice(&[Scoring::SoftmaxChosen, Scoring::SoftmaxAll, Scoring::Sigmoid]),
        normalize: *maker.random.choice(&[None, Some(0.0), Some(1e-3)]),
        scale: *maker.random.choice(&[1.0, 2.5]),
        bias: maker.random.below(3) == 0,
    };
    let routing = maker.push(route, &[scores]);
    let gate = match maker.random.below(3) {
        0 => Gate::Clamped {
            alpha: 1.702,
            limit: 1.5,
        },
        _ => Gate::Activated(*maker.random.choice(&[Unary::Silu, Unary::GeluTanh, Unary::Relu])),
    };
    let of = Operator::Experts {
        inner: *maker.random.choice(&[3, 8, 20]),
        gate,
        bias: maker.random.below(3) == 0,
    };
    let made = maker.push(of, &[x, routing]);
    match maker.random.below(3) {
        // An expert of the same choice for another row.
        0 => {
            let other = maker.row();
            maker.push(of, &[other, routing]);
        }
        1 => {
            let residual = maker.row_of(maker.width(made));
            maker.add(residual, made);
        }
        _ => {}
    }
}

fn gated_unit(maker: &mut Maker) {
    let (from, width) = (maker.row(), *maker.random.choice(&WIDTHS));
    let gate = maker.linear(from, width);
    let up = maker.linear(from, width);
    let activated = maker.unary(gate);
    let product = match maker.random.below(2) {
        0 => maker.push(Operator::Binary(kiln_compiler::graph::Binary::Mul), &[activated, up]),
        _ => maker.push(Operator::Binary(kiln_compiler::graph::Binary::Mul), &[up, activated]),
    };
    if maker.random.below(3) == 0 {
        maker.elementwise(product);
    }
}

/// Many elementwise operators after a product.
fn long_chain(maker: &mut Maker) {
    let from = maker.row();
    let width = *maker.random.choice(&WIDTHS);
    let mut x = maker.linear(from, width);
    for _ in 0..4 + maker.random.below(7) {
        x = maker.elementwise(x);
    }
}

/// A sum or product of many rows, some of them changed on the way.
fn many_inputs(maker: &mut Maker) {
    let first = maker.row();
    let width = maker.width(first);
    let mut x = first;
    for _ in 0..3 + maker.random.below(6) {
        // Products of different widths cannot be stacked, so these are buffers of their own.
        let mut other = maker.row_of(width);
        if maker.random.below(3) == 0 {
            other = maker.elementwise(other);
        }
        x = match maker.random.below(3) {
            0 => maker.binary(other, x),
            _ => maker.binary(x, other),
        };
    }
}
