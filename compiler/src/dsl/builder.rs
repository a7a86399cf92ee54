use std::cell::{Ref, RefCell, RefMut};
use std::collections::BTreeMap;
use std::panic::Location;

use petgraph::graph::{DiGraph, NodeIndex};

use super::source::Declared;
use super::{Logits, Problem, Source, Tensor, Tokens, Weights};
use crate::graph::{
    Dim, Layer, ModelGraph, Node, Op, RopeId, RopeSpec, Section, Shape, Span, StateDecl, StateId, StateKind, Template,
    TiedWeight, WeightDecl, WeightId, WeightRole,
};

/// Collects the graph, and every mistake, while a definition runs.
///
/// A mistake never stops the definition: the operator's result gets the shape that it should have had,
/// so that one run finds all mistakes.
#[derive(Default)]
pub struct Builder {
    state: RefCell<State>,
}

#[derive(Default)]
pub(super) struct State {
    weights: Vec<Weight>,
    tied: Vec<TiedWeight>,
    states: Vec<StateDecl>,
    ropes: Vec<RopeSpec>,
    pub(super) layers: Vec<Layer>,
    closed: Vec<Section>,
    /// Names of the templates among `closed`, which follow the entry.
    kinds: Vec<String>,
    open: Scope,
    pub(super) problems: Vec<Problem>,
}

/// A declared weight, where it came from and where the author asked for it.
struct Weight {
    declaration: WeightDecl,
    source: Source,
    span: Span,
}

impl State {
    /// Once, where the body of the loop makes the same mistake for several kinds of layer.
    fn complain(&mut self, at: impl Into<Span>, message: String) {
        let problem = Problem {
            span: at.into(),
            message,
        };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}

/// The section that is being traced.
#[derive(Default)]
struct Scope {
    /// Kind of layer; `None` in entry and head.
    kind: Option<String>,
    nodes: DiGraph<Node, u8>,
    /// One node a weight.
    weights: BTreeMap<WeightId, NodeIndex>,
}

impl Builder {
    pub fn new() -> Self {
        Builder::default()
    }

    /// What a definition starts from: its weights, and the token ids of the step.
    #[track_caller]
    pub fn start(&self) -> (Weights<'_>, Tokens<'_>) {
        let shape = Shape::per_token([]);
        let tokens = self.add(Op::Tokens, &[], shape, Location::caller());
        self.set_name(tokens, "tokens");
        (Weights::new(self), Tokens(tokens))
    }

