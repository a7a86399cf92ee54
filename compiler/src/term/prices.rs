use super::{Phase, Term, TermGraph};

/// What terms cost, as extraction and `--explain` ask for it. Rules are never given one.
pub trait Prices {
    /// The phase that the prices hold for.
    fn phase(&self) -> Phase;

    /// Price of an e-node alone, without its operands, in picoseconds; `None` if it is no kernel and part of none.
    fn price(&self, egraph: &TermGraph, term: &Term) -> Option<u64>;
}
