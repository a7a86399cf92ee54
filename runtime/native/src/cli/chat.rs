use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde_json::json;

use super::answer::{Answer, Display, answer};
use super::args::ChatArgs;
use super::{open, session_file, tell};
use crate::text::{ChannelKind, ChannelStream, Message, TextError, TextModel};
use crate::{CancelToken, Error, SavedSession, Session, StopReason};

pub(super) async fn run(args: ChatArgs, cancel: &CancelToken) -> anyhow::Result<ExitCode> {
    let bundle = open::bundle(&args.model.bundle).await?;
    let text = open::text(&bundle, &args.text).await?;
    let text = text.context("the bundle has no tokenizer; use run-model generate with --ids")?;
    text.check_chat_template()?;
    let saved = session_file::read(args.session.as_deref())?;
    let model = open::model(&bundle, &args.model, open::Purpose::Run, cancel).await?;
    let mut input = Input::new()?;
    if input.is_terminal() {
        let name = &model.manifest().model.name;
        tell(format_args!("{name} on {}. {COMMANDS}.", model.device().name()));
    }
    let mut session = Session::new(model, args.sampling.context).await?;
    session.set_cancel_token(cancel.clone());
    let mut chat = Chat::new(&args, &text);
    if let Some(saved) = saved {
        chat.resume(&mut session, &saved).await?;
    }
    let talked = chat.talk(&mut session, &mut input, cancel).await;
    // What was said is kept, whatever ended it.
    let note = json!({ "messages": chat.messages });
    let saved = session_file::write(args.session.as_deref(), &session, note).await;
    talked.and(saved)?;
    Ok(ExitCode::SUCCESS)
}

const COMMANDS: &str = "/reset starts anew, /exit leaves, //... sends a text that begins with one slash";

/// What a line of the input asks for.
enum Line<'a> {
    Empty,
    Exit,
    Help,
    Reset,
    Message(&'a str),
    /// Nothing for the model; with what is wrong.
    Unusable(String),
}

impl<'a> Line<'a> {
    fn of(line: &'a [u8]) -> Self {
        let Ok(line) = std::str::from_utf8(line) else {
            return Line::Unusable("the line is not UTF-8 and was not sent".to_string());
        };
        match line.trim() {
            "" => Line::Empty,
            "/exit" | "/quit" => Line::Exit,
            "/help" => Line::Help,
            "/reset" => Line::Reset,
            line => match line.strip_prefix('/') {
                None => Line::Message(line),
                Some(text) if text.starts_with('/') => Line::Message(text),
                Some(_) => {
                    let command = line.split_whitespace().next().unwrap_or(line);
                    Line::Unusable(format!("there is no command {command}: {COMMANDS}"))
                }
            },
        }
    }
}

/// Why a line got no answer; the chat goes on.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct TurnFault(String);

