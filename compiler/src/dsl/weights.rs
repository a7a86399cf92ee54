use std::panic::Location;

use super::{Builder, Layers, Tensor};
use crate::graph::{Dim, WeightId, WeightRole};

/// The checkpoint's tensors, by name.
#[derive(Clone, Copy)]
pub struct Weights<'g> {
    builder: &'g Builder,
}

/// A `[rows, columns]` weight, with a bias of `rows` or without.
#[derive(Clone, Copy)]
pub struct Matrix<'g> {
    builder: &'g Builder,
    pub(super) id: WeightId,
    pub(super) rows: Dim,
    pub(super) columns: Dim,
    pub(super) bias: Option<WeightId>,
    at: &'static Location<'static>,
}

/// A `[n]` weight: of a norm, say.
#[derive(Clone, Copy)]
pub struct Vector<'g> {
    builder: &'g Builder,
    pub(super) id: WeightId,
    pub(super) length: Dim,
}

impl<'g> Weights<'g> {
    pub(super) fn new(builder: &'g Builder) -> Self {
        Weights { builder }
    }

    pub fn builder(self) -> &'g Builder {
        self.builder
    }

    /// The checkpoint tensor `{path}.weight`, `[rows, columns]`.
    #[track_caller]
    pub fn matrix(self, path: &str, rows: impl Into<Dim>, columns: impl Into<Dim>) -> Matrix<'g> {
        let (rows, columns) = (rows.into(), columns.into());
        let at = Location::caller();
        let name = format!("{path}.weight");
        let shape = vec![rows, columns];
        Matrix {
            builder: self.builder,
            id: self.builder.declare_weight(name, shape, WeightRole::Matrix, at),
            rows,
            columns,
            bias: None,
            at,
        }
    }

    /// The checkpoint tensor `{path}.weight`, `[length]`.
    #[track_caller]
    pub fn vector(self, path: &str, length: impl Into<Dim>) -> Vector<'g> {
        let length = length.into();
        let name = format!("{path}.weight");
        let (role, at) = (WeightRole::Vector, Location::caller());
        Vector {
            builder: self.builder,
            id: self.builder.declare_weight(name, vec![length], role, at),
            length,
        }
    }

    /// `other` if the checkpoint ties the two, else a matrix of the same shape at `path`.
    #[track_caller]
    pub fn tied_or(self, path: &str, other: Matrix<'g>, tied: bool) -> Matrix<'g> {
        if tied {
            other
        } else {
            self.matrix(path, other.rows, other.columns)
        }
    }

    /// `count` layers of one kind, their weights at `{path}.0`, `{path}.1` and so on.
    pub fn layers(self, path: &str, count: impl Into<Dim>) -> Layers<'g, ()> {
        Layers::new(self.builder, path, vec![(); count.into().value()])
    }

    /// One layer for each of `kinds`, their weights at `{path}.0`, `{path}.1` and so on.
    pub fn layers_of<K: super::LayerKind>(self, path: &str, kinds: &[K]) -> Layers<'g, K> {
        Layers::new(self.builder, path, kinds.to_vec())
    }
}

impl<'g> Matrix<'g> {
    /// With the bias `[rows]` beside it in the checkpoint (`bias` instead of `weight`), if `biased`.
    pub fn biased(self, biased: bool) -> Self {
        if !biased {
            return self;
        }
        let weight = self.builder.weight_name(self.id);
        let name = format!("{}bias", weight.trim_end_matches("weight"));
        let (role, shape) = (WeightRole::Vector, vec![self.rows]);
        let bias = self.builder.declare_weight(name, shape, role, self.at);
        Matrix {
            bias: Some(bias),
            ..self
        }
    }

    pub(super) fn name(self) -> String {
        self.builder.weight_name(self.id)
    }

    pub(super) fn tensor(self) -> Tensor<'g> {
        self.builder.weight(self.id)
    }
}

impl<'g> Vector<'g> {
    pub(super) fn name(self) -> String {
        self.builder.weight_name(self.id)
    }

    pub(super) fn tensor(self) -> Tensor<'g> {
        self.builder.weight(self.id)
    }
}
