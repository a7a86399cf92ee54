//! Matrix and elementwise kernels against plain loops in f64, in every variant, odd sizes included.

mod expert_refusals;
mod experts;
mod gather;
mod gemm;
mod group;
mod grouped;
mod grouped_text;
mod matrix;
mod matvec;
mod norm;
mod pointwise;
mod product;
mod refusals;
mod route;
mod router;
mod scalar;
mod select_row;
mod snapshots;
mod support;
