//! The dataflow graph that an architecture lowers to, for one config.
//!
//! Semantics. A model is three kinds of [`Section`]: an entry (token ids to hidden states), one
//! section for each distinct kind of layer (a *template*: hidden states to hidden states), and an
//! head (hidden states to logits). [`ModelGraph::layers`] says which template each layer stamps.
//! Every value is f32 but token ids (u32). Shapes start with the tokens of the step, `T`, which stays
//! symbolic; the other dimensions are [`Dim`]s: symbols of the config together with their values.
//! Row-major: the last dimension is contiguous.

mod declared;
mod dim;
mod dump;
mod op;
mod shape;
mod sizes;
#[cfg(test)]
pub(crate) mod test_models;
mod verify;

pub use declared::DeclaredWeight;
pub use dim::Dim;
pub use op::{AttentionSpec, Binary, Gate, Op, RopeSpec, RouteSpec, Scoring, Unary};
pub use sizes::oversized;
pub use verify::{GraphError, verify};

use petgraph::graph::{DiGraph, NodeIndex};

/// A whole model, bound to one config.
#[derive(Clone, Debug)]
pub struct ModelGraph {
    /// Hugging Face architecture name.
    pub architecture: String,
    pub entry: Section,
    pub templates: Vec<Template>,
    /// One entry per layer, in order.
    pub layers: Vec<Layer>,
    pub head: Section,
    pub weights: Vec<WeightDecl>,
    /// Weights that a checkpoint may have under two names.
    pub tied: Vec<TiedWeight>,
    /// Parts of the family's checkpoints that the model does not use.
    pub unused: &'static [&'static str],
    pub states: Vec<StateDecl>,
    pub ropes: Vec<RopeSpec>,
}

/// A tensor that is meant to equal a weight: a head that is tied to the embedding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TiedWeight {
    /// Its name in the checkpoint.
    pub tensor: String,
    /// Name of the weight.
    pub weight: String,
}

/// One distinct kind of layer.
#[derive(Clone, Debug)]
pub struct Template {
    /// What tells it from the other templates, e.g. `sliding_attention`; `layer` if it is the only one.
    pub kind: String,
    pub section: Section,
}

/// A layer stamped from a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    pub template: usize,
    /// Its number in the checkpoint: replaces `{}` in the names of weights and states.
    pub index: usize,
}

/// Nodes and the value that leaves them. Edge weights are operand positions.
#[derive(Clone, Debug)]
pub struct Section {
    pub nodes: DiGraph<Node, u8>,
    pub output: NodeIndex,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub op: Op,
    pub shape: Shape,
    /// The author's name for it (a `let`), if it has one.
    pub name: Option<String>,
    /// Where the author wrote it.
    pub span: Span,
}

/// The dimensions of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Whether a leading `T` (tokens of the step) precedes `dims`; false for weights.
    pub per_token: bool,
    pub dims: Vec<Dim>,
}

/// File, line and column in the author's source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub file: &'static str,
    pub line: u32,
    pub column: u32,
}

/// A checkpoint tensor that the definition asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightDecl {
    /// Full checkpoint name, `{}` standing for the layer number, e.g.
    /// `model.layers.{}.self_attn.q_proj.weight`.
    pub name: String,
    pub shape: Vec<Dim>,
    pub role: WeightRole,
    pub stored: Stored,
}

/// How the checkpoint holds a weight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stored {
    /// As a tensor of the weight's name and shape.
    #[default]
    AsDeclared,
    /// Within other tensors. "Rows" are the last dimension but one of a matrix or bank, and the last of a vector; a bank
    /// has such rows for each expert.
    Within {
        /// Full checkpoint name, with `{}` for the layer number. With `{expert}` in it there is one tensor for each
        /// expert of a bank; without, a bank is one tensor whose first dimension is the experts.
        tensor: String,
        /// Which of the tensor's rows, in order; empty: all.
        rows: Vec<RowBlocks>,
        /// Each expert's matrix is stored `[cols, rows]`; not where it is stored as MXFP4 blocks.
        transposed: bool,
    },
    /// In the first of these ways whose tensors the checkpoint has; the first if it has none. None is a choice itself.
    OneOf(Vec<Stored>),
}

/// Rows of a tensor (of each expert's matrix): its rows fall into groups of `group`; of each group the rows
/// `start, start + step, ..`, `len` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowBlocks {
    pub group: usize,
    pub start: usize,
    pub len: usize,
    pub step: usize,
}

/// How a weight is used, which decides how it may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightRole {
    /// `[out, in]` of a linear map or `[vocab, hidden]` of an embedding: may be quantized.
    Matrix,
    /// A matrix that stays as the checkpoint has it: a router, where small errors choose other experts.
    Exact,
    /// `[experts, out, in]`: a matrix for each expert; may be quantized.
    Bank,
    /// Norm weights, biases, convolutions: always f32, of any rank.
    Vector,
}

/// State that lives across steps, one instance per layer that uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDecl {
    /// `{}` stands for the layer number.
    pub name: String,
    pub shape: Vec<Dim>,
    pub kind: StateKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateKind {
    /// Keys and values of each position, each `[kv_heads, head_dim]`. Only the last `window` positions are needed (a
    /// sliding window); `None` keeps all.
    Cache { window: Option<usize> },
    /// The input `[channels]` of a convolution at each of the last `taps - 1` positions.
    Convolution { taps: usize },
    /// `[heads, key_dim, value_dim]`, f32: sums up all tokens so far.
    Recurrent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub usize);
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateId(pub usize);
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RopeId(pub usize);

impl Section {
    /// The operands of a node, in order.
    pub fn operands(&self, node: NodeIndex) -> Vec<NodeIndex> {
        use petgraph::visit::EdgeRef;
        let mut edges: Vec<_> = self
            .nodes
            .edges_directed(node, petgraph::Direction::Incoming)
            .map(|edge| (*edge.weight(), edge.source()))
            .collect();
        edges.sort_unstable_by_key(|(position, _)| *position);
        edges.into_iter().map(|(_, source)| source).collect()
    }
}

impl ModelGraph {
    /// All sections with a name for messages: entry, templates, head.
    pub fn sections(&self) -> impl Iterator<Item = (&str, &Section)> {
        std::iter::once(("entry", &self.entry))
            .chain(self.templates.iter().map(|t| (t.kind.as_str(), &t.section)))
            .chain(std::iter::once(("head", &self.head)))
    }
}

impl WeightDecl {
    /// The checkpoint name in layer `index`.
    pub fn name_in(&self, index: usize) -> String {
        self.name.replacen("{}", &index.to_string(), 1)
    }

    /// Elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|dim| dim.value() as u64).product()
    }
}
