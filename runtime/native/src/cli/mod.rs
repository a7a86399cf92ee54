//! The `run-model` program.

mod answer;
mod args;
mod bench;
mod chat;
mod devices;
mod generate;
mod inspect;
mod logits;
mod open;
mod process;
mod session_file;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use crate::{CancelToken, Error, block_on};
use args::{Cli, Command};

/// As shells report a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Parses the command line, runs it, and reports errors on standard error.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let cancel = CancelToken::new();
    let on_signal = cancel.clone();
    // The first Ctrl-C ends what runs in good order, the second at once.
    let handler = ctrlc::set_handler(move || {
        if on_signal.is_canceled() {
            std::process::exit(INTERRUPTED.into());
        }
        on_signal.cancel();
    });
    if let Err(error) = handler {
        eprintln!("warning: Ctrl-C will end the program at once: {error}");
    }
    match block_on(run(cli.command, &cancel)) {
        Ok(code) => code,
        Err(error) if is_canceled(&error) => {
            eprintln!("interrupted");
            ExitCode::from(INTERRUPTED)
        }
        // Whoever reads our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command, cancel: &CancelToken) -> anyhow::Result<ExitCode> {
    match command {
        Command::Chat(args) => chat::run(args, cancel).await,
        Command::Generate(args) => generate::run(args, cancel).await,
        Command::Logits(args) => logits::run(args, cancel).await,
        Command::Bench(args) => bench::run(args, cancel).await,
        Command::Verify(args) => verify::run(args, cancel).await,
        Command::Inspect(args) => inspect::run(args).await,
        Command::Devices(args) => devices::run(args).await,
    }
}

fn is_canceled(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Canceled))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
