use std::fmt;

use kiln_compiler::graph::{Binary, Gate, Scoring, Unary};

/// A model as a program of operators.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    pub vocab: usize,
    /// Width of what goes from layer to layer.
    pub hidden: usize,
    /// Starts with the embedding of the tokens, `hidden` wide, and ends `hidden` wide.
    pub entry: Section,
    /// The distinct kinds of layers; each starts and ends `hidden` wide.
    pub kinds: Vec<Section>,
    /// The kind of each layer.
    pub layers: Vec<usize>,
    /// Starts `hidden` wide and ends `vocab` wide.
    pub head: Section,
}

/// Steps in the order in which they are traced.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    pub steps: Vec<Step>,
    /// Value 0 is what enters; value `i + 1` is what step `i` makes.
    pub output: usize,
}

/// An operator and the values that it is applied to.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub operator: Operator,
    pub operands: Vec<usize>,
}

/// What a definition may apply. Activations are `[T, width]`; an operator that works on heads splits its operand and
/// merges what it makes, which are views of the same memory. The comments give operands and result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operator {
    /// `[T, n] -> [T, rows]` by a weight of its own.
    Linear {
        rows: usize,
        bias: bool,
    },
    /// As `Linear`, by a weight that is never quantized.
    Router {
        experts: usize,
        bias: bool,
    },
    /// `[T, hidden] -> [T, vocab]` by the embedding.
    TiedHead,
    /// RMS norm of each of `heads` parts.
    Norm {
        heads: usize,
        plus_one: bool,
        eps: f32,
    },
    Unary(Unary),
    /// Two operands of equal width.
    Binary(Binary),
    Scale(f32),
    Softcap(f32),
    Clamp(f32),
    /// `[T, n] -> [T, len]`
    Slice {
        start: usize,
        len: usize,
    },
    /// `[T, n], [T, 1] -> [T, n]`
    ScaleRows,
    Rope {
        heads: usize,
        turn: Turn,
    },
    /// Keys and values of equal width `-> cache`.
    Cache {
        kv_heads: usize,
    },
    /// Queries and a cache `-> [T, n]`.
    Attention {
        heads: usize,
        scale: Option<f32>,
        window: Option<usize>,
        softcap: Option<f32>,
        sinks: bool,
    },
    Convolution {
        taps: usize,
        bias: bool,
    },
    /// Queries, keys (of equal width), values, `a`, `b` (`[T, value_heads]`) `-> [T, values]`.
    GatedDelta {
        key_heads: usize,
        value_heads: usize,
    },
    /// `[T, experts] ->` routing
    Route {
        chosen: usize,
        scoring: Scoring,
        normalize: Option<f32>,
        scale: f32,
        bias: bool,
    },
    /// `[T, n]` and a routing `-> [T, n]`.
    Experts {
        inner: usize,
        gate: Gate,
        bias: bool,
    },
}

/// How a rope turns: base, and the share of a head that it turns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turn {
    pub theta: f64,
    pub share: f64,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `[T, width]`
    Row(usize),
    Cache {
        kv_heads: usize,
        width: usize,
    },
    Routing {
        experts: usize,
    },
}

/// Why a definition is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IllTyped(pub String);

impl fmt::Display for IllTyped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Definition {
    /// All sections: entry, kinds of layers, head.
    pub fn sections(&self) -> impl Iterator<Item = &Section> {
        let layers = self.kinds.iter();
        std::iter::once(&self.entry).chain(layers).chain([&self.head])
    }

    pub fn sections_mut(&mut self) -> impl Iterator<Item = &mut Section> {
        let layers = self.kinds.iter_mut();
        std::iter::once(&mut self.entry).chain(layers).chain([&mut self.head])
    }

    /// Operators of all sections.
    pub fn size(&self) -> usize {
        self.sections().map(|section| section.steps.len()).sum()
    }

    /// Whether every operator gets what it takes and every section gives what follows it takes.
    ///
    /// # Errors
    /// Says what does not fit.
    pub fn check(&self) -> Result<(), IllTyped> {
        let ill = |what: &str| Err(IllTyped(what.to_string()));
        if self.vocab == 0 || self.hidden == 0 || self.layers.is_empty() {
            return ill("a model of no size");
        }
        if (0..self.kinds.len()).any(|kind| !self.layers.contains(&kind))
            || self.layers.iter().any(|kind| *kind >= self.kinds.len())
        {
            return ill("layers of kinds that there are not, or the other way round");
        }
        let last = self.kinds.len() + 1;
        for (number, section) in self.sections().enumerate() {
            let kinds = section.kinds(self.hidden, self.vocab)?;
            let width = if number == last { self.vocab } else { self.hidden };
            if kinds.get(section.output) != Some(&Kind::Row(width)) {
                return ill("a section that does not give what follows takes");
            }
            let in_layer = number > 0 && number < last;
            let stateful = section.steps.iter().any(|step| step.operator.has_state());
            if stateful && !in_layer {
                return ill("a state outside of a layer");
            }
            if number < last && section.steps.iter().any(|step| step.operator == Operator::TiedHead) {
                return ill("a head before the end");
            }
        }
        Ok(())
    }
}

