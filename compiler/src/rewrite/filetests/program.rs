//! An extracted program as text: a line for each kernel, with its price.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use egg::{Id, Language};

use crate::rewrite::explain::is_kernel;
use crate::rewrite::extract::Extraction;
use crate::term::{Leaf, Term};

/// The kernels in the order in which they run. What is part of a kernel stands within it and is in its price.
pub fn describe(program: &Extraction, names: &BTreeMap<Leaf, String>) -> String {
    let mut text = Text {
        program,
        names,
        numbers: BTreeMap::new(),
        lines: String::new(),
    };
    let root = text.term(program.root);
    if !is_kernel(&program.choice[&program.root]) {
        let _ = writeln!(text.lines, "{root}");
    }
    text.lines
}

/// Picoseconds, exactly.
pub fn nanoseconds(picoseconds: u64) -> String {
    format!("{:>12}.{:03} ns", picoseconds / 1000, picoseconds % 1000)
}

struct Text<'a> {
    program: &'a Extraction,
    names: &'a BTreeMap<Leaf, String>,
    /// Kernels that have their line.
    numbers: BTreeMap<Id, usize>,
    lines: String,
}

impl Text<'_> {
    fn term(&mut self, id: Id) -> String {
        if let Some(number) = self.numbers.get(&id) {
            return format!("%{number}");
        }
        let term = &self.program.choice[&id];
        let operands: Vec<String> = term.children().iter().map(|&child| self.term(child)).collect();
        let written = match (term, operands.is_empty()) {
            (Term::Leaf(leaf), _) => self.names[leaf].clone(),
            (_, true) => term.to_string(),
            _ => format!("({term} {})", operands.join(" ")),
        };
        if !is_kernel(term) {
            return written;
        }
        let number = self.numbers.len() + 1;
        self.numbers.insert(id, number);
        let price = nanoseconds(self.price(id, &mut BTreeSet::new()));
        let _ = writeln!(self.lines, "{price}  %{number} = {written}");
        format!("%{number}")
    }

    /// Of a kernel with its parts, each once.
    fn price(&self, id: Id, seen: &mut BTreeSet<Id>) -> u64 {
        let mut total = self.program.prices[&id];
        for &part in self.program.choice[&id].children() {
            if !is_kernel(&self.program.choice[&part]) && seen.insert(part) {
                total += self.price(part, seen);
            }
        }
        total
    }
}
