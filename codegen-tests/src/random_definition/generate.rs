//! From a seed to a definition.

use kiln_compiler::graph::{Binary, Unary};

use super::blocks::{self, BLOCKS};
use super::definition::{Definition, Kind, Operator, Section, Step};
use crate::Random;

/// Fewest and most operators of a layer that are asked for; a block that has begun is finished.
const LAYER: (usize, usize) = (3, 14);

/// The definition of a seed: one to three layers of one or two kinds. Every seed's first layer begins with another block
/// than the seed's before, so that a run over successive seeds has all blocks in it.
pub fn generate(seed: u64) -> Definition {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9).wrapping_add(17));
    let vocab = *random.choice(&[33, 50, 65, 96]);
    let hidden = *random.choice(&[8, 15, 24, 33, 40, 64]);
    let maker = |inside, random: &mut Random| {
        // The generator goes on where the section before left off.
        Maker {
            random: Random(random.bits()),
            section: Section::default(),
            kinds: vec![Kind::Row(hidden)],
            used: vec![false],
            vocab,
            hidden,
            inside,
        }
    };
    let entry = match random.below(3) {
        0 => Section::default(),
        _ => maker(false, &mut random).entry(),
    };
    let count = 1 + random.below(2);
    let kinds = (0..count)
        .map(|kind| {
            let first = (kind == 0).then_some(seed as usize % BLOCKS.len());
            maker(true, &mut random).layer(first)
        })
        .collect();
    let mut layers: Vec<usize> = (0..count).collect();
    if random.below(3) == 0 {
        layers.push(random.below(count));
    }
    Definition {
        vocab,
        hidden,
        entry,
        kinds,
        layers,
        head: maker(false, &mut random).head(),
    }
}

/// A section that grows.
pub(super) struct Maker {
    pub random: Random,
    section: Section,
    kinds: Vec<Kind>,
    /// Whether a step takes the value.
    used: Vec<bool>,
    hidden: usize,
    vocab: usize,
    /// Whether it is a layer, which may have states.
    pub inside: bool,
}

impl Maker {
    /// Appends a step and gives the number of what it makes.
    pub fn push(&mut self, operator: Operator, operands: &[usize]) -> usize {
        operands.iter().for_each(|of| self.used[*of] = true);
        let operands = operands.to_vec();
        self.section.steps.push(Step { operator, operands });
        let kinds = self.section.kinds(self.hidden, self.vocab);
        self.kinds = kinds.unwrap_or_else(|error| panic!("the generator made an ill-typed step: {error}"));
        self.used.push(false);
        self.kinds.len() - 1
    }

    /// Width of a row.
    pub fn width(&self, value: usize) -> usize {
        match self.kinds[value] {
            Kind::Row(width) => width,
            other => panic!("{other:?} is no row"),
        }
    }

    /// Numbers of the rows, oldest first.
    fn rows(&self) -> Vec<usize> {
        let row = |value: &usize| matches!(self.kinds[*value], Kind::Row(_));
        (0..self.kinds.len()).filter(row).collect()
    }

    /// One of the rows: often one that nothing takes yet, so that little is left over; else any, so that some are taken
    /// several times.
    pub fn row(&mut self) -> usize {
        let rows = self.rows();
        let fresh: Vec<usize> = rows.iter().copied().filter(|row| !self.used[*row]).collect();
        match self.random.below(3) {
            0 => *self.random.choice(&rows),
            _ if fresh.is_empty() => rows[rows.len() - 1],
            _ => *self.random.choice(&fresh),
        }
    }

    /// A row of this width: one that there is, or a new product.
    pub fn row_of(&mut self, width: usize) -> usize {
        let rows = self.rows();
        let fitting: Vec<usize> = rows.into_iter().filter(|row| self.width(*row) == width).collect();
        if !fitting.is_empty() && self.random.below(3) > 0 {
            return *self.random.choice(&fitting);
        }
        let from = self.row();
        self.linear(from, width)
    }

    pub fn linear(&mut self, from: usize, rows: usize) -> usize {
        let bias = self.random.below(3) == 0;
        self.push(Operator::Linear { rows, bias }, &[from])
    }

