//! The `run-model` program.

mod answer;
mod args;
mod bench;
mod chat;
mod devices;
mod generate;
mod inspect;
mod logits;
mod no_bundle;
mod open;
mod process;
mod session_file;
mod verify;

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use crate::{CancelToken, Error, block_on};
use args::{Cli, Command};

/// As shells report a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Parses the command line, runs it, and reports errors on standard error.
pub fn main() -> ExitCode {
    let mut command = taking_values(Cli::command());
    let cli =
        Cli::from_arg_matches(&command.get_matches_mut()).unwrap_or_else(|error| error.format(&mut command).exit());
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
        tell(format_args!("warning: Ctrl-C will end the program at once: {error}"));
    }
    match block_on(run(cli.command, &cancel)) {
        Ok(code) => code,
        Err(error) if is_canceled(&error) => {
            tell("interrupted");
            ExitCode::from(INTERRUPTED)
        }
        // Whoever reads our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("error: {}", one_line(&error)));
            ExitCode::FAILURE
        }
    }
}

/// What follows an option that takes a value is its value, also where that begins with a hyphen.
fn taking_values(command: clap::Command) -> clap::Command {
    let each = |arg: clap::Arg| {
        let takes_value = !arg.is_positional() && arg.get_action().takes_values();
        arg.allow_hyphen_values(takes_value)
    };
    command.mut_args(each).mut_subcommands(taking_values)
}

/// Writes a line to standard error, if somebody reads it.
fn tell(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The error and its causes, without those that the one before has told already.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    let mut told = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if told.contains(&text) {
            continue;
        }
        line += if line.is_empty() { "" } else { ": " };
        line += &text;
        told = text;
    }
    line
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

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let io = std::io::Error::other("no such thing");
        let read = Error::Read {
            file: "a".to_string(),
            source: io,
        };
        let error = Err::<(), _>(read).context("cannot open b").unwrap_err();
        assert_eq!(
            one_line(&error),
            "cannot open b: a: no such thing; is this a complete bundle made by compile-model?"
        );
        let error = Err::<(), _>(std::io::Error::other("full"))
            .context("cannot write c")
            .unwrap_err();
        assert_eq!(one_line(&error), "cannot write c: full");
    }
}
