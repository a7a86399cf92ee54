//! The program as its user runs it: with the toy model, whose answers transformers gave when it was made.

use std::io::Write;
use std::process::{Command, Stdio};

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_model-inside"))
}

#[test]
fn it_answers_a_question() {
    // In a folder where no file of the model lies.
    let output = (program().args(["What is the capital", "of France?"]))
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "The capital of France is Paris.\n"
    );
}

#[test]
fn it_holds_a_conversation() {
    let mut program = (program().stdin(Stdio::piped()).stdout(Stdio::piped()))
        .spawn()
        .unwrap();
    let questions = b"Hello!\nWhere are your weights?\nGoodbye!\n";
    program.stdin.take().unwrap().write_all(questions).unwrap();
    let output = program.wait_with_output().unwrap();
    assert!(output.status.success());
    let expected = "Hello! I am a toy model inside of this program.\n\
                    In the program itself. No file is read to answer you.\n\
                    Goodbye!\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}
