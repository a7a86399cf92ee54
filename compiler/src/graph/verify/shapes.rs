//! What each operator takes, and the shape of what it gives.

mod mixture;
mod recurrent;

use petgraph::graph::NodeIndex;

use super::{Check, require};
use crate::graph::{Dim, ModelGraph, Node, Op, Section, Shape, StateDecl, StateKind, WeightDecl, WeightRole};

/// What kind of thing an operator makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    Ids,
    Floats,
    Weight,
    Cache,
    /// Which experts each token goes to.
    Routing,
}

pub fn value_kind(op: &Op) -> ValueKind {
    match op {
        Op::Tokens => ValueKind::Ids,
        Op::Weight(_) => ValueKind::Weight,
        Op::CacheWrite(_) => ValueKind::Cache,
        Op::Route(_) => ValueKind::Routing,
        _ => ValueKind::Floats,
    }
}

/// Works out the shape that a node should have.
pub struct Checker<'a> {
    graph: &'a ModelGraph,
    section: &'a Section,
    index: NodeIndex,
    node: &'a Node,
    operands: Vec<&'a Node>,
}

impl<'a> Checker<'a> {
    pub fn new(graph: &'a ModelGraph, section: &'a Section, index: NodeIndex) -> Check<Self> {
        use petgraph::Direction::Incoming;
        let mut positions: Vec<u8> = section
            .nodes
            .edges_directed(index, Incoming)
            .map(|e| *e.weight())
            .collect();
        positions.sort_unstable();
        let in_order = positions.iter().zip(0..).all(|(found, expected)| *found == expected);
        require(in_order, || format!("operand positions are {positions:?}"))?;
        let operands = section
            .operands(index)
            .into_iter()
            .map(|operand| &section.nodes[operand])
            .collect();
        Ok(Checker {
            graph,
            section,
            index,
            node: &section.nodes[index],
            operands,
        })
    }

