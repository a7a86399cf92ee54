//! A definition as its author would have written it.

use std::fmt;

use super::{Definition, Operator, Section};

impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Definition { vocab, hidden, .. } = self;
        writeln!(f, "let embedding = w.matrix(\"embedding\", {vocab}, {hidden});")?;
        writeln!(f, "let mut x = gather(embedding, tokens);")?;
        write_section(f, &self.entry, "p", "w", "")?;
        for (kind, section) in self.kinds.iter().enumerate() {
            let of_kind = self.layers.iter().enumerate().filter(|(_, of)| **of == kind);
            let numbers: Vec<String> = of_kind.map(|(layer, _)| layer.to_string()).collect();
            writeln!(f, "for layer in layers {} {{", numbers.join(", "))?;
            write_section(f, section, "v", "layer", "    ")?;
            writeln!(f, "}}")?;
        }
        write_section(f, &self.head, "e", "w", "")?;
        writeln!(f, "x")
    }
}

/// `name` numbers the values, `weights` is what has the weights.
fn write_section(
    f: &mut fmt::Formatter<'_>,
    section: &Section,
    name: &str,
    weights: &str,
    indent: &str,
) -> fmt::Result {
    let value = |number: usize| match number {
        0 => "x".to_string(),
        _ => format!("{name}{number}"),
    };
    for (index, step) in section.steps.iter().enumerate() {
        let operands: Vec<String> = step.operands.iter().map(|of| value(*of)).collect();
        let made = value(index + 1);
        writeln!(
            f,
            "{indent}let {made} = {};",
            expression(step.operator, &operands, weights)
        )?;
    }
    if section.output > 0 {
        writeln!(f, "{indent}x = {};", value(section.output))?;
    }
    Ok(())
}

fn expression(operator: Operator, of: &[String], w: &str) -> String {
    let biased = |bias: bool| if bias { ".biased(true)" } else { "" };
    let x = of.first().map_or("?", String::as_str);
    match operator {
        Operator::Linear { rows, bias } => format!("linear({x}, {w}.matrix(.., {rows}, ..){})", biased(bias)),
        Operator::Router { experts, bias } => format!("linear({x}, {w}.router(.., {experts}, ..){})", biased(bias)),
        Operator::TiedHead => format!("linear({x}, embedding)"),
        Operator::Norm { heads, plus_one, eps } => {
            let norm = if plus_one { "rms_norm_plus_one" } else { "rms_norm" };
            match heads {
                1 => format!("{norm}({x}, {w}.vector(..), {eps:e})"),
                _ => format!("{norm}({x}.heads({heads}, ..), {w}.vector(..), {eps:e}).merge_heads()"),
            }
        }
        Operator::Unary(function) => format!("activate({function:?}, {x})"),
        Operator::Binary(operator) => format!("{operator:?}({})", of.join(", ")).to_lowercase(),
        Operator::Scale(factor) => format!("{x} * {factor:?}"),
        Operator::Softcap(cap) => format!("{x}.softcap({cap:?})"),
        Operator::Clamp(limit) => format!("{x}.clamp({limit:?})"),
        Operator::Slice { start, len } => format!("{x}.columns({start}, {len})"),
        Operator::ScaleRows => format!("{x}.scale_rows({})", of[1]),
        Operator::Rope { heads, turn } => {
            format!(
                "{x}.heads({heads}, ..).rope(theta {}, share {}).merge_heads()",
                turn.theta, turn.share
            )
        }
        Operator::Cache { kv_heads } => {
            format!(
                "layer.cache({x}.heads({kv_heads}, ..), {}.heads({kv_heads}, ..))",
                of[1]
            )
        }
        Operator::Attention {
            heads,
            scale,
            window,
            softcap,
            sinks,
        } => {
            let mut how = "Attention::causal()".to_string();
            if let Some(scale) = scale {
                how += &format!(".scale({scale:?})");
            }
            if let Some(window) = window {
                how += &format!(".window({window})");
            }
            if let Some(cap) = softcap {
                how += &format!(".softcap({cap:?})");
            }
            if sinks {
                how += ".sinks(layer.vector(..))";
            }
            format!("attention({x}.heads({heads}, ..), {}, {how})", of[1])
        }
        Operator::Convolution { taps, bias } => {
            format!("layer.convolution({x}, layer.filter(.., .., {taps}){})", biased(bias))
        }
        Operator::GatedDelta { key_heads, value_heads } => format!(
            "layer.gated_delta({x}.heads({key_heads}, ..), {}.heads({key_heads}, ..), {}.heads({value_heads}, ..), a: {}, \
             b: {}).merge_heads()",
            of[1], of[2], of[3], of[4]
        ),
        Operator::Route {
            chosen,
            scoring,
            normalize,
            scale,
            bias,
        } => {
            let mut how = format!("Routing::top({chosen}, {scoring:?})");
            if let Some(extra) = normalize {
                how += &format!(".normalized({extra:?})");
            }
            if scale != 1.0 {
                how += &format!(".scaled({scale:?})");
            }
            if bias {
                how += &format!(".biased({w}.vector(..))");
            }
            format!("route({x}, {how})")
        }
        Operator::Experts { inner, gate, bias } => {
            format!("moe({x}, {}, {w} experts of {inner}{}, {gate:?})", of[1], biased(bias))
        }
    }
}