    pub fn norm(&mut self, from: usize, heads: usize) -> usize {
        let plus_one = self.random.below(2) == 0;
        let eps = *self.random.choice(&[1e-5, 1e-6, 0.01]);
        self.push(Operator::Norm { heads, plus_one, eps }, &[from])
    }

    pub fn unary(&mut self, from: usize) -> usize {
        let function = *self.random.choice(&[
            Unary::Silu,
            Unary::GeluTanh,
            Unary::GeluErf,
            Unary::Sigmoid,
            Unary::Relu,
            Unary::Tanh,
        ]);
        self.push(Operator::Unary(function), &[from])
    }

    /// Any operator that looks at one element.
    pub fn elementwise(&mut self, from: usize) -> usize {
        let operator = match self.random.below(6) {
            0 => Operator::Scale(*self.random.choice(&[0.5, -1.25, 1.7])),
            1 => Operator::Softcap(*self.random.choice(&[1.5, 4.0])),
            2 => Operator::Clamp(*self.random.choice(&[0.75, 2.0])),
            _ => return self.unary(from),
        };
        self.push(operator, &[from])
    }

    pub fn binary(&mut self, left: usize, right: usize) -> usize {
        let operator = *self
            .random
            .choice(&[Binary::Add, Binary::Sub, Binary::Mul, Binary::Add]);
        self.push(Operator::Binary(operator), &[left, right])
    }

    pub fn add(&mut self, left: usize, right: usize) -> usize {
        self.push(Operator::Binary(Binary::Add), &[left, right])
    }

    /// Makes one row of `width` of all that nothing takes, adds what enters if it is as wide, and ends.
    fn end(mut self, width: usize) -> Section {
        let loose: Vec<usize> = self
            .rows()
            .into_iter()
            .filter(|row| *row > 0 && !self.used[*row])
            .collect();
        let mut parts = Vec::new();
        for row in loose {
            parts.push(match self.width(row) {
                fits if fits == width => row,
                wider if wider > width && self.random.below(3) == 0 => {
                    let start = self.random.below(wider - width + 1);
                    self.push(Operator::Slice { start, len: width }, &[row])
                }
                _ => self.linear(row, width),
            });
        }
        let mut output = parts.first().copied().unwrap_or(0);
        for part in parts.iter().skip(1) {
            output = self.add(output, *part);
        }
        if width == self.width(0) && output != 0 && self.random.below(4) > 0 {
            // Both orders, and sometimes normed as Gemma does.
            if self.random.below(3) == 0 {
                output = self.norm(output, 1);
            }
            output = match self.random.below(2) {
                0 => self.add(0, output),
                _ => self.add(output, 0),
            };
        }
        self.section.output = output;
        self.section.without_unused()
    }

    /// One kind of layer. `first`: the block that it begins with.
    fn layer(mut self, first: Option<usize>) -> Section {
        let wanted = LAYER.0 + self.random.below(LAYER.1 - LAYER.0 + 1);
        if self.random.below(4) > 0 {
            self.norm(0, 1);
        }
        if let Some(first) = first {
            BLOCKS[first](&mut self);
        }
        // What ends a section takes a few steps.
        while self.section.steps.len() + 2 < wanted {
            blocks::any(&mut self);
        }
        let width = self.hidden;
        self.end(width)
    }

    /// An entry: no states.
    fn entry(mut self) -> Section {
        let wanted = 1 + self.random.below(4);
        while self.section.steps.len() < wanted {
            blocks::any(&mut self);
        }
        let width = self.hidden;
        self.end(width)
    }

    fn head(mut self) -> Section {
        if self.random.below(4) > 0 {
            self.norm(0, 1);
        }
        for _ in 0..self.random.below(3) {
            blocks::any(&mut self);
        }
        let (vocab, hidden) = (self.vocab, self.hidden);
        let last = self.row();
        let mut logits = match self.width(last) == hidden && self.random.below(2) == 0 {
            true => self.push(Operator::TiedHead, &[last]),
            false => self.linear(last, vocab),
        };
        for _ in 0..self.random.below(4) {
            logits = match self.random.below(3) {
                0 => self.push(Operator::Softcap(5.0), &[logits]),
                1 => self.push(Operator::Scale(0.25), &[logits]),
                _ => self.elementwise(logits),
            };
        }
        self.end(vocab)
    }
}