/// Errors that end a turn are told, also to the program that reads the answers; others end this program.
fn report(error: anyhow::Error, json: bool) -> anyhow::Result<()> {
    let message = if let Some(Error::Canceled) = error.downcast_ref() {
        return Ok(());
    } else if let Some(Error::ContextOverflow { .. }) = error.downcast_ref() {
        "the conversation fills the context; /reset starts a new one, --context makes it longer".to_string()
    } else if let Some(TurnFault(reason)) = error.downcast_ref() {
        reason.clone()
    } else if let Some(refused @ TextError::ChatRefused { .. }) = error.downcast_ref() {
        refused.to_string()
    } else {
        return Err(error);
    };
    tell(format_args!("{message}"));
    if json {
        writeln!(std::io::stdout(), "{}", json!({ "error": message }))?;
    }
    Ok(())
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

    /// Goes on with the conversation of a session file.
    async fn resume(&mut self, session: &mut Session, saved: &SavedSession) -> anyhow::Result<()> {
        let messages = saved.note().get("messages");
        let messages = messages.context("the session was not saved by run-model chat; give another --session")?;
        let messages: Vec<Message> = serde_json::from_value(messages.clone())?;
        if self.args.system.is_some() && !messages.starts_with(&self.messages) {
            bail!(
                "the conversation of the session began with another --system; leave it out, or give another --session"
            );
        }
        session.restore(saved).await?;
        tell(format_args!(
            "(going on after {} messages; /reset starts anew)",
            messages.len()
        ));
        self.messages = messages;
        Ok(())
    }

    /// Answers lines until there are no more.
    async fn talk(&mut self, session: &mut Session, input: &mut Input, cancel: &CancelToken) -> anyhow::Result<()> {
        while let Some(line) = input.line()? {
            cancel.clear();
            let answered = match Line::of(&line) {
                Line::Empty => Ok(()),
                Line::Exit => break,
                Line::Help => {
                    tell(format_args!("{COMMANDS}"));
                    Ok(())
                }
                Line::Reset => {
                    *self = Chat::new(self.args, self.text);
                    session.reset()?;
                    Ok(())
                }
                Line::Message(message) => self.turn(session, message).await,
                Line::Unusable(reason) => Err(TurnFault(reason).into()),
            };
            if let Err(error) = answered {
                report(error, self.args.json)?;
            }
        }
        Ok(())
    }

    /// One message and its answer. On an error the message is as if never said.
    async fn turn(&mut self, session: &mut Session, message: &str) -> anyhow::Result<()> {
        let before = self.messages.len();
        self.messages.push(Message::new("user", message));
        match self.answer(session).await {
            Ok(answer) => self.messages.push(answer),
            Err(error) => {
                self.messages.truncate(before);
                return Err(error);
            }
        }
        Ok(())
    }

    async fn answer(&self, session: &mut Session) -> anyhow::Result<Message> {
        let prompt = open::prompt(self.text, &self.messages)?;
        let kept = session.keep_prefix(&prompt.ids)?;
        let (mut rest, opening) = (&prompt.ids[kept..], &prompt.ids[prompt.opening..]);
        if self.text.has_channels() && session.needs_marks() && rest.len() > opening.len() {
            // The next turn leaves out what was thought, perhaps with what opened it: this is how far it comes back.
            let (closed, open) = rest.split_at(rest.len() - opening.len());
            open::feed(session, closed).await?;
            session.mark().await?;
            rest = open;
        }
        open::feed(session, rest).await?;
        let model = session.model().clone();
        let temperature = model.manifest().model.sampling.temperature.unwrap_or(0.0);
        let options = open::generate_options(&model, &self.args.sampling, temperature);
        let stream = ChannelStream::new(self.text, opening, self.args.sampling.stop.clone())?;
        let mut display = Display::new(self.args.json, self.args.text.hide_reasoning);
        let answer = answer(session, options, Some(stream), &mut display).await?;
        if self.args.json {
            print_json(&answer, prompt.ids.len(), kept)?;
        } else {
            writeln!(std::io::stdout())?;
        }
        if answer.report.stop == StopReason::ContextFull {
            tell("(the context is full; /reset starts a new conversation)");
        }
        Ok(answer.transcript.message())
    }
}

fn print_json(answer: &Answer, prompt: usize, reused: usize) -> std::io::Result<()> {
    let object = json!({
        "text": answer.transcript.text_of(ChannelKind::Answer).unwrap_or_default(),
        "channels": answer.transcript,
        "ids": answer.ids,
        "stop": answer.report.stop,
        "prompt_tokens": prompt,
        "reused_tokens": reused,
    });
    writeln!(std::io::stdout(), "{object}")
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

    /// The bytes of the next line, `None` at the end of the input.
    fn line(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        match self {
            Input::Editor(editor) => loop {
                match editor.readline("> ") {
                    Ok(line) => {
                        editor.add_history_entry(&line)?;
                        return Ok(Some(line.into_bytes()));
                    }
                    Err(ReadlineError::Interrupted) => tell("(/exit or Ctrl-D leaves)"),
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => return Err(error.into()),
                }
            },
            Input::Lines(stdin) => {
                let mut line = Vec::new();
                let bytes = stdin.read_until(b'\n', &mut line)?;
                Ok((bytes > 0).then_some(line))
            }
        }
    }
}
