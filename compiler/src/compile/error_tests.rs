//! What an error says and what it gives as its cause, put one after the other as reports do, tells nothing twice.

use std::error::Error;
use std::io;

use super::CompileError;
use crate::architectures::UnknownArchitecture;
use crate::checkpoint::{CheckpointError, SourceType};
use crate::config::ConfigError;
use crate::cost::UnknownProfile;
use crate::dsl::DefineError;
use crate::emit::EmitError;
use crate::graph::GraphError;
use crate::kernels::KernelError;
use crate::plan::PlanError;
use crate::reference::EvalError;
use crate::rewrite::RewriteError;
use crate::term::Phase;
use crate::weights::{BadValue, PackError};

const CAUSE: &str = "the cause";

/// One of each variant of an error, as [`CompileError`]; a new one does not compile until it is here.
macro_rules! one_of_each {
    ($error:ty, $into:expr; $($variant:pat => $value:expr,)+) => {{
        let _ = |error: &$error| match error { $($variant => {})+ };
        let into: fn($error) -> CompileError = $into;
        vec![$(into($value)),+]
    }};
}

fn text() -> String {
    String::from("a text")
}

fn io() -> io::Error {
    io::Error::other(CAUSE)
}

fn of_checkpoint(into: fn(CheckpointError) -> CompileError) -> Vec<CompileError> {
    use CheckpointError as E;
    let json = || serde_json::from_str::<u32>("x").expect_err("no number");
    one_of_each! { E, into;
        E::Io { .. } => E::Io { path: text(), cause: io() },
        E::NotACheckpoint { .. } => E::NotACheckpoint { path: text() },
        E::PartOfCheckpoint { .. } => E::PartOfCheckpoint { path: text(), folder: text() },
        E::Bundle { .. } => E::Bundle { path: text(), folder: text() },
        E::Json { .. } => E::Json { file: text(), cause: json() },
        E::NotJson { .. } => E::NotJson { file: text(), what: "a page" },
        E::Tokenizer { .. } => E::Tokenizer { file: text(), what: text() },
        E::Damaged { .. } => E::Damaged { file: text(), what: text() },
        E::Unsupported { .. } => E::Unsupported { file: text(), what: text() },
        E::MissingParts { .. } => E::MissingParts { missing: vec![text()], parts: 2 },
        E::SeveralModels { .. } => E::SeveralModels { path: text(), files: vec![text()] },
        E::Quantized { .. } => E::Quantized { method: text() },
        E::NoTensor { .. } => E::NoTensor { name: text() },
        E::NoRows { .. } => E::NoRows { name: text(), wanted: 0..1, rows: 0 },
        E::TensorType { .. } => E::TensorType { name: text(), source_type: SourceType::F32, file: text() },
        E::Tensors(_) => E::Tensors(Vec::new()),
    }
}

fn of_packing(into: fn(PackError) -> CompileError) -> Vec<CompileError> {
    use PackError as E;
    one_of_each! { E, into;
        E::Checkpoint(_) => E::Checkpoint(CheckpointError::Io { path: text(), cause: io() }),
        E::Value { .. } => E::Value { name: text(), row: 0, problem: BadValue::NotFinite },
        E::Nothing => E::Nothing,
        E::Unlike { .. } => E::Unlike { a: text(), b: text() },
        E::Rows { .. } => E::Rows { wanted: 0..1, rows: 0 },
    }
}

fn of_emitting() -> Vec<CompileError> {
    use EmitError as E;
    one_of_each! { E, CompileError::Emit;
        E::Io { .. } => E::Io { path: text(), cause: io() },
        E::Occupied { .. } => E::Occupied { path: text() },
        E::NoFolder { .. } => E::NoFolder { path: text() },
        E::Pack(_) => E::Pack(PackError::Nothing),
        E::Size { .. } => E::Size { name: text(), planned: 0, packed: 1 },
        E::Interrupted => E::Interrupted,
    }
}

