//! Small graphs made by hand, for tests.

use petgraph::graph::{DiGraph, NodeIndex};

use super::{
    AttentionSpec, Binary, Dim, Gate, Layer, ModelGraph, Node, Op, RopeId, RopeSpec, RouteSpec, Scoring, Section,
    Shape, Span, StateDecl, StateId, StateKind, Stored, Template, Unary, WeightDecl, WeightId, WeightRole,
};

pub const VOCAB: usize = 11;
pub const HIDDEN: usize = 6;
pub const HEADS: usize = 3;
pub const WIDTH: usize = 4;

/// Builds a section: each node with the dimensions of its result and its operands.
#[derive(Default)]
struct Nodes(DiGraph<Node, u8>);

impl Nodes {
    fn add(&mut self, op: Op, dims: &[usize], operands: &[NodeIndex]) -> NodeIndex {
        let node = self.0.add_node(Node {
            shape: Shape {
                per_token: !matches!(op, Op::Weight(_) | Op::CacheWrite(_)),
                dims: dims.iter().map(|&dim| Dim::constant(dim)).collect(),
            },
            op,
            name: None,
            span: Span {
                file: file!(),
                line: 0,
                column: 0,
            },
        });
        for (position, &operand) in operands.iter().enumerate() {
            self.0.add_edge(operand, node, position as u8);
        }
        node
    }

    fn weight(&mut self, id: usize, dims: &[usize]) -> NodeIndex {
        self.add(Op::Weight(WeightId(id)), dims, &[])
    }

    fn section(self, output: NodeIndex) -> Section {
        Section { nodes: self.0, output }
    }
}

/// Two layers of rotary attention with one key-value head and a residual; the head is the embedding.
pub fn attention(window: Option<usize>) -> ModelGraph {
    let mut nodes = Nodes::default();
    let table = nodes.weight(0, &[VOCAB, HIDDEN]);
    let tokens = nodes.add(Op::Tokens, &[], &[]);
    let embedded = nodes.add(Op::Gather, &[HIDDEN], &[table, tokens]);
    let entry = nodes.section(embedded);

    let mut nodes = Nodes::default();
    let input = nodes.add(Op::LayerInput, &[HIDDEN], &[]);
    let projected = |nodes: &mut Nodes, weight: usize, heads: usize| {
        let weight = nodes.weight(weight, &[heads * WIDTH, HIDDEN]);
        let flat = nodes.add(Op::Linear, &[heads * WIDTH], &[input, weight]);
        let split = Op::SplitHeads {
            heads: heads.into(),
            width: WIDTH.into(),
        };
        nodes.add(split, &[heads, WIDTH], &[flat])
    };
    let q = projected(&mut nodes, 1, HEADS);
    let k = projected(&mut nodes, 2, 1);
    let v = projected(&mut nodes, 3, 1);
    let q = nodes.add(Op::Rope(RopeId(0)), &[HEADS, WIDTH], &[q]);
    let k = nodes.add(Op::Rope(RopeId(0)), &[1, WIDTH], &[k]);
    let cache = nodes.add(Op::CacheWrite(StateId(0)), &[1, WIDTH], &[k, v]);
    let attention = AttentionSpec {
        scale: 0.5,
        window,
        softcap: None,
    };
    let attended = nodes.add(Op::Attention(attention), &[HEADS, WIDTH], &[q, cache]);
    let merged = nodes.add(Op::MergeHeads, &[HEADS * WIDTH], &[attended]);
    let weight = nodes.weight(4, &[HIDDEN, HEADS * WIDTH]);
    let projected = nodes.add(Op::Linear, &[HIDDEN], &[merged, weight]);
    let sum = nodes.add(Op::Binary(Binary::Add), &[HIDDEN], &[input, projected]);
    let template = Template {
        kind: "layer".to_string(),
        section: nodes.section(sum),
    };

    let mut nodes = Nodes::default();
    let input = nodes.add(Op::LayerInput, &[HIDDEN], &[]);
    let weight = nodes.weight(0, &[VOCAB, HIDDEN]);
    let logits = nodes.add(Op::Linear, &[VOCAB], &[input, weight]);

    let decl = |name: &str, shape: [usize; 2]| WeightDecl {
        name: name.to_string(),
        shape: shape.map(Dim::constant).to_vec(),
        role: WeightRole::Matrix,
        stored: Stored::AsDeclared,
    };
    ModelGraph {
        architecture: "Test".to_string(),
        entry,
        templates: vec![template],
        layers: [3, 5].map(|index| Layer { template: 0, index }).to_vec(),
        head: nodes.section(logits),
        weights: vec![
            decl("embed", [VOCAB, HIDDEN]),
            decl("layers.{}.q", [HEADS * WIDTH, HIDDEN]),
            decl("layers.{}.k", [WIDTH, HIDDEN]),
            decl("layers.{}.v", [WIDTH, HIDDEN]),
            decl("layers.{}.o", [HIDDEN, HEADS * WIDTH]),
        ],
        tied: Vec::new(),
        unused: &[],
        states: vec![StateDecl {
            name: "layers.{}.kv".to_string(),
            shape: vec![1.into(), WIDTH.into()],
            kind: StateKind::Cache { window },
        }],
        ropes: vec![RopeSpec {
            name: "rope".to_string(),
            inv_freq: vec![1.0, 0.2],
            attention_factor: 1.0,
        }],
    }
}

