use std::ops::{Add, AddAssign, Mul, Sub};
use std::panic::Location;

use petgraph::graph::NodeIndex;

use super::Builder;
use crate::config::Rope;
use crate::graph::{Binary, Dim, Op, Shape};

/// More elements of a head than any model has: a table of frequencies is made of it.
const WIDEST_ROPE: usize = 1 << 16;

/// A value of the model: `[T, ..]`, one row for each token of the step, in f32.
#[derive(Clone, Copy)]
pub struct Tensor<'g> {
    pub(super) builder: &'g Builder,
    /// Which section made it: sections are numbered as they are traced.
    pub(super) section: usize,
    pub(super) node: NodeIndex,
}

/// The token ids of the step: `[T]`, u32.
#[derive(Clone, Copy)]
pub struct Tokens<'g>(pub(super) Tensor<'g>);

/// `[T, vocab]`: what a definition returns.
pub type Logits<'g> = Tensor<'g>;

impl<'g> Tensor<'g> {
    pub(super) fn new(builder: &'g Builder, section: usize, node: NodeIndex) -> Self {
        Tensor { builder, section, node }
    }

    pub(super) fn shape(self) -> Shape {
        self.builder.shape(self)
    }

    /// `[T, heads · width] -> [T, heads, width]`
    #[track_caller]
    pub fn heads(self, heads: impl Into<Dim>, width: impl Into<Dim>) -> Self {
        let (heads, width) = (heads.into(), width.into());
        let at = Location::caller();
        let found = self.shape();
        if found.dims != [heads * width] {
            self.builder.problem(
                at,
                format!(
                    "heads: {} is {found}, not [T, {:?}]{}",
                    self.builder.describe(self),
                    heads * width,
                    only_numbers_agree(&found.dims, &[heads * width]),
                ),
            );
        }
        let shape = Shape::per_token([heads, width]);
        self.builder.add(Op::SplitHeads { heads, width }, &[self], shape, at)
    }

    /// Rotary position embedding of `[T, heads, width]`, with the parameters that the config gives for
    /// the kind of layer being defined.
    #[track_caller]
    pub fn rope(self, rope: &Rope) -> Self {
        let at = Location::caller();
        let shape = self.shape();
        let [_, width] = shape.dims[..] else {
            let what = self.builder.describe(self);
            let message = format!("rope: {what} is {shape}, not [T, heads, width]");
            self.builder.problem(at, message);
            return self;
        };
        if width.value() > WIDEST_ROPE {
            let message = format!("rope: heads of {width:?} elements; at most {WIDEST_ROPE} can be rotated");
            self.builder.problem(at, message);
            return self;
        }
        match rope.spec(self.builder.layer_kind().as_deref(), width.value()) {
            Ok(spec) => {
                let id = self.builder.declare_rope(spec);
                self.builder.add(Op::Rope(id), &[self], shape, at)
            }
            Err(message) => {
                self.builder.problem(at, format!("rope: {message}"));
                self
            }
        }
    }

    /// `cap · tanh(x / cap)`
    #[track_caller]
    pub fn softcap(self, cap: f32) -> Self {
        let at = Location::caller();
        check_cap(self, cap, at);
        self.builder.add(Op::Softcap(cap), &[self], self.shape(), at)
    }

    /// `min(max(x, -limit), limit)`
    #[track_caller]
    pub fn clamp(self, limit: f32) -> Self {
        let at = Location::caller();
        if !(limit >= 0.0 && limit.is_finite()) {
            self.builder.problem(at, format!("clamp: a limit of {limit}"));
        }
        self.builder.add(Op::Clamp(limit), &[self], self.shape(), at)
    }

    /// `[T, n] -> [T, len]`: the columns from `start` on.
    #[track_caller]
    pub fn columns(self, start: impl Into<Dim>, len: impl Into<Dim>) -> Self {
        let (at, start, len) = (Location::caller(), start.into(), len.into());
        let found = self.shape();
        let end = start.value().saturating_add(len.value());
        if !matches!(found.dims[..], [columns] if end <= columns.value()) {
            let what = self.builder.describe(self);
            let message = format!("columns: {what} is {found}, which has no {len:?} columns from {start:?} on");
            self.builder.problem(at, message);
        }
        let shape = Shape::per_token([len]);
        self.builder.add(Op::Slice { start, len }, &[self], shape, at)
    }

