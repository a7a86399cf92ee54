//! How weights lie in a bundle: formats, packing, and the readable inverse.

mod check;
mod encode;
mod format;
mod matrix;
mod pack;
mod quant;
mod unpack;

#[cfg(test)]
mod tests;

pub use check::check_exact;
pub use encode::BadValue;
pub use format::{WeightFormat, padded};
pub use matrix::PackedMatrix;
pub use pack::{PackError, pack, pack_rows};
pub use quant::{Quant, QuantNameError, format_for};
pub use unpack::unpack;
