//! A graph as text: one node a line, with the author's names; for snapshots and debugging.

use std::fmt;

use petgraph::graph::NodeIndex;

use super::{Gate, ModelGraph, Op, RouteSpec, Scoring, Section, Shape, StateKind, Stored};

impl fmt::Display for ModelGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "architecture {}", self.architecture)?;
        writeln!(f, "\nweights")?;
        for weight in &self.weights {
            let shape = Shape::fixed(weight.shape.iter().copied());
            let role = format!("{:?}", weight.role).to_lowercase();
            writeln!(f, "  {} {shape} {role}{}", weight.name, stored(&weight.stored))?;
        }
        writeln!(f, "\nstates")?;
        for state in &self.states {
            let shape = Shape::fixed(state.shape.iter().copied());
            let kept = match state.kind {
                StateKind::Cache { window: None } => "keys and values of all positions".to_string(),
                StateKind::Cache { window: Some(window) } => format!("keys and values of the last {window} positions"),
                StateKind::Convolution { taps } => format!("inputs of the last {} positions", taps.saturating_sub(1)),
                StateKind::Recurrent => "sums up all positions".to_string(),
            };
            writeln!(f, "  {} {shape}, {kept}", state.name)?;
        }
        writeln!(f, "\nropes")?;
        for rope in &self.ropes {
            let ends = [rope.inv_freq.first(), rope.inv_freq.last()].map(|end| end.unwrap_or(&0.0));
            let (count, factor) = (rope.inv_freq.len(), rope.attention_factor);
            writeln!(
                f,
                "  {}: {count} frequencies {:e} .. {:e}, times {factor}",
                rope.name, ends[0], ends[1]
            )?;
        }
        let kinds = self
            .layers
            .iter()
            .map(|layer| match self.templates.get(layer.template) {
                Some(template) => format!("{} {}", layer.index, template.kind),
                None => format!("{} (template {} is missing)", layer.index, layer.template),
            });
        writeln!(f, "\nlayers {}", kinds.collect::<Vec<_>>().join(", "))?;
        for (name, section) in self.sections() {
            writeln!(f, "\n{name}")?;
            for node in section.nodes.node_indices() {
                self.write_node(f, section, node)?;
            }
            writeln!(f, "  -> {}", self.operand(section, section.output))?;
        }
        Ok(())
    }
}

impl ModelGraph {
    fn write_node(&self, f: &mut fmt::Formatter<'_>, section: &Section, index: NodeIndex) -> fmt::Result {
        let node = &section.nodes[index];
        if matches!(node.op, Op::Weight(_)) {
            return Ok(());
        }
        let mut inputs: Vec<String> = (section.operands(index).into_iter())
            .map(|operand| self.operand(section, operand))
            .collect();
        inputs.extend(self.attributes(&node.op));
        let name = node.name.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
        let (op, inputs, shape) = (node.op.name(), inputs.join(", "), &node.shape);
        writeln!(f, "  %{}{name} = {op}({inputs}) {shape}", index.index())
    }

    fn operand(&self, section: &Section, index: NodeIndex) -> String {
        match section.nodes.node_weight(index).map(|node| &node.op) {
            Some(Op::Weight(id)) => match self.weights.get(id.0) {
                Some(weight) => weight.name.clone(),
                None => format!("(weight {} is missing)", id.0),
            },
            _ => format!("%{}", index.index()),
        }
    }

    /// What an operator has besides operands.
    fn attributes(&self, op: &Op) -> Vec<String> {
        match op {
            Op::RmsNorm { eps, unit_offset } => {
                let mut attributes = vec![format!("eps {eps:e}")];
                attributes.extend(unit_offset.then(|| "1 + w".to_string()));
                attributes
            }
            Op::Scale(factor) => vec![format!("{factor}")],
            Op::Softcap(cap) => vec![format!("{cap}")],
            Op::Rope(id) => vec![match self.ropes.get(id.0) {
                Some(rope) => rope.name.clone(),
                None => format!("(rope {} is missing)", id.0),
            }],
            Op::CacheWrite(id) | Op::Convolution(id) | Op::GatedDelta(id) => vec![match self.states.get(id.0) {
                Some(state) => state.name.clone(),
                None => format!("(state {} is missing)", id.0),
            }],
            Op::Attention(spec) => {
                let mut attributes = vec![format!("scale {}", spec.scale)];
                attributes.extend(spec.window.map(|window| format!("window {window}")));
                attributes.extend(spec.softcap.map(|cap| format!("softcap {cap}")));
                attributes
            }
            Op::Slice { start, len } => vec![format!("from {start:?}"), format!("{len:?}")],
            Op::Clamp(limit) => vec![format!("{limit}")],
            Op::Route(spec) => route(spec),
            Op::Experts(Gate::Activated(function)) => vec![Op::Unary(*function).name().to_string()],
            Op::Experts(Gate::Clamped { alpha, limit }) => vec![format!("alpha {alpha}"), format!("limit {limit}")],
            Op::Tokens
            | Op::LayerInput
            | Op::Weight(_)
            | Op::Gather
            | Op::Linear
            | Op::Unary(_)
            | Op::Binary(_)
            | Op::SplitHeads { .. }
            | Op::MergeHeads
            | Op::ScaleRows => Vec::new(),
        }
    }
}

