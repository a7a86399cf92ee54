//! `compile-model` as its user runs it.

use std::fs;
use std::process::{Command, Output};

use super::{Workspace, config};

fn compile_model(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_compile-model"));
    command.arg(workspace.source()).arg("-o").arg(workspace.output());
    command.args(["--no-self-test"]).args(arguments);
    command
}

fn told(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!errors.contains("panicked"), "{errors}");
    errors
}

#[cfg(unix)]
#[test]
fn output_that_nobody_reads_ends_the_program_quietly() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let workspace = Workspace::new(&config());
    let mut command = compile_model(&workspace, &["--random-weights", "1", "--explain"]);
    let output = command.stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), told(&output).as_str()), (Some(0), ""));
    assert!(workspace.output().join("manifest.json").exists());
    if cfg!(target_os = "linux") {
        let full = || fs::File::options().write(true).open("/dev/full").unwrap();
        let output = command.stdout(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(told(&output).contains("No space left on device"), "{}", told(&output));
        let status = command.stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(1));
    }
}

#[test]
fn values_may_begin_with_a_hyphen() {
    let workspace = Workspace::new(&config());
    for (option, value, code) in [
        ("--random-weights", "-1", 2),
        ("--context", "-1", 2),
        ("--chunk", "-1", 2),
        ("--opt-level", "-1", 2),
        ("--quant", "-q4", 2),
        ("--profile", "-h100", 1),
    ] {
        let output = compile_model(&workspace, &[option, value]).output().unwrap();
        let errors = told(&output);
        assert_eq!(output.status.code(), Some(code), "{option}: {errors}");
        assert!(
            errors.contains(value) && !errors.contains("unexpected"),
            "{option}: {errors}"
        );
    }
}

#[test]
fn what_is_no_checkpoint_is_called_what_it_is() {
    let workspace = Workspace::new(&config());
    let source = workspace.source();
    let folder = source.parent().unwrap();
    fs::write(folder.join("tokenizer.json"), "{}").unwrap();
    fs::write(folder.join("model.safetensors"), "").unwrap();
    let bundle = folder.join("m.kiln");
    fs::create_dir_all(bundle.join("kernels")).unwrap();
    fs::write(bundle.join("manifest.json"), "{}").unwrap();
    let ggufs = folder.join("ggufs");
    fs::create_dir(&ggufs).unwrap();
    fs::write(ggufs.join("a.gguf"), "GGUF").unwrap();
    let run = format!("run it with run-model chat {}", bundle.display());
    for (source, expected) in [
        (bundle.clone(), run.clone()),
        (bundle.join("manifest.json"), run),
        (folder.join("tokenizer.json"), "a part of the checkpoint".to_string()),
        (folder.join("model.safetensors"), "give that folder".to_string()),
        (ggufs, "a.gguf: it ends within the version".to_string()),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_compile-model"));
        let output = command.arg(&source).arg("-o").arg(workspace.output()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(
            told(&output).contains(&expected),
            "{}: {}",
            source.display(),
            told(&output)
        );
    }
}
