//! Leaves as files write them: declared with their sizes, or literals.

use crate::graph::{AttentionSpec, Gate, RopeId, RouteSpec, Scoring, StateId, Unary, WeightId};
use crate::term::{Arrangement, BankLeaf, LeafDef, MatrixLeaf};
use crate::weights::WeightFormat;

/// What a literal stands for: `nothing`, `tokens`, `true`, an activation, `96` (a count) or `0.5` (a number).
pub fn literal(text: &str) -> Option<LeafDef> {
    Some(match text {
        "nothing" => LeafDef::Nothing,
        "tokens" => LeafDef::Tokens,
        "true" => LeafDef::Flag(true),
        "false" => LeafDef::Flag(false),
        _ => match (activation(text), text.parse(), text.parse()) {
            (Some(activation), ..) => LeafDef::Activation(activation),
            (_, Ok(count), _) => LeafDef::Count(count),
            (_, _, Ok(number)) => LeafDef::Number(number),
            _ => return None,
        },
    })
}

/// A declaration, as `matrix 96 64 q4`. `number` tells weights and states of equal sizes apart.
pub fn declared(text: &str, number: usize) -> Result<LeafDef, String> {
    let mut words = text.split_whitespace();
    let kind = words.next().unwrap_or_default();
    let words: Vec<&str> = words.collect();
    let wrong = |form: &str| format!("`{text}` is not {form}");
    let size = |word: &str| {
        word.parse::<u32>()
            .map_err(|_| format!("`{word}` in `{text}` is no size"))
    };
    let parts = vec![WeightId(number)];
    let id = StateId(number);
    Ok(match (kind, &words[..]) {
        ("input", [width]) => LeafDef::Input { width: size(width)? },
        ("matrix", [rows, cols, format]) => LeafDef::Matrix(MatrixLeaf {
            parts,
            arrangement: Arrangement::Concat,
            rows: size(rows)?,
            cols: size(cols)?,
            format: weight_format(format)?,
        }),
        ("matrix", _) => return Err(wrong("matrix ROWS COLUMNS FORMAT")),
        ("bank", [experts, rows, cols, format]) => LeafDef::Bank(BankLeaf {
            experts: size(experts)?,
            matrix: MatrixLeaf {
                parts,
                arrangement: Arrangement::Concat,
                rows: size(experts)? * size(rows)?,
                cols: size(cols)?,
                format: weight_format(format)?,
            },
        }),
        ("bank", _) => return Err(wrong("bank EXPERTS ROWS COLUMNS FORMAT")),
        ("vector", [len]) => LeafDef::Vector { parts, len: size(len)? },
        ("cache", [kv_heads, width]) => LeafDef::State {
            id,
            kv_heads: size(kv_heads)?,
            width: size(width)?,
        },
        ("cache", _) => return Err(wrong("cache KV_HEADS WIDTH")),
        ("rope", []) => LeafDef::Rope(RopeId(number)),
        ("taps", [channels, taps]) => LeafDef::Taps {
            id,
            channels: size(channels)?,
            taps: size(taps)?,
        },
        ("taps", _) => return Err(wrong("taps CHANNELS TAPS")),
        ("delta", [heads, key_dim, value_dim]) => LeafDef::Delta {
            id,
            heads: size(heads)?,
            key_dim: size(key_dim)?,
            value_dim: size(value_dim)?,
        },
        ("delta", _) => return Err(wrong("delta HEADS KEY_WIDTH VALUE_WIDTH")),
        ("attention", [heads, kv_heads, window @ ..]) => LeafDef::Attention {
            spec: AttentionSpec {
                scale: 0.125,
                window: match window {
                    [] => None,
                    [window] => Some(size(window)? as usize),
                    _ => return Err(wrong("attention HEADS KV_HEADS [WINDOW]")),
                },
                softcap: None,
            },
            heads: size(heads)?,
            kv_heads: size(kv_heads)?,
        },
        ("attention", _) => return Err(wrong("attention HEADS KV_HEADS [WINDOW]")),
        ("route", [experts, k]) => LeafDef::Route {
            spec: RouteSpec {
                experts_per_token: size(k)?,
                scoring: Scoring::SoftmaxChosen,
                normalize: None,
                scale: 1.0,
            },
            experts: size(experts)?,
        },
        ("route", _) => return Err(wrong("route EXPERTS CHOSEN")),
        ("mixture", [experts, k]) => LeafDef::Mixture {
            experts: size(experts)?,
            k: size(k)?,
            gate: Gate::Activated(Unary::Silu),
        },
        ("mixture", _) => return Err(wrong("mixture EXPERTS CHOSEN")),
        _ => return Err(format!("`{kind}` in `{text}` is no leaf, or has other sizes")),
    })
}

fn activation(name: &str) -> Option<Unary> {
    Some(match name {
        "silu" => Unary::Silu,
        "gelu_tanh" => Unary::GeluTanh,
        "gelu_erf" => Unary::GeluErf,
        "sigmoid" => Unary::Sigmoid,
        "relu" => Unary::Relu,
        "tanh" => Unary::Tanh,
        _ => return None,
    })
}

fn weight_format(name: &str) -> Result<WeightFormat, String> {
    let known = [
        WeightFormat::F32,
        WeightFormat::F16,
        WeightFormat::Bf16,
        WeightFormat::Q8 { block: 32 },
        WeightFormat::Q4 { min: false },
        WeightFormat::Q4 { min: true },
        WeightFormat::Mxfp4,
    ];
    let found = known.into_iter().find(|format| format.to_string() == name);
    found.ok_or_else(|| format!("`{name}` is no weight format"))
}
