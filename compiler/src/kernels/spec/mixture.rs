//! Mixtures of experts. Routing is `array<vec2<u32>>` `[tokens][k]`: the number of an expert, and the bits of its f32
//! weight; the k experts of a token differ. A *slot* is one of the k; an *assignment* `token · k + slot`.

use super::{Prologue, Strided};
use crate::graph::{Gate, RouteSpec};
use crate::weights::WeightFormat;

/// Scores to routing, see [`crate::graph::Op::Route`].
/// Bindings: scores (strided), [selection bias (f32 `[experts]`)], routing (rw). Grid: (tokens).
#[derive(Clone, Debug, PartialEq)]
pub struct RouteKernelSpec {
    pub experts: u32,
    pub route: RouteSpec,
    pub scores: Strided,
    pub selection_bias: bool,
}

/// One token's scores and routing in one dispatch: `route(w · prologue(x) + bias)`.
/// Bindings: x, [norm weight], weight, [bias (f32 `[experts]`)], [selection bias (f32 `[experts]`)], routing (rw).
/// Grid: (1).
#[derive(Clone, Debug, PartialEq)]
pub struct RouterSpec {
    pub experts: u32,
    pub cols: u32,
    pub format: WeightFormat,
    pub prologue: Prologue,
    pub bias: bool,
    pub route: RouteSpec,
    pub selection_bias: bool,
}

/// Experts `first .. first + experts` of a bank of `of` experts: a matrix `[rows, cols]` each. Bindings: the elements of
/// these experts, `per_binding` in each binding (the last may hold fewer), then, if the format has them, one binding
/// with the scales of all `of` experts. Tokens of other experts are left to other dispatches.
#[derive(Clone, Debug, PartialEq)]
pub struct BankSpec {
    pub of: u32,
    pub first: u32,
    pub experts: u32,
    pub per_binding: u32,
    pub rows: u32,
    pub cols: u32,
    pub format: WeightFormat,
}

/// First half of a mixture, token by token: rows `2i` and `2i + 1` of each expert are gate and up.
/// `out[t, slot, i] = gate(W_e[2i] · prologue(x[t]) + b_e[2i], W_e[2i + 1] · prologue(x[t]) + b_e[2i + 1])`.
/// Bindings: x `[tokens, cols]`, [norm weight], routing, bank, [bias (f32 `[of][rows]`)],
/// out `[tokens, k, rows / 2]` (rw). Grid: (ceil(rows / rows_per_workgroup), tokens, k).
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertUpSpec {
    pub bank: BankSpec,
    pub k: u32,
    pub prologue: Prologue,
    pub gate: Gate,
    pub bias: bool,
    /// As in [`MatvecSpec`].
    pub workgroup: u32,
    pub rows_per_workgroup: u32,
    pub lane_words: u32,
}

/// What the sum of a mixture is stored with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Residual {
    None,
    /// Adds an activation `[tokens, rows]`: one more binding, before out.
    Add,
    /// Adds what out holds already.
    InPlace,
}

/// Which experts' activations a down projection sums over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slots {
    /// The k experts of the token: activations `[tokens, k, cols]`.
    Routed,
    /// All experts of the dispatch: activations `[tokens, of, cols]`; the weight of an expert that the token does not go
    /// to is 0.
    All,
}

/// Second half, token by token: `out[t, row] = Σ_slots weight · (W_e[row] · a[t, slot] + b_e[row])`, plus the residual.
/// Bindings: a, routing, bank, [bias (f32 `[of][rows]`)], [residual], out `[tokens, rows]` (rw).
/// Grid: (ceil(rows / rows_per_workgroup), tokens).
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertDownSpec {
    pub bank: BankSpec,
    pub k: u32,
    pub slots: Slots,
    pub bias: bool,
    pub residual: Residual,
    pub workgroup: u32,
    pub rows_per_workgroup: u32,
    pub lane_words: u32,
}

/// Sorts the assignments of the step by expert, and cuts each expert's into tiles of at most `tile`.
/// Bindings: routing, step, groups (u32, rw). Grid: (1). Layout of groups: word 0 the number of tiles; then for each of
/// at most `tiles_bound()` tiles three words: expert, its first place in the order, how many; from word
/// `order_at()` on the assignments in order.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupSpec {
    pub experts: u32,
    pub k: u32,
    /// Most tokens of a step.
    pub tokens: u32,
    /// Assignments of a tile.
    pub tile: u32,
}

/// First half for grouped tokens: as [`ExpertUpSpec`], for the assignments in their order.
/// Bindings: x `[tokens, cols]`, groups, bank, [bias (f32 `[of][rows]`)],
/// out `[assignments in order, rows / 2]` (rw).
/// Grid: (ceil(rows / GemmSpec::TILE_ROWS), `group.tiles_bound()`): workgroups beyond the tiles there are return at once.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupedUpSpec {
    pub bank: BankSpec,
    pub group: GroupSpec,
    pub gate: Gate,
    pub bias: bool,
}

/// Second half: `y[assignment, row] = W_e[row] · a[place in order] + b_e[row]`.
/// Bindings: a `[assignments in order, cols]`, groups, bank, [bias (f32 `[of][rows]`)], y `[tokens, k, rows]` (rw). Grid as [`GroupedUpSpec`].
#[derive(Clone, Debug, PartialEq)]
pub struct GroupedDownSpec {
    pub bank: BankSpec,
    pub group: GroupSpec,
    pub bias: bool,
}

/// `out[t] = Σ_slot weight · y[t, slot]`, plus the residual.
/// Bindings: y `[tokens, k, width]`, routing, [residual], out `[tokens, width]` (rw). Grid: (ceil(width / 256), tokens).
#[derive(Clone, Debug, PartialEq)]
pub struct CombineSpec {
    pub width: u32,
    pub k: u32,
    pub residual: Residual,
}

/// Second half over all experts of the bank for a chunk of tokens: as [`ExpertDownSpec`] with `Slots::All`, tiled like a
/// [`GemmSpec`]. The bank has one binding of elements.
/// Bindings: a `[tokens, of, cols]`, routing, bank, [bias (f32 `[of][rows]`)], step, [residual], out `[tokens, rows]` (rw).
/// Grid: (ceil(rows / TILE_ROWS), ceil(tokens / TILE_TOKENS)).
#[derive(Clone, Debug, PartialEq)]
pub struct DenseDownSpec {
    pub bank: BankSpec,
    pub k: u32,
    pub bias: bool,
    pub residual: Residual,
}
