//! A definition through the language that authors write, so that the graph is made by the functions that make theirs.

use kiln_compiler::config::{Config, ConfigError, Field, FromConfig, Reader};
use kiln_compiler::dsl::{
    Architecture, Attention, Cache, Experts, GatedDelta, Layer, LayerKind, Logits, Matrix, Rope, Routed, Routing,
    Tensor, Tokens, Weights, activate, attention, gather, linear, moe, rms_norm, rms_norm_plus_one, route,
};
use kiln_compiler::graph::Binary;
use serde_json::json;

use super::{Definition, Kind, Operator, Section, Turn};

/// The name of all these architectures.
pub const NAME: &str = "RandomDefinition";

/// Nothing is read: a definition has its sizes in it.
struct NoConfig;

impl Config for NoConfig {
    fn read(_: &Reader<'_>) -> Result<Self, ConfigError> {
        Ok(NoConfig)
    }
}

/// Kinds of layers are told apart by number.
#[derive(Clone, PartialEq)]
struct Numbered(usize);

impl LayerKind for Numbered {
    fn name(&self) -> String {
        format!("kind{}", self.0)
    }
}

/// The architecture that a definition is; it must be well-typed ([`Definition::check`]).
pub fn architecture(definition: Definition) -> Architecture {
    Architecture::new(&[NAME], move |_: &NoConfig, w, tokens| trace(&definition, w, tokens))
}

fn trace<'g>(definition: &Definition, w: Weights<'g>, tokens: Tokens<'g>) -> Logits<'g> {
    let embedding = w.matrix("embed", definition.vocab, definition.hidden);
    let part = |section, at: String, layer| Part {
        definition,
        section,
        weights: w,
        at,
        layer,
        embedding,
    };
    let embedded = gather(embedding, tokens);
    let x = part(&definition.entry, "entry".to_string(), None).trace(embedded);
    let kinds: Vec<Numbered> = definition.layers.iter().map(|kind| Numbered(*kind)).collect();
    let mut stack = w.layers_of("layers", &kinds).enter(x);
    while let Some((layer, input)) = stack.next_template() {
        let kind = layer.kind().0;
        let inside = part(&definition.kinds[kind], format!("kind{kind}"), Some(layer));
        stack.output(inside.trace(input));
    }
    part(&definition.head, "head".to_string(), None).trace(stack.leave())
}

/// A section while it is traced.
struct Part<'d, 'g> {
    definition: &'d Definition,
    section: &'d Section,
    weights: Weights<'g>,
    /// Begins the names of its weights.
    at: String,
    layer: Option<Layer<'g, Numbered>>,
    embedding: Matrix<'g>,
}

