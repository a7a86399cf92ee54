//! Kiln's compiler: model definition and checkpoint in, bundle of specialized WGSL kernels out.
//!
//! The way through: [`architectures`] (written in [`dsl`]) build a [`graph`] for one config;
//! [`rewrite`] fuses each layer template, as a [`term`], at the prices of [`cost`]; [`plan`] schedules it and lays out memory; [`kernels`]
//! writes WGSL through naga; [`emit`] writes the bundle. [`reference`] is the CPU evaluator that
//! says what every operator means. See ARCHITECTURE.md.

extern crate self as kiln_compiler;

pub mod architectures;
pub mod checkpoint;
#[cfg(feature = "cli")]
pub mod cli;
pub mod compile;
pub mod config;
pub mod cost;
pub mod dsl;
pub mod emit;
pub mod graph;
pub mod kernels;
pub mod plan;
pub mod progress;
pub mod reference;
pub mod rewrite;
pub mod term;
pub mod weights;