    /// `(x [T, n], factors [T, 1]) -> [T, n]`: each token's row times its factor.
    #[track_caller]
    pub fn scale_rows(self, factors: Self) -> Self {
        let at = Location::caller();
        let (found, of) = (self.shape(), factors.shape());
        if found.dims.len() != 1 || of.dims != [Dim::constant(1)] {
            let (what, factors) = (self.builder.describe(self), self.builder.describe(factors));
            let message = format!("scale_rows: {what} is {found}, not [T, n], or {factors} is {of}, not [T, 1]");
            self.builder.problem(at, message);
        }
        self.builder.add(Op::ScaleRows, &[self, factors], found, at)
    }

    /// `[T, heads, width] -> [T, heads · width]`
    #[track_caller]
    pub fn merge_heads(self) -> Self {
        let (at, found) = (Location::caller(), self.shape());
        let [heads, width] = found.dims[..] else {
            let what = self.builder.describe(self);
            let message = format!("merge_heads: {what} is {found}, not [T, heads, width]");
            self.builder.problem(at, message);
            return self;
        };
        let shape = Shape::per_token([heads * width]);
        self.builder.add(Op::MergeHeads, &[self], shape, at)
    }

    /// For `#[block]`.
    pub fn builder(self) -> &'g Builder {
        self.builder
    }

    fn binary(self, op: Binary, other: Self, at: &'static Location<'static>) -> Self {
        let (left, right) = (self.shape(), other.shape());
        if left != right {
            let builder = self.builder;
            let message = format!(
                "{}: {} is {left}, {} is {right}{}",
                Op::Binary(op).name(),
                builder.describe(self),
                builder.describe(other),
                only_numbers_agree(&left.dims, &right.dims),
            );
            builder.problem(at, message);
        }
        self.builder.add(Op::Binary(op), &[self, other], left, at)
    }
}

pub(super) fn check_cap(x: Tensor<'_>, cap: f32, at: &'static Location<'static>) {
    if !(cap > 0.0 && cap.is_finite()) {
        x.builder.problem(at, format!("softcap: a cap of {cap}"));
    }
}

/// Said where two shapes differ only in their symbols.
pub(super) fn only_numbers_agree(left: &[Dim], right: &[Dim]) -> &'static str {
    let values = |dims: &[Dim]| dims.iter().map(|dim| dim.value()).collect::<Vec<_>>();
    if left != right && values(left) == values(right) {
        " (the numbers are equal in this config only)"
    } else {
        ""
    }
}

impl Add for Tensor<'_> {
    type Output = Self;
    #[track_caller]
    fn add(self, other: Self) -> Self {
        self.binary(Binary::Add, other, Location::caller())
    }
}

impl AddAssign for Tensor<'_> {
    #[track_caller]
    fn add_assign(&mut self, other: Self) {
        *self = self.binary(Binary::Add, other, Location::caller());
    }
}

impl Sub for Tensor<'_> {
    type Output = Self;
    #[track_caller]
    fn sub(self, other: Self) -> Self {
        self.binary(Binary::Sub, other, Location::caller())
    }
}

/// Elementwise.
impl Mul for Tensor<'_> {
    type Output = Self;
    #[track_caller]
    fn mul(self, other: Self) -> Self {
        self.binary(Binary::Mul, other, Location::caller())
    }
}

impl Mul<f32> for Tensor<'_> {
    type Output = Self;
    #[track_caller]
    fn mul(self, factor: f32) -> Self {
        let at = Location::caller();
        if !factor.is_finite() {
            self.builder.problem(at, format!("mul: a factor of {factor}"));
        }
        self.builder.add(Op::Scale(factor), &[self], self.shape(), at)
    }
}
