//! Terms: the language in which a section of the model is rewritten, priced and lowered.
//!
//! Below all three: [`crate::rewrite`] makes and joins terms, [`crate::cost`] prices them and [`crate::plan`] turns the
//! chosen ones into kernel calls. Rewriting and prices do not know each other; they meet in [`Prices`].

mod facts;
mod language;
mod leaves;
mod phase;
mod prices;

pub use facts::{Facts, FactsOf, TermGraph, leaf_def};
pub use language::{Leaf, Term};
pub use leaves::{Arrangement, BankLeaf, LeafDef, Leaves, MatrixLeaf};
pub use phase::Phase;
pub use prices::Prices;
