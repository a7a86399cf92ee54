//! `compile-model` with one more architecture.

use std::process::ExitCode;

fn main() -> ExitCode {
    kiln_compiler::cli::run(&new_architecture::registry())
}
