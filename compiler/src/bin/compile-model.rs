//! Checkpoint in, bundle out. See `compile-model --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    kiln_compiler::cli::run(&kiln_compiler::architectures::Registry::default())
}