fn config() -> ConfigError {
    ConfigError::Missing {
        field: text(),
        expected: CAUSE.to_string(),
    }
}

fn of_defining() -> Vec<CompileError> {
    use DefineError as E;
    let graph = GraphError {
        pass: text(),
        section: text(),
        what: CAUSE.to_string(),
    };
    one_of_each! { E, CompileError::Define;
        E::Config { .. } => E::Config { architecture: text(), cause: config() },
        E::Definition { .. } => E::Definition { architecture: text(), problems: Vec::new() },
        E::Graph { .. } => E::Graph { architecture: text(), cause: graph },
    }
}

fn of_planning() -> Vec<CompileError> {
    use PlanError as E;
    let no_program = RewriteError::NoProgram {
        section: text(),
        phase: Phase::Prefill,
        reason: text(),
    };
    let kernel = KernelError::Unsupported {
        kernel: text(),
        what: CAUSE.to_string(),
    };
    one_of_each! { E, CompileError::Plan;
        E::Rewrite(_) => E::Rewrite(no_program),
        E::Kernel { .. } => E::Kernel { label: text(), cause: kernel },
        E::Step { .. } => E::Step { width: 1, tokens: 1 },
        E::Bindings { .. } => E::Bindings { label: text(), kernel: text(), takes: 1, given: 2 },
    }
}

fn of_evaluating() -> Vec<CompileError> {
    use EvalError as E;
    one_of_each! { E, CompileError::SelfTest;
        E::Token { .. } => E::Token { id: 1, vocab: 1 },
        E::Weight { .. } => E::Weight { name: text(), cause: CAUSE.into() },
        E::WeightSize { .. } => E::WeightSize { name: text(), expected: 1, found: 2 },
        E::Graph { .. } => E::Graph { node: text(), op: text(), what: "what" },
        E::NotFinite { .. } => E::NotFinite { id: 1, value: f32::NAN },
    }
}

fn of_compiling() -> Vec<CompileError> {
    use CompileError as E;
    let architecture = UnknownArchitecture {
        name: Some(text()),
        model_type: None,
        nearest: None,
        known: Vec::new(),
    };
    let profile = UnknownProfile {
        name: text(),
        known: text(),
    };
    let mut all = one_of_each! { E, |error| error;
        E::Architecture(_) => E::Architecture(architecture),
        E::Config(_) => E::Config(config()),
        E::Profile(_) => E::Profile(profile),
        E::NoWeights { .. } => E::NoWeights { source_path: text() },
        E::Context { .. } => E::Context { asked: 2, most: 1, name: text() },
        E::Chunk { .. } => E::Chunk { asked: 0 },
        E::Checkpoint(_) => E::Checkpoint(CheckpointError::NoTensor { name: text() }),
        E::Define(_) => E::Define(DefineError::Config { architecture: text(), cause: config() }),
        E::Plan(_) => E::Plan(PlanError::Step { width: 1, tokens: 1 }),
        E::Weights(_) => E::Weights(PackError::Nothing),
        E::Emit(_) => E::Emit(EmitError::Interrupted),
        E::SelfTest(_) => E::SelfTest(EvalError::Token { id: 1, vocab: 1 }),
    };
    all.extend(of_checkpoint(E::Checkpoint));
    all.extend(of_packing(E::Weights));
    all.extend(of_emitting());
    all.extend(of_defining());
    all.extend(of_planning());
    all.extend(of_evaluating());
    all
}

#[test]
fn no_cause_is_told_twice() {
    let mut told_causes = 0;
    for error in of_compiling() {
        let message = error.to_string();
        told_causes += usize::from(message.contains(CAUSE));
        let mut cause = error.source();
        while let Some(told) = cause {
            assert!(!message.contains(&told.to_string()), "{message}, and again: {told}");
            cause = told.source();
        }
    }
    // The messages that are to have it: of files (Io thrice), of config.json (thrice), of a graph, a kernel and a weight.
    assert_eq!(told_causes, 9);
}
