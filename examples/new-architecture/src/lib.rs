//! An architecture that Kiln does not ship, and a registry that has it.

mod qwen2;

pub use qwen2::{Qwen2Config, qwen2};

use kiln_compiler::architectures::Registry;

/// What Kiln ships, and Qwen2.
pub fn registry() -> Registry {
    Registry::default().with(qwen2())
}
