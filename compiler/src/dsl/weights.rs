use std::panic::Location;

use super::{Builder, Layers, Source, Tensor};
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

/// A `[rows, columns]` matrix for each of `experts`, with biases `[experts, rows]` or without.
#[derive(Clone, Copy)]
pub struct Bank<'g> {
    builder: &'g Builder,
    pub(super) id: WeightId,
    pub(super) experts: Dim,
    pub(super) rows: Dim,
    pub(super) columns: Dim,
    pub(super) bias: Option<WeightId>,
    at: &'static Location<'static>,
}

/// A `[channels, 1, taps]` weight of a convolution over tokens, with a bias of `channels` or without.
#[derive(Clone, Copy)]
pub struct Filter<'g> {
    builder: &'g Builder,
    pub(super) id: WeightId,
    pub(super) channels: Dim,
    pub(super) taps: Dim,
    pub(super) bias: Option<WeightId>,
    at: &'static Location<'static>,
}

impl<'g> Weights<'g> {
    pub(super) fn new(builder: &'g Builder) -> Self {
        Weights { builder }
    }

    pub fn builder(self) -> &'g Builder {
        self.builder
    }

    /// A matrix: of a path `p`, the checkpoint tensor `p.weight`, `[rows, columns]`.
    #[track_caller]
    pub fn matrix(self, source: impl Into<Source>, rows: impl Into<Dim>, columns: impl Into<Dim>) -> Matrix<'g> {
        self.matrix_of(WeightRole::Matrix, source.into(), rows.into(), columns.into())
    }

    /// A matrix that is never quantized, since small errors in what it gives would choose other experts.
    #[track_caller]
    pub fn router(self, source: impl Into<Source>, experts: impl Into<Dim>, columns: impl Into<Dim>) -> Matrix<'g> {
        self.matrix_of(WeightRole::Exact, source.into(), experts.into(), columns.into())
    }

    #[track_caller]
    fn matrix_of(self, role: WeightRole, source: Source, rows: Dim, columns: Dim) -> Matrix<'g> {
        let at = Location::caller();
        Matrix {
            builder: self.builder,
            id: self.builder.declare_weight(source, vec![rows, columns], role, at),
            rows,
            columns,
            bias: None,
            at,
        }
    }

    /// A vector: of a path `p`, the checkpoint tensor `p.weight`, `[length]`.
    #[track_caller]
    pub fn vector(self, source: impl Into<Source>, length: impl Into<Dim>) -> Vector<'g> {
        let length = length.into();
        let (role, at) = (WeightRole::Vector, Location::caller());
        Vector {
            builder: self.builder,
            id: self.builder.declare_weight(source.into(), vec![length], role, at),
            length,
        }
    }

    /// A matrix for each expert. With `{expert}` in the source's path there is one tensor `[rows, columns]` for each,
    /// otherwise one `[experts, rows, columns]` for all.
    #[track_caller]
    pub fn bank(
        self,
        source: impl Into<Source>,
        experts: impl Into<Dim>,
        rows: impl Into<Dim>,
        columns: impl Into<Dim>,
    ) -> Bank<'g> {
        let (experts, rows, columns) = (experts.into(), rows.into(), columns.into());
        let (role, at) = (WeightRole::Bank, Location::caller());
        let shape = vec![experts, rows, columns];
        Bank {
            builder: self.builder,
            id: self.builder.declare_weight(source.into(), shape, role, at),
            experts,
            rows,
            columns,
            bias: None,
            at,
        }
    }

    /// The weights of a depthwise convolution: of a path `p`, the checkpoint tensor `p.weight`, `[channels, 1, taps]`.
    #[track_caller]
    pub fn filter(self, source: impl Into<Source>, channels: impl Into<Dim>, taps: impl Into<Dim>) -> Filter<'g> {
        let (channels, taps) = (channels.into(), taps.into());
        let (role, at) = (WeightRole::Vector, Location::caller());
        let shape = vec![channels, Dim::constant(1), taps];
        Filter {
            builder: self.builder,
            id: self.builder.declare_weight(source.into(), shape, role, at),
            channels,
            taps,
            bias: None,
            at,
        }
    }

    /// `other` if the checkpoint ties the two, else a matrix of the same shape at `path`.
    #[track_caller]
    pub fn tied_or(self, path: &str, other: Matrix<'g>, tied: bool) -> Matrix<'g> {
        if tied {
            self.builder.tie(path, other.id);
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
    pub fn biased(mut self, biased: bool) -> Self {
        self.bias = biased.then(|| self.builder.declare_bias(self.id, vec![self.rows], self.at));
        self
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

impl Bank<'_> {
    /// With the biases `[experts, rows]` beside it in the checkpoint, if `biased`.
    pub fn biased(mut self, biased: bool) -> Self {
        let shape = vec![self.experts, self.rows];
        self.bias = biased.then(|| self.builder.declare_bias(self.id, shape, self.at));
        self
    }
}

impl Filter<'_> {
    /// With the bias `[channels]` beside it in the checkpoint, if `biased`.
    pub fn biased(mut self, biased: bool) -> Self {
        self.bias = biased.then(|| self.builder.declare_bias(self.id, vec![self.channels], self.at));
        self
    }
}
