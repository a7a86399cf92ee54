use std::io;
use std::path::Path;

use kiln_compiler::compile::CompileError;
use thiserror::Error;

/// Why a build script's model is not there.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    #[error("{name:?} cannot name a bundle: it becomes a Rust module; use letters, digits and _, like smollm2")]
    Name { name: String },
    #[error("two bundles are called {name}; give one of them another .name(..)")]
    NameTaken { name: String },
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error("{name} has {bytes} bytes, more than can lie in a program ({most}); leave it in files with .beside()")]
    TooLarge { name: String, bytes: u64, most: u64 },
    #[error("OUT_DIR is not set: this is for build scripts; programs call kiln_compiler::compile")]
    NoBuildScript,
    #[error("{path}: {source}")]
    Io {
        path: String,
        #[source]
        source: io::Error,
    },
}

impl BuildError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> BuildError {
        let path = path.display().to_string();
        move |source| BuildError::Io { path, source }
    }
}
