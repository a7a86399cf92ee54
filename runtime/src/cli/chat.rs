use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::args::ChatArgs;
use super::{generate, open};
use crate::text::{Message, TextModel};
use crate::{CancelToken, Error, Session, StopReason};

pub(super) async fn run(args: ChatArgs, cancel: &CancelToken) -> anyhow::Result<ExitCode> {
    let bundle = open::bundle(&args.model.bundle).await?;
    let text = open::text(&bundle).await?;
    let text = text.context("the bundle has no tokenizer; use run-model generate with --ids")?;
    let model = open::model(&bundle, &args.model, open::Purpose::Run, cancel).await?;
    let mut input = Input::new()?;
    if input.is_terminal() {
        let name = &model.manifest().model.name;
        eprintln!("{name} on {}. /reset starts anew, /exit leaves.", model.device().name());
    }
    let mut session = Session::new(model, args.sampling.context).await?;
    session.set_cancel_token(cancel.clone());
    let mut chat = Chat::new(&args, &text);
    while let Some(line) = input.line()? {
        cancel.clear();
        match line.trim() {
            "" => {}
            "/exit" | "/quit" => break,
            "/reset" => {
                chat = Chat::new(&args, &text);
                session.reset()?;
            }
            message => {
                if let Err(error) = chat.turn(&mut session, message).await {
                    report(error)?;
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Errors that end a turn are told, others end the program.
fn report(error: anyhow::Error) -> anyhow::Result<()> {
    match error.downcast_ref() {
        Some(Error::ContextOverflow { .. }) => {
            eprintln!("the conversation fills the context; /reset starts a new one, --context makes it longer");
            Ok(())
        }
        Some(Error::Canceled) => Ok(()),
        _ => Err(error),
    }
}

/// A conversation, as messages; the session holds what the model has seen of it.
struct Chat<'a> {
    args: &'a ChatArgs,
    text: &'a TextModel,
    messages: Vec<Message>,
}

impl<'a> Chat<'a> {
    fn new(args: &'a ChatArgs, text: &'a TextModel) -> Self {
        let system = args.system.iter().map(|system| Message::new("system", system));
        Self {
            args,
            text,
            messages: system.collect(),
        }
    }

    /// One message and its answer. On an error the message is as if never said.
    async fn turn(&mut self, session: &mut Session, message: &str) -> anyhow::Result<()> {
        let before = self.messages.len();
        self.messages.push(Message::new("user", message));
        let answer = self.answer(session).await;
        match answer {
            Ok(text) => self.messages.push(Message::new("assistant", text)),
            Err(error) => {
                self.messages.truncate(before);
                return Err(error);
            }
        }
        Ok(())
    }

    async fn answer(&self, session: &mut Session) -> anyhow::Result<String> {
        let ids = self.text.encode_chat(&self.messages, true)?;
        let kept = session.keep_prefix(&ids)?;
        open::feed(session, &ids[kept..]).await?;
        let model = session.model().clone();
        let temperature = model.manifest().model.sampling.temperature.unwrap_or(0.0);
        let options = open::generate_options(&model, &self.args.sampling, temperature);
        let mut out = std::io::stdout();
        let mut show = |piece: &str| {
            out.write_all(piece.as_bytes())?;
            out.flush()
        };
        let stops = self.args.sampling.stop.clone();
        let answer = generate::answer(session, options, Some(self.text), stops, &mut show).await?;
        writeln!(std::io::stdout())?;
        if answer.report.stop == StopReason::ContextFull {
            eprintln!("(the context is full; /reset starts a new conversation)");
        }
        Ok(answer.text.unwrap_or_default())
    }
}

/// An editor on a terminal, plain lines otherwise.
enum Input {
    Editor(Box<DefaultEditor>),
    Lines(std::io::StdinLock<'static>),
}

impl Input {
    fn new() -> anyhow::Result<Self> {
        let stdin = std::io::stdin();
        Ok(if stdin.is_terminal() {
            Input::Editor(Box::new(DefaultEditor::new()?))
        } else {
            Input::Lines(stdin.lock())
        })
    }

    fn is_terminal(&self) -> bool {
        matches!(self, Input::Editor(_))
    }

    /// `None` at the end of the input.
    fn line(&mut self) -> anyhow::Result<Option<String>> {
        match self {
            Input::Editor(editor) => loop {
                match editor.readline("> ") {
                    Ok(line) => {
                        editor.add_history_entry(&line)?;
                        return Ok(Some(line));
                    }
                    Err(ReadlineError::Interrupted) => eprintln!("(/exit or Ctrl-D leaves)"),
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => return Err(error.into()),
                }
            },
            Input::Lines(stdin) => {
                let mut line = String::new();
                let bytes = stdin.read_line(&mut line)?;
                Ok((bytes > 0).then_some(line))
            }
        }
    }
}
