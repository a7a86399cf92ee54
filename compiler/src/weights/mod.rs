//! How weights lie in a bundle: formats, packing, and the readable inverse.

mod format;

pub use format::WeightFormat;