    pub fn shape(&self) -> Check<Shape> {
        match &self.node.op {
            Op::Tokens => {
                self.takes(&[])?;
                Ok(Shape::per_token([]))
            }
            Op::LayerInput => {
                self.takes(&[])?;
                require(self.node.shape.per_token, || "is not one row a token".to_string())?;
                Ok(self.node.shape.clone())
            }
            Op::Weight(id) => {
                self.takes(&[])?;
                Ok(Shape::fixed(self.weight(id.0)?.shape.iter().copied()))
            }
            Op::Gather => {
                self.takes(&[ValueKind::Weight, ValueKind::Ids])?;
                Ok(Shape::per_token([self.matrix(0)?[1]]))
            }
            Op::Linear => self.linear(),
            Op::RmsNorm { eps, .. } => {
                self.takes(&[ValueKind::Floats, ValueKind::Weight])?;
                require(*eps >= 0.0 && eps.is_finite(), || format!("epsilon is {eps}"))?;
                let x = self.per_token(0)?;
                let weight = self.vector(1)?;
                require(x.dims.last() == Some(&weight), || {
                    format!("norm of {x} by [{weight:?}]")
                })?;
                Ok(x.clone())
            }
            Op::Unary(_) => self.same(),
            Op::Scale(factor) => {
                require(factor.is_finite(), || format!("its factor is {factor}"))?;
                self.same()
            }
            Op::Clamp(limit) => {
                require(positive(*limit), || format!("its limit is {limit}"))?;
                self.same()
            }
            Op::ScaleRows => {
                self.takes(&[ValueKind::Floats, ValueKind::Floats])?;
                let (x, factors) = (self.row(0)?, self.row(1)?);
                require(factors.value() == 1, || format!("{factors:?} factors for a row"))?;
                Ok(Shape::per_token([x]))
            }
            Op::Softcap(cap) => {
                require(positive(*cap), || format!("its cap is {cap}"))?;
                self.same()
            }
            Op::Binary(_) => {
                self.takes(&[ValueKind::Floats, ValueKind::Floats])?;
                let (left, right) = (self.per_token(0)?, self.per_token(1)?);
                require(left == right, || format!("{left} and {right}"))?;
                Ok(left.clone())
            }
            Op::SplitHeads { heads, width } => {
                self.takes(&[ValueKind::Floats])?;
                let x = self.per_token(0)?;
                require(x.dims == [*heads * *width], || {
                    format!("{x} into {heads:?} times {width:?}")
                })?;
                Ok(Shape::per_token([*heads, *width]))
            }
            Op::MergeHeads => {
                self.takes(&[ValueKind::Floats])?;
                let [heads, width] = self.heads(0)?;
                Ok(Shape::per_token([heads * width]))
            }
            Op::Rope(id) => {
                self.takes(&[ValueKind::Floats])?;
                let [heads, width] = self.heads(0)?;
                let rope = self.graph.ropes.get(id.0).ok_or("its rope is not declared")?;
                let fits = rope.rotary() <= width.value();
                require(fits, || format!("rotates {} of {width:?} elements", rope.rotary()))?;
                Ok(Shape::per_token([heads, width]))
            }
            Op::CacheWrite(id) => {
                self.takes(&[ValueKind::Floats, ValueKind::Floats])?;
                let state = self.state(id.0)?;
                for plane in [self.heads(0)?, self.heads(1)?] {
                    require(state.shape == plane, || format!("its state does not hold {plane:?}"))?;
                }
                require(matches!(state.kind, StateKind::Cache { .. }), || {
                    "its state is no cache".to_string()
                })?;
                Ok(Shape::fixed(state.shape.iter().copied()))
            }
            Op::Attention(_) => self.attention(),
            Op::Slice { start, len } => {
                self.takes(&[ValueKind::Floats])?;
                let columns = self.row(0)?;
                let end = start.value().saturating_add(len.value());
                require(end <= columns.value(), || format!("columns up to {end} of {columns:?}"))?;
                Ok(Shape::per_token([*len]))
            }
            Op::Convolution(id) => self.convolution(id.0),
            Op::GatedDelta(id) => self.gated_delta(id.0),
            Op::Route(spec) => self.route(spec),
            Op::Experts(gate) => self.experts(gate),
        }
    }

    fn linear(&self) -> Check<Shape> {
        let biased = self.takes_also(&[ValueKind::Floats, ValueKind::Weight], &[ValueKind::Weight])?;
        let (x, [out, columns]) = (self.per_token(0)?, self.matrix(1)?);
        require(x.dims == [columns], || format!("{x} times [{out:?}, {columns:?}]"))?;
        if biased {
            let bias = self.vector(2)?;
            require(bias == out, || format!("a bias of {bias:?} for {out:?} outputs"))?;
        }
        Ok(Shape::per_token([out]))
    }

    fn attention(&self) -> Check<Shape> {
        let with_sinks = self.takes_also(&[ValueKind::Floats, ValueKind::Cache], &[ValueKind::Weight])?;
        let Op::Attention(spec) = &self.node.op else {
            return Err("is no attention".to_string());
        };
        let (Op::CacheWrite(id), [heads, width]) = (&self.operands[1].op, self.heads(0)?) else {
            return Err("reads no cache".to_string());
        };
        let state = self.state(id.0)?;
        let [kv_heads, kv_width] = state.shape[..] else {
            return Err("its cache has no heads".to_string());
        };
        require(width == kv_width, || {
            format!("queries of {width:?}, keys of {kv_width:?}")
        })?;
        if with_sinks {
            let sinks = self.vector(2)?;
            require(sinks == heads, || format!("{sinks:?} sinks for {heads:?} heads"))?;
        }
        let shared = heads.value().is_multiple_of(kv_heads.value());
        require(shared, || format!("{heads:?} query heads share {kv_heads:?}"))?;
        require(spec.scale.is_finite(), || format!("its scale is {}", spec.scale))?;
        require(spec.softcap.is_none_or(positive), || {
            format!("its cap is {:?}", spec.softcap)
        })?;
        let StateKind::Cache { window: state_window } = state.kind else {
            return Err("its state is no cache".to_string());
        };
        let kept = match (spec.window, state_window) {
            (_, None) => true,
            (Some(window), Some(kept)) => window <= kept,
            (None, Some(_)) => false,
        };
        require(kept, || {
            format!("sees {:?} positions, its state keeps {:?}", spec.window, state_window)
        })?;
        Ok(Shape::per_token([heads, width]))
    }