impl Operator {
    /// Whether it remembers earlier tokens.
    pub fn has_state(self) -> bool {
        matches!(
            self,
            Operator::Cache { .. } | Operator::Convolution { .. } | Operator::GatedDelta { .. }
        )
    }

    /// What it makes of operands of these kinds; `None` if it does not take them.
    fn kind(self, operands: &[Kind], hidden: usize, vocab: usize) -> Option<Kind> {
        let splits = |width: usize, heads: usize| heads > 0 && width.is_multiple_of(heads);
        let row = |width: usize| Some(Kind::Row(width)).filter(|_| width > 0);
        match (self, operands) {
            (Operator::Linear { rows, .. }, [Kind::Row(_)]) => row(rows),
            (Operator::Router { experts, .. }, [Kind::Row(_)]) => row(experts),
            (Operator::TiedHead, [Kind::Row(width)]) if *width == hidden => row(vocab),
            (Operator::Norm { heads, .. }, [Kind::Row(width)]) if splits(*width, heads) => row(*width),
            (
                Operator::Unary(_) | Operator::Scale(_) | Operator::Softcap(_) | Operator::Clamp(_),
                [Kind::Row(width)],
            ) => row(*width),
            (Operator::Binary(_), [Kind::Row(left), Kind::Row(right)]) if left == right => row(*left),
            (Operator::Slice { start, len }, [Kind::Row(width)]) if start + len <= *width => row(len),
            (Operator::ScaleRows, [Kind::Row(width), Kind::Row(1)]) => row(*width),
            (Operator::Rope { heads, turn }, [Kind::Row(width)]) if splits(*width, heads) => {
                let turned = ((width / heads) as f64 * turn.share) as usize;
                row(*width).filter(|_| turned >= 2 && turned.next_multiple_of(2) <= width / heads)
            }
            (Operator::Cache { kv_heads }, [Kind::Row(keys), Kind::Row(values)])
                if keys == values && splits(*keys, kv_heads) =>
            {
                let width = keys / kv_heads;
                Some(Kind::Cache { kv_heads, width }).filter(|_| width > 0)
            }
            (Operator::Attention { heads, .. }, [Kind::Row(queries), Kind::Cache { kv_heads, width }])
                if heads > 0 && *queries == heads * width && heads.is_multiple_of(*kv_heads) =>
            {
                row(*queries)
            }
            (Operator::Convolution { taps: 2.., .. }, [Kind::Row(width)]) => row(*width),
            (
                Operator::GatedDelta { key_heads, value_heads },
                [Kind::Row(q), Kind::Row(k), Kind::Row(v), Kind::Row(a), Kind::Row(b)],
            ) if q == k
                && splits(*k, key_heads)
                && splits(*v, value_heads)
                && value_heads.is_multiple_of(key_heads)
                && [*a, *b] == [value_heads; 2] =>
            {
                row(*v)
            }
            (Operator::Route { chosen, .. }, [Kind::Row(experts)]) if (1..=*experts).contains(&chosen) => {
                Some(Kind::Routing { experts: *experts })
            }
            (Operator::Experts { inner: 1.., .. }, [Kind::Row(width), Kind::Routing { .. }]) => row(*width),
            _ => None,
        }
    }
}

impl Section {
    /// The kind of each value.
    ///
    /// # Errors
    /// An operator gets what it does not take.
    pub fn kinds(&self, hidden: usize, vocab: usize) -> Result<Vec<Kind>, IllTyped> {
        let mut kinds = vec![Kind::Row(hidden)];
        for step in &self.steps {
            let operands: Option<Vec<Kind>> = step.operands.iter().map(|of| kinds.get(*of).copied()).collect();
            let kind = operands.and_then(|operands| step.operator.kind(&operands, hidden, vocab));
            kinds.push(kind.ok_or_else(|| IllTyped(format!("{step:?} among {kinds:?}")))?);
        }
        Ok(kinds)
    }

    /// Leaves out the steps that the output does not need.
    pub fn without_unused(&self) -> Section {
        let mut needed = vec![false; self.steps.len() + 1];
        needed[self.output] = true;
        for (index, step) in self.steps.iter().enumerate().rev() {
            if needed[index + 1] {
                step.operands.iter().for_each(|of| needed[*of] = true);
            }
        }
        // What enters is value 0, needed or not.
        let mut number = vec![0; needed.len()];
        let mut steps = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            if needed[index + 1] {
                let operands = step.operands.iter().map(|of| number[*of]).collect();
                let operator = step.operator;
                steps.push(Step { operator, operands });
                number[index + 1] = steps.len();
            }
        }
        Section {
            output: number[self.output],
            steps,
        }
    }
}