/// What a step has made.
#[derive(Clone, Copy)]
enum Made<'g> {
    Row(Tensor<'g>),
    Cache(Cache<'g>),
    Routing(Routed<'g>),
}

impl<'g> Made<'g> {
    fn row(self) -> Tensor<'g> {
        match self {
            Made::Row(tensor) => tensor,
            _ => panic!("an ill-typed definition"),
        }
    }
}

impl<'g> Part<'_, 'g> {
    fn trace(&self, input: Tensor<'g>) -> Tensor<'g> {
        let kinds = self
            .section
            .kinds(self.definition.hidden, self.definition.vocab)
            .unwrap_or_else(|error| panic!("an ill-typed definition: {error}"));
        let mut made = vec![Made::Row(input)];
        for (index, step) in self.section.steps.iter().enumerate() {
            let operands: Vec<(Made, Kind)> = step.operands.iter().map(|of| (made[*of], kinds[*of])).collect();
            made.push(self.step(index, step.operator, &operands));
        }
        made[self.section.output].row()
    }

    fn step(&self, index: usize, operator: Operator, operands: &[(Made<'g>, Kind)]) -> Made<'g> {
        let row = |position: usize| operands[position].0.row();
        let width = |position: usize| match operands[position].1 {
            Kind::Row(width) => width,
            _ => panic!("an ill-typed definition"),
        };
        let name = |what: &str| format!("{}.{index}.{what}", self.at);
        let split = |position: usize, heads: usize| row(position).heads(heads, width(position) / heads);
        Made::Row(match operator {
            Operator::Linear { rows, bias } => {
                let weight = self.matrix(&name("matrix"), rows, width(0), false);
                linear(row(0), weight.biased(bias))
            }
            Operator::Router { experts, bias } => {
                let weight = self.matrix(&name("router"), experts, width(0), true);
                linear(row(0), weight.biased(bias))
            }
            Operator::TiedHead => linear(row(0), self.embedding),
            Operator::Norm { heads, plus_one, eps } => {
                let norm = if plus_one { rms_norm_plus_one } else { rms_norm };
                let weight = self.vector(&name("norm"), width(0) / heads);
                match heads {
                    1 => norm(row(0), weight, eps),
                    _ => norm(split(0, heads), weight, eps).merge_heads(),
                }
            }
            Operator::Unary(function) => activate(function, row(0)),
            Operator::Binary(Binary::Add) => row(0) + row(1),
            Operator::Binary(Binary::Sub) => row(0) - row(1),
            Operator::Binary(Binary::Mul) => row(0) * row(1),
            Operator::Scale(factor) => row(0) * factor,
            Operator::Softcap(cap) => row(0).softcap(cap),
            Operator::Clamp(limit) => row(0).clamp(limit),
            Operator::Slice { start, len } => row(0).columns(start, len),
            Operator::ScaleRows => row(0).scale_rows(row(1)),
            Operator::Rope { heads, turn } => split(0, heads).rope(&rope(turn)).merge_heads(),
            Operator::Cache { kv_heads } => {
                return Made::Cache(self.layer().cache(split(0, kv_heads), split(1, kv_heads)));
            }
            Operator::Attention {
                heads,
                scale,
                window,
                softcap,
                sinks,
            } => {
                let Made::Cache(cache) = operands[1].0 else {
                    panic!("an ill-typed definition")
                };
                let sinks = sinks.then(|| self.vector(&name("sinks"), heads));
                let how = Attention::causal().window(window).softcap(softcap).sinks(sinks);
                let how = scale.map_or(how, |scale| how.scale(scale));
                attention(split(0, heads), cache, how)
            }
            Operator::Convolution { taps, bias } => {
                let filter = self.layer().filter(name("filter").as_str(), width(0), taps);
                self.layer().convolution(row(0), filter.biased(bias))
            }
            Operator::GatedDelta { key_heads, value_heads } => self
                .layer()
                .gated_delta(GatedDelta {
                    q: split(0, key_heads),
                    k: split(1, key_heads),
                    v: split(2, value_heads),
                    a: row(3),
                    b: row(4),
                    a_log: self.vector(&name("a_log"), value_heads),
                    dt_bias: self.vector(&name("dt_bias"), value_heads),
                })
                .merge_heads(),
            Operator::Route {
                chosen,
                scoring,
                normalize,
                scale,
                bias,
            } => {
                let bias = bias.then(|| self.vector(&name("selection"), width(0)));
                let how = Routing::top(chosen, scoring).normalized(normalize).scaled(scale);
                return Made::Routing(route(row(0), how.biased(bias)));
            }
            Operator::Experts { inner, gate, bias } => {
                let (Made::Routing(routing), Kind::Routing { experts }) = operands[1] else {
                    panic!("an ill-typed definition")
                };
                let bank = |what: &str, rows: usize, columns: usize| {
                    let name = name(what);
                    let bank = match &self.layer {
                        Some(layer) => layer.bank(name.as_str(), experts, rows, columns),
                        None => self.weights.bank(name.as_str(), experts, rows, columns),
                    };
                    bank.biased(bias)
                };
                let of = Experts {
                    gate: bank("gate", inner, width(0)),
                    up: bank("up", inner, width(0)),
                    down: bank("down", width(0), inner),
                    gated: gate,
                };
                moe(row(0), routing, of)
            }
        })
    }

    fn layer(&self) -> &Layer<'g, Numbered> {
        self.layer.as_ref().expect("states are in layers")
    }

    fn matrix(&self, name: &str, rows: usize, columns: usize, exact: bool) -> Matrix<'g> {
        match (&self.layer, exact) {
            (Some(layer), false) => layer.matrix(name, rows, columns),
            (Some(layer), true) => layer.router(name, rows, columns),
            (None, false) => self.weights.matrix(name, rows, columns),
            (None, true) => self.weights.router(name, rows, columns),
        }
    }

    fn vector(&self, name: &str, length: usize) -> kiln_compiler::dsl::Vector<'g> {
        match &self.layer {
            Some(layer) => layer.vector(name, length),
            None => self.weights.vector(name, length),
        }
    }
}

fn rope(turn: Turn) -> Rope {
    let value = json!({
        "rope_type": "default", "rope_theta": turn.theta, "partial_rotary_factor": turn.share,
    });
    let field = Field {
        key: "rope_parameters",
        symbol: "rope",
        value: &value,
    };
    Rope::from_config(field).expect("parameters of a rope")
}
