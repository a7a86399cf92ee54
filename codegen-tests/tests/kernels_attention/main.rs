//! Rope, caches, attention, convolutions, recurrent states and sampling against plain loops in f64, in every variant.

mod adjust;
mod convolution;
mod decode;
mod gated_delta;
mod prefill;
mod reference;
mod rope;
mod rope_cache;
mod sampling;
mod support;
mod text;
