//! Matrix and elementwise kernels against plain loops in f64, in every variant, odd sizes included.

mod norm;
mod support;