    fn same(&self) -> Check<Shape> {
        self.takes(&[ValueKind::Floats])?;
        self.per_token(0).cloned()
    }

    fn takes(&self, kinds: &[ValueKind]) -> Check {
        let found: Vec<ValueKind> = self.operands.iter().map(|operand| value_kind(&operand.op)).collect();
        require(found == kinds, || format!("takes {kinds:?}, gets {found:?}"))
    }

    /// Takes `kinds`, or `kinds` and then `more`, and says whether it is the latter.
    fn takes_also(&self, kinds: &[ValueKind], more: &[ValueKind]) -> Check<bool> {
        let all = [kinds, more].concat();
        let longer = self.operands.len() == all.len();
        self.takes(if longer { &all } else { kinds })?;
        Ok(longer)
    }

    fn per_token(&self, operand: usize) -> Check<&Shape> {
        let shape = &self.operands[operand].shape;
        require(shape.per_token, || format!("{shape} is not one row a token"))?;
        Ok(shape)
    }

    /// Columns of an operand `[T, columns]`.
    fn row(&self, operand: usize) -> Check<Dim> {
        let shape = self.per_token(operand)?;
        match shape.dims[..] {
            [columns] => Ok(columns),
            _ => Err(format!("{shape} is not flat")),
        }
    }

    fn heads(&self, operand: usize) -> Check<[Dim; 2]> {
        let shape = self.per_token(operand)?;
        shape.dims[..].try_into().map_err(|_| format!("{shape} has no heads"))
    }

    fn matrix(&self, operand: usize) -> Check<[Dim; 2]> {
        let weight = self.operand_weight(operand, &[WeightRole::Matrix, WeightRole::Exact])?;
        weight.shape[..]
            .try_into()
            .map_err(|_| format!("`{}` is no matrix", weight.name))
    }

    fn vector(&self, operand: usize) -> Check<Dim> {
        let [length] = self.numbers(operand)?;
        Ok(length)
    }

    /// Sizes of an f32 weight of `RANK` dimensions.
    fn numbers<const RANK: usize>(&self, operand: usize) -> Check<[Dim; RANK]> {
        let weight = self.operand_weight(operand, &[WeightRole::Vector])?;
        weight.shape[..].try_into().map_err(|_| match RANK {
            1 => format!("`{}` is no vector", weight.name),
            _ => format!("`{}` does not have {RANK} dimensions", weight.name),
        })
    }

    fn operand_weight(&self, operand: usize, roles: &[WeightRole]) -> Check<&WeightDecl> {
        let Op::Weight(id) = self.operands[operand].op else {
            return Err(format!("operand {operand} is no weight"));
        };
        let weight = self.weight(id.0)?;
        require(roles.contains(&weight.role), || {
            format!("`{}` should be a {:?}", weight.name, roles[0])
        })?;
        Ok(weight)
    }

    pub fn weight(&self, id: usize) -> Check<&'a WeightDecl> {
        self.graph
            .weights
            .get(id)
            .ok_or_else(|| format!("weight {id} is not declared"))
    }

    fn state(&self, id: usize) -> Check<&'a StateDecl> {
        self.graph
            .states
            .get(id)
            .ok_or_else(|| format!("state {id} is not declared"))
    }
}

fn positive(number: f32) -> bool {
    number > 0.0 && number.is_finite()
}