    /// The finished graph, or all the mistakes.
    pub fn finish(&self, architecture: &str, logits: Logits<'_>) -> Result<ModelGraph, Vec<Problem>> {
        let span = self.node(logits, |node| node.span);
        let output = self.adopt(logits, span);
        self.set_name(output, "logits");
        self.close(output);
        let state = std::mem::take(&mut *self.state.borrow_mut());
        let mut problems = state.problems;
        let used = used_weights(&state.closed);
        for (id, weight) in state.weights.iter().enumerate() {
            if !used.contains(&WeightId(id)) {
                problems.push(Problem {
                    span: weight.span,
                    message: format!("nothing uses the weight `{}`", weight.declaration.name),
                });
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut sections = state.closed.into_iter();
        let (Some(entry), Some(head)) = (sections.next(), sections.next_back()) else {
            let message = "a definition needs a loop over `w.layers(..)`".to_string();
            return Err(vec![Problem { span, message }]);
        };
        Ok(ModelGraph {
            architecture: architecture.to_string(),
            entry,
            templates: (state.kinds.into_iter().zip(sections))
                .map(|(kind, section)| Template { kind, section })
                .collect(),
            layers: state.layers,
            head,
            weights: state.weights.into_iter().map(|weight| weight.declaration).collect(),
            tied: state.tied,
            unused: &[],
            states: state.states,
            ropes: state.ropes,
        })
    }

    /// How many nodes the open section has; see [`Self::bind`].
    pub fn mark(&self) -> usize {
        self.state.borrow().open.nodes.node_count()
    }

    /// Gives the author's name to the last node made since `mark`, if there is one without a name.
    pub fn bind(&self, name: &str, mark: usize) {
        let mut state = self.state.borrow_mut();
        let count = state.open.nodes.node_count();
        if count > mark {
            let last = &mut state.open.nodes[NodeIndex::new(count - 1)];
            last.name.get_or_insert_with(|| name.to_string());
        }
    }

    pub(super) fn state(&self) -> Ref<'_, State> {
        self.state.borrow()
    }

    pub(super) fn state_mut(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    pub(super) fn problem(&self, at: impl Into<Span>, message: String) {
        self.state_mut().complain(at, message);
    }

    /// Adds an operator to the open section.
    pub(super) fn add<'g>(
        &'g self,
        op: Op,
        operands: &[Tensor<'g>],
        shape: Shape,
        at: &'static Location<'static>,
    ) -> Tensor<'g> {
        self.add_at(op, operands, shape, Span::from(at))
    }

    fn add_at<'g>(&'g self, op: Op, operands: &[Tensor<'g>], shape: Shape, span: Span) -> Tensor<'g> {
        let operands: Vec<Tensor<'g>> = operands.iter().map(|t| self.adopt(*t, span)).collect();
        let mut state = self.state.borrow_mut();
        let section = state.closed.len();
        let nodes = &mut state.open.nodes;
        let node = nodes.add_node(Node {
            op,
            shape,
            name: None,
            span,
        });
        for (position, operand) in (0u8..).zip(&operands) {
            nodes.add_edge(operand.node, node, position);
        }
        Tensor::new(self, section, node)
    }

    /// The node that reads a weight in the open section.
    pub(super) fn weight(&self, id: WeightId) -> Tensor<'_> {
        let mut state = self.state.borrow_mut();
        let section = state.closed.len();
        if let Some(node) = state.open.weights.get(&id) {
            return Tensor::new(self, section, *node);
        }
        let weight = &state.weights[id.0];
        let node = Node {
            op: Op::Weight(id),
            shape: Shape::fixed(weight.declaration.shape.iter().copied()),
            name: None,
            span: weight.span,
        };
        let node = state.open.nodes.add_node(node);
        state.open.weights.insert(id, node);
        Tensor::new(self, section, node)
    }

    /// Declares a weight, or finds it if the same one has been declared before.
    pub(super) fn declare_weight(
        &self,
        source: Source,
        shape: Vec<Dim>,
        role: WeightRole,
        at: &'static Location<'static>,
    ) -> WeightId {
        let rows = match (role, &shape[..]) {
            (WeightRole::Bank, [_, rows, ..]) | (_, [rows, ..]) => rows.value(),
            (_, []) => 0,
        };
        self.declare(source, false, rows, shape, role, at)
    }

    /// Declares the bias beside a weight: `[rows]`, or `[experts, rows]` of a bank.
    pub(super) fn declare_bias(&self, of: WeightId, shape: Vec<Dim>, at: &'static Location<'static>) -> WeightId {
        let source = self.state().weights[of.0].source.clone();
        let rows = shape.last().map_or(0, |rows| rows.value());
        self.declare(source, true, rows, shape, WeightRole::Vector, at)
    }

    /// `rows` is how many rows of its tensor, or of each expert's part of it, the weight is.
    fn declare(
        &self,
        source: Source,
        bias: bool,
        rows: usize,
        shape: Vec<Dim>,
        role: WeightRole,
        at: &'static Location<'static>,
    ) -> WeightId {
        let mut state = self.state.borrow_mut();
        let Declared { name, stored } = source.declare(rows, bias).unwrap_or_else(|problem| {
            state.complain(at, problem);
            Declared::unknown(&source)
        });
        let written = Shape::fixed(shape.iter().copied());
        if shape.iter().any(|dim| dim.value() == 0) {
            state.complain(at, format!("`{name}` is {written}: it has no elements"));
        }
        if let Some(id) = state.weights.iter().position(|weight| weight.declaration.name == name) {
            let Weight { declaration, span, .. } = &state.weights[id];
            let known = Shape::fixed(declaration.shape.iter().copied());
            if declaration.shape != shape || declaration.role != role {
                let message = format!(
                    "`{name}` is asked for as {role:?} {written} here, but as {:?} {known} at {span}",
                    declaration.role,
                );
                state.complain(at, message);
            } else if declaration.stored != stored {
                let message = format!("`{name}` is asked for as other rows of its tensor here than at {span}");
                state.complain(at, message);
            }
            return WeightId(id);
        }
        state.weights.push(Weight {
            declaration: WeightDecl {
                name,
                shape,
                role,
                stored,
            },
            source,
            span: Span::from(at),
        });
        WeightId(state.weights.len() - 1)
    }

    /// Says that the checkpoint may have `weight` under the name `path` as well, or only there.
    pub(super) fn tie(&self, path: &str, weight: WeightId) {
        let name = self.weight_name(weight);
        let tied = TiedWeight {
            tensor: format!("{path}.weight"),
            weight: name,
        };
        self.state_mut().tied.push(tied);
    }

    pub(super) fn weight_name(&self, id: WeightId) -> String {
        self.state().weights[id.0].declaration.name.clone()
    }

    /// Declares a state of the layer that is being traced; `name` is made unique within it.
    pub(super) fn declare_state(&self, name: &str, shape: Vec<Dim>, kind: StateKind) -> StateId {
        let mut state = self.state.borrow_mut();
        let here: Vec<&str> = (state.open.nodes.node_weights())
            .filter_map(|node| node.op.state())
            .map(|id| state.states[id.0].name.as_str())
            .collect();
        let mut unique = name.to_string();
        let mut number = 0;
        while here.contains(&unique.as_str()) {
            number += 1;
            unique = format!("{name}{number}");
        }
        state.states.push(StateDecl {
            name: unique,
            shape,
            kind,
        });
        StateId(state.states.len() - 1)
    }

    /// Where the layer being defined put these keys and values into a cache.
    pub(super) fn cache_of(&self, keys: Tensor<'_>, values: Tensor<'_>) -> Option<Span> {
        let state = self.state();
        let nodes = &state.open.nodes;
        let reads = |node, operand: Tensor<'_>, position| {
            let mut edges = nodes.edges_connecting(operand.node, node);
            operand.section == state.closed.len() && edges.any(|edge| *edge.weight() == position)
        };
        let caches = (nodes.node_indices()).filter(|node| matches!(nodes[*node].op, Op::CacheWrite(_)));
        let mut same = caches.filter(|node| reads(*node, keys, 0) && reads(*node, values, 1));
        same.next().map(|node| nodes[node].span)
    }

