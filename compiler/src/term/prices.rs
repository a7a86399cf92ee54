use super::{Phase, Term, TermGraph};

/// What terms cost, as extraction and `--explain` ask for it. Rules are never given one.
pub trait Prices {
    /// The phase that the prices hold for.
    fn phase(&self) -> Phase;

    /// Price of an e-node alone, without its operands, in picoseconds; `None` if it is no kernel and part of none, or if
    /// [`refusal`](Self::refusal) says why there is no kernel for it.
    fn price(&self, egraph: &TermGraph, term: &Term) -> Option<u64>;

    /// Why the kernel of an e-node cannot be made for its sizes, if it cannot.
    fn refusal(&self, egraph: &TermGraph, term: &Term) -> Option<String>;
}