fn route(spec: &RouteSpec) -> Vec<String> {
    let mut attributes = vec![format!("{} a token", spec.experts_per_token)];
    attributes.push(
        match spec.scoring {
            Scoring::SoftmaxChosen => "softmax over the chosen",
            Scoring::SoftmaxAll => "softmax over all",
            Scoring::Sigmoid => "sigmoid",
        }
        .to_string(),
    );
    attributes.extend(spec.normalize.map(|added| format!("over sum + {added:e}")));
    attributes.extend((spec.scale != 1.0).then(|| format!("times {}", spec.scale)));
    attributes
}

/// Where a weight lies, unless in a tensor of its own.
fn stored(stored: &Stored) -> String {
    let (tensor, rows, transposed) = match stored {
        Stored::AsDeclared => return String::new(),
        Stored::OneOf(ways) => return ways.iter().map(self::stored).collect::<Vec<_>>().join(" or"),
        Stored::Within {
            tensor,
            rows,
            transposed,
        } => (tensor, rows, transposed),
    };
    let rows: Vec<String> = rows
        .iter()
        .map(|block| {
            let step = match block.step {
                1 => String::new(),
                step => format!(" step {step}"),
            };
            format!("{} from {}{step} of {}", block.len, block.start, block.group)
        })
        .collect();
    let rows = if rows.is_empty() {
        String::new()
    } else {
        format!(", rows {}", rows.join(" and "))
    };
    let transposed = if *transposed { ", transposed" } else { "" };
    format!(" in {tensor}{rows}{transposed}")
}

#[cfg(test)]
mod tests {
    use crate::graph::test_models::mixers;
    use crate::graph::{Gate, Op, RowBlocks, Stored};

    #[test]
    fn mixers_read_well() {
        let mut graph = mixers();
        let of_both = |start| Stored::Within {
            tensor: "layers.{}.gate_up".to_string(),
            rows: vec![RowBlocks {
                group: 6,
                start,
                len: 3,
                step: 1,
            }],
            transposed: start > 0,
        };
        for weight in &mut graph.weights {
            match weight.name.as_str() {
                "layers.{}.gate" => weight.stored = of_both(0),
                "layers.{}.up" => weight.stored = of_both(3),
                _ => {}
            }
        }
        for node in graph.templates[0].section.nodes.node_weights_mut() {
            match &mut node.op {
                Op::Route(spec) => (spec.normalize, spec.scale) = (Some(1e-6), 2.5),
                Op::Experts(gate) => {
                    *gate = Gate::Clamped {
                        alpha: 1.702,
                        limit: 7.0,
                    }
                }
                _ => {}
            }
        }
        let text = graph.to_string();
        for line in [
            "  layers.{}.gate [5, 3, 6] bank in layers.{}.gate_up, rows 3 from 0 of 6\n",
            "  layers.{}.up [5, 3, 6] bank in layers.{}.gate_up, rows 3 from 3 of 6, transposed\n",
            "  layers.{}.conv [6], inputs of the last 3 positions\n",
            "  layers.{}.delta [4, 3, 2], sums up all positions\n",
            " = convolution(%0, layers.{}.conv, layers.{}.conv_bias, layers.{}.conv) [T, 6]\n",
            ", layers.{}.a_log, layers.{}.dt_bias, layers.{}.delta) [T, 4, 2]\n",
            ", 2 a token, softmax over all, over sum + 1e-6, times 2.5) [T, 2]\n",
            ", layers.{}.down_bias, alpha 1.702, limit 7) [T, 6]\n",
        ] {
            assert!(text.contains(line), "{text}\nshould contain: {line}");
        }
    }
}
