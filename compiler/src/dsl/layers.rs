use std::panic::Location;

use super::{Bank, Builder, Cache, Filter, Matrix, Source, Tensor, Vector, Weights};
use crate::config::MOST_LAYERS;
use crate::graph::{self, Dim, Op, Shape, StateId, StateKind};

/// What tells one kind of layer from another. Layers of equal kind share a template.
pub trait LayerKind: Clone + PartialEq {
    /// Name of the template.
    fn name(&self) -> String;
}

/// All layers are alike.
impl LayerKind for () {
    fn name(&self) -> String {
        "layer".to_string()
    }
}

/// Two things that layers differ in: `conv moe`.
impl<A: LayerKind, B: LayerKind> LayerKind for (A, B) {
    fn name(&self) -> String {
        format!("{} {}", self.0.name(), self.1.name())
    }
}

/// The layers of a model, to be gone over by `for layer in ..` in a definition.
pub struct Layers<'g, K> {
    builder: &'g Builder,
    path: String,
    kinds: Vec<K>,
}

/// The layer that the body of the loop defines: a stand-in for all layers of its kind.
pub struct Layer<'g, K> {
    builder: &'g Builder,
    path: String,
    kind: K,
}

/// The loop over the layers, made explicit: `#[architecture]` writes
///
/// ```ignore
/// for layer in w.layers(..) { x += ..; }
/// // as
/// let mut stack = w.layers(..).enter(x);
/// while let Some((layer, input)) = stack.next_template() {
///     x = input;
///     { x += ..; }
///     stack.output(x);
/// }
/// x = stack.leave();
/// ```
pub struct Stack<'g, K> {
    builder: &'g Builder,
    path: String,
    /// Distinct kinds that are still to be traced, last first.
    rest: Vec<K>,
    shape: Shape,
    /// The author's name for what goes from layer to layer.
    name: Option<String>,
    at: &'static Location<'static>,
}

impl<'g, K: LayerKind> Layers<'g, K> {
    pub(super) fn new(builder: &'g Builder, path: &str, kinds: Vec<K>) -> Self {
        Layers {
            builder,
            path: path.to_string(),
            kinds,
        }
    }

    /// Ends the entry: `carried` is what goes from layer to layer.
    #[track_caller]
    pub fn enter(self, carried: Tensor<'g>) -> Stack<'g, K> {
        let at = Location::caller();
        let mut distinct: Vec<K> = Vec::new();
        let mut layers = Vec::new();
        for (index, kind) in (0..=MOST_LAYERS as usize).zip(self.kinds) {
            let known = distinct.iter().position(|k| *k == kind);
            let template = known.unwrap_or(distinct.len());
            if known.is_none() {
                distinct.push(kind);
            }
            layers.push(graph::Layer { template, index });
        }
        if distinct.is_empty() {
            self.builder.problem(at, "the model has no layers".to_string());
        }
        if layers.len() as u64 > MOST_LAYERS {
            self.builder
                .problem(at, format!("the model has more than {MOST_LAYERS} layers"));
        }
        let carried = self.builder.adopt(carried, at);
        let (shape, name) = (carried.shape(), self.builder.name(carried));
        self.builder.close(carried);
        self.builder.state_mut().layers = layers;
        distinct.reverse();
        Stack {
            builder: self.builder,
            path: self.path,
            rest: distinct,
            shape,
            name,
            at,
        }
    }
}

impl<'g, K: LayerKind> Stack<'g, K> {
    /// The next kind of layer to define, and what enters a layer.
    pub fn next_template(&mut self) -> Option<(Layer<'g, K>, Tensor<'g>)> {
        let kind = self.rest.pop()?;
        let input = self.enter(Some(kind.name()));
        let layer = Layer {
            builder: self.builder,
            path: format!("{}.{{}}", self.path),
            kind,
        };
        Some((layer, input))
    }

    /// Ends the layer with what leaves it.
    #[track_caller]
    pub fn output(&mut self, carried: Tensor<'g>) {
        let at = Location::caller();
        let carried = self.builder.adopt(carried, at);
        let found = carried.shape();
        if found != self.shape {
            let message = format!(
                "a layer takes {} and leaves {} as {found}: they must be alike",
                self.shape,
                self.builder.describe(carried),
            );
            self.builder.problem(at, message);
        }
        self.builder.close(carried);
    }