pub const KEY_HEADS: usize = 2;
pub const KEY_WIDTH: usize = 3;
pub const VALUE_HEADS: usize = 4;
pub const VALUE_WIDTH: usize = 2;
pub const TAPS: usize = 4;
pub const EXPERTS: usize = 5;
pub const CHOSEN: usize = 2;
pub const INNER: usize = 3;

/// Two layers of a convolution, the gated delta rule and a mixture with a residual each.
pub fn mixers() -> ModelGraph {
    let mut model = attention(None);
    model.ropes.clear();
    model.weights.truncate(1);
    let mut nodes = Nodes::default();
    let mut decls = Vec::new();
    let mut weight = |nodes: &mut Nodes, name: &str, role: WeightRole, shape: &[usize]| {
        decls.push(WeightDecl {
            name: format!("layers.{{}}.{name}"),
            shape: shape.iter().map(|&dim| dim.into()).collect(),
            role,
            stored: Stored::AsDeclared,
        });
        nodes.weight(decls.len(), shape)
    };
    let input = nodes.add(Op::LayerInput, &[HIDDEN], &[]);

    let taps = weight(&mut nodes, "conv", WeightRole::Vector, &[HIDDEN, 1, TAPS]);
    let bias = weight(&mut nodes, "conv_bias", WeightRole::Vector, &[HIDDEN]);
    let mixed = nodes.add(Op::Convolution(StateId(0)), &[HIDDEN], &[input, taps, bias]);

    let mut projected = |nodes: &mut Nodes, name: &str, rows: usize| {
        let matrix = weight(nodes, name, WeightRole::Matrix, &[rows, HIDDEN]);
        nodes.add(Op::Linear, &[rows], &[mixed, matrix])
    };
    let mut operands = Vec::new();
    for (name, heads, width) in [
        ("q", KEY_HEADS, KEY_WIDTH),
        ("k", KEY_HEADS, KEY_WIDTH),
        ("v", VALUE_HEADS, VALUE_WIDTH),
    ] {
        let flat = projected(&mut nodes, name, heads * width);
        let split = Op::SplitHeads {
            heads: heads.into(),
            width: width.into(),
        };
        operands.push(nodes.add(split, &[heads, width], &[flat]));
    }
    operands.extend(["a", "b"].map(|name| projected(&mut nodes, name, VALUE_HEADS)));
    operands.extend(["a_log", "dt_bias"].map(|name| weight(&mut nodes, name, WeightRole::Vector, &[VALUE_HEADS])));
    let delta = nodes.add(Op::GatedDelta(StateId(1)), &[VALUE_HEADS, VALUE_WIDTH], &operands);
    let merged = nodes.add(Op::MergeHeads, &[VALUE_HEADS * VALUE_WIDTH], &[delta]);
    let matrix = weight(
        &mut nodes,
        "o",
        WeightRole::Matrix,
        &[HIDDEN, VALUE_HEADS * VALUE_WIDTH],
    );
    let out = nodes.add(Op::Linear, &[HIDDEN], &[merged, matrix]);
    let x = nodes.add(Op::Binary(Binary::Add), &[HIDDEN], &[input, out]);

    let router = weight(&mut nodes, "router", WeightRole::Exact, &[EXPERTS, HIDDEN]);
    let scores = nodes.add(Op::Linear, &[EXPERTS], &[x, router]);
    let spec = RouteSpec {
        experts_per_token: CHOSEN as u32,
        scoring: Scoring::SoftmaxAll,
        normalize: None,
        scale: 1.0,
    };
    let routing = nodes.add(Op::Route(spec), &[CHOSEN], &[scores]);
    let mut operands = vec![x, routing];
    operands.push(weight(&mut nodes, "gate", WeightRole::Bank, &[EXPERTS, INNER, HIDDEN]));
    operands.push(weight(&mut nodes, "up", WeightRole::Bank, &[EXPERTS, INNER, HIDDEN]));
    operands.push(weight(&mut nodes, "down", WeightRole::Bank, &[EXPERTS, HIDDEN, INNER]));
    operands.push(weight(&mut nodes, "gate_bias", WeightRole::Vector, &[EXPERTS, INNER]));
    operands.push(weight(&mut nodes, "up_bias", WeightRole::Vector, &[EXPERTS, INNER]));
    operands.push(weight(&mut nodes, "down_bias", WeightRole::Vector, &[EXPERTS, HIDDEN]));
    let gate = Gate::Activated(Unary::Silu);
    let mixture = nodes.add(Op::Experts(gate), &[HIDDEN], &operands);
    let sum = nodes.add(Op::Binary(Binary::Add), &[HIDDEN], &[x, mixture]);

    let state = |name: &str, shape: &[usize], kind| StateDecl {
        name: format!("layers.{{}}.{name}"),
        shape: shape.iter().map(|&dim| dim.into()).collect(),
        kind,
    };
    model.states = vec![
        state("conv", &[HIDDEN], StateKind::Convolution { taps: TAPS }),
        state("delta", &[VALUE_HEADS, KEY_WIDTH, VALUE_WIDTH], StateKind::Recurrent),
    ];
    model.templates[0].section = nodes.section(sum);
    model.weights.extend(decls);
    model
}
