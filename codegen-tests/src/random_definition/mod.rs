//! Random definitions of models: what the compiler is given when nobody thought of it.
//!
//! A [`Definition`] is a program in the compiler's definition language, kept as data so that it can be made from a seed
//! ([`generate`]), written as an author would write it (its `Display`), traced by the language's own functions
//! ([`architecture`]) and made smaller while it still shows a fault ([`shrink`]). A [`Trial`] is a definition with all
//! that else decides what is compiled; [`Trial::run`] compares its logits with the CPU evaluator's.

mod blocks;
mod definition;
mod generate;
mod shrink;
mod text;
mod trace;
mod trial;

pub use definition::{Definition, Kind, Operator, Section, Step, Turn};
pub use generate::generate;
pub use shrink::{shrink, shrink_by};
pub use trace::architecture;
pub use trial::{Failure, Trial};