    /// Starts the head: what leaves the last layer.
    pub fn leave(self) -> Tensor<'g> {
        self.enter(None)
    }

    fn enter(&self, kind: Option<String>) -> Tensor<'g> {
        let input = self.builder.enter(kind, self.shape.clone(), self.at);
        if let Some(name) = &self.name {
            self.builder.set_name(input, name);
        }
        input
    }
}

impl<'g, K: LayerKind> Layer<'g, K> {
    /// Which kind of layer is being defined.
    pub fn kind(&self) -> &K {
        &self.kind
    }

    /// A matrix of the layer: see [`Weights::matrix`].
    #[track_caller]
    pub fn matrix(&self, source: impl Into<Source>, rows: impl Into<Dim>, columns: impl Into<Dim>) -> Matrix<'g> {
        self.weights().matrix(self.full(source), rows, columns)
    }

    /// A matrix of the layer that chooses experts: see [`Weights::router`].
    #[track_caller]
    pub fn router(&self, source: impl Into<Source>, experts: impl Into<Dim>, columns: impl Into<Dim>) -> Matrix<'g> {
        self.weights().router(self.full(source), experts, columns)
    }

    /// A vector of the layer: see [`Weights::vector`].
    #[track_caller]
    pub fn vector(&self, source: impl Into<Source>, length: impl Into<Dim>) -> Vector<'g> {
        self.weights().vector(self.full(source), length)
    }

    /// The layer's matrices, one for each expert: see [`Weights::bank`].
    #[track_caller]
    pub fn bank(
        &self,
        source: impl Into<Source>,
        experts: impl Into<Dim>,
        rows: impl Into<Dim>,
        columns: impl Into<Dim>,
    ) -> Bank<'g> {
        self.weights().bank(self.full(source), experts, rows, columns)
    }

    /// Weights of a convolution of the layer: see [`Weights::filter`].
    #[track_caller]
    pub fn filter(&self, source: impl Into<Source>, channels: impl Into<Dim>, taps: impl Into<Dim>) -> Filter<'g> {
        self.weights().filter(self.full(source), channels, taps)
    }

    /// Appends keys and values, each `[T, kv_heads, width]`, to a cache of the layer. A layer may have several; queries that
    /// share one take the same `Cache`.
    #[track_caller]
    pub fn cache(&self, keys: Tensor<'g>, values: Tensor<'g>) -> Cache<'g> {
        let at = Location::caller();
        let (shape, other) = (keys.shape(), values.shape());
        if shape != other || shape.dims.len() != 2 {
            let message = format!(
                "cache: keys and values must both be [T, kv_heads, width], but {} is {shape}, {} is {other}",
                self.builder.describe(keys),
                self.builder.describe(values),
            );
            self.builder.problem(at, message);
        }
        if let Some(known) = self.builder.cache_of(keys, values) {
            let message = format!(
                "cache: {} and {} are in a cache already, made at {known}; use that one: let cache = layer.cache(..)",
                self.builder.describe(keys),
                self.builder.describe(values),
            );
            self.builder.problem(at, message);
        }
        let kind = StateKind::Cache { window: Some(0) };
        let state = self.declare_state("kv", shape.dims.clone(), kind);
        let shape = Shape::fixed(shape.dims);
        let tensor = self.builder.add(Op::CacheWrite(state), &[keys, values], shape, at);
        Cache { tensor, state }
    }

    fn weights(&self) -> Weights<'g> {
        Weights::new(self.builder)
    }

    fn full(&self, source: impl Into<Source>) -> Source {
        source.into().within(&self.path)
    }

    pub(super) fn declare_state(&self, name: &str, shape: Vec<Dim>, kind: StateKind) -> StateId {
        self.builder
            .declare_state(&format!("{}.{name}", self.path), shape, kind)
    }

    /// For `#[block]`.
    pub fn builder(&self) -> &'g Builder {
        self.builder
    }
}