    /// Notes that a reader of the state needs its last `window` positions (`None`: all).
    pub(super) fn widen_state(&self, id: StateId, window: Option<usize>) {
        let mut state = self.state.borrow_mut();
        if let StateKind::Cache { window: needed } = &mut state.states[id.0].kind {
            *needed = needed.zip(window).map(|(a, b)| a.max(b));
        }
    }

    /// Declares a rotation, or finds it; the name of another one is made unique.
    pub(super) fn declare_rope(&self, spec: RopeSpec) -> RopeId {
        let mut state = self.state.borrow_mut();
        let mut name = spec.name.clone();
        let mut number = 0;
        loop {
            let named = RopeSpec {
                name: name.clone(),
                ..spec.clone()
            };
            match state.ropes.iter().position(|rope| rope.name == name) {
                Some(known) if state.ropes[known] == named => return RopeId(known),
                Some(_) => {
                    number += 1;
                    name = format!("{}{number}", spec.name);
                }
                None => {
                    state.ropes.push(named);
                    return RopeId(state.ropes.len() - 1);
                }
            }
        }
    }

    /// Kind of the layer that is being traced.
    pub(super) fn layer_kind(&self) -> Option<String> {
        self.state().open.kind.clone()
    }

    /// Ends the open section.
    pub(super) fn close(&self, output: Tensor<'_>) {
        let mut state = self.state.borrow_mut();
        let scope = std::mem::take(&mut state.open);
        state.kinds.extend(scope.kind);
        state.closed.push(Section {
            nodes: scope.nodes,
            output: output.node,
        });
    }

    /// Starts a section, a template if it has a kind, with the value that enters it.
    pub(super) fn enter(&self, kind: Option<String>, shape: Shape, at: &'static Location<'static>) -> Tensor<'_> {
        self.state_mut().open.kind = kind;
        self.add(Op::LayerInput, &[], shape, at)
    }

    pub(super) fn shape(&self, tensor: Tensor<'_>) -> Shape {
        self.node(tensor, |node| node.shape.clone())
    }

    /// The author's name for a value, or what made it and where.
    pub(super) fn describe(&self, tensor: Tensor<'_>) -> String {
        self.node(tensor, |node| match &node.name {
            Some(name) => format!("`{name}`"),
            None => format!("the {} at {}", node.op.name(), node.span),
        })
    }

    pub(super) fn name(&self, tensor: Tensor<'_>) -> Option<String> {
        self.node(tensor, |node| node.name.clone())
    }

    pub(super) fn set_name(&self, tensor: Tensor<'_>, name: &str) {
        let mut state = self.state.borrow_mut();
        if tensor.section == state.closed.len() {
            let node = &mut state.open.nodes[tensor.node];
            node.name.get_or_insert_with(|| name.to_string());
        }
    }

    fn node<T>(&self, tensor: Tensor<'_>, read: impl FnOnce(&Node) -> T) -> T {
        let state = self.state();
        match state.closed.get(tensor.section) {
            Some(section) => read(&section.nodes[tensor.node]),
            None => read(&state.open.nodes[tensor.node]),
        }
    }

    /// The tensor itself if it belongs to the open section; otherwise a mistake, and a stand-in.
    pub(super) fn adopt<'g>(&'g self, tensor: Tensor<'g>, at: impl Into<Span>) -> Tensor<'g> {
        if tensor.section == self.state().closed.len() {
            return tensor;
        }
        let at = at.into();
        self.problem(
            at,
            format!(
                "{} was made in another part of the definition; only the value that the layers \
                 assign goes into the loop and out of it",
                self.describe(tensor)
            ),
        );
        self.add_at(Op::LayerInput, &[], self.shape(tensor), at)
    }
}

fn used_weights(sections: &[Section]) -> Vec<WeightId> {
    let nodes = sections.iter().flat_map(|section| section.nodes.node_weights());
    nodes
        .filter_map(|node| match node.op {
            Op::Weight(id) => Some(id),
            _ => None,
        })
        .collect()
}
