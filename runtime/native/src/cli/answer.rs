//! Generating an answer and showing it as it comes.

use std::io::{IsTerminal, Write};

use crate::text::{ChannelEvent, ChannelKind, ChannelStream, Transcript};
use crate::{Error, GenerateOptions, GenerationReport, Session, StopReason};

/// What came out of one generation.
pub(super) struct Answer {
    /// With the end token.
    pub(super) ids: Vec<u32>,
    /// Empty without a tokenizer.
    pub(super) transcript: Transcript,
    pub(super) report: GenerationReport,
}

/// Generates after what was fed, and shows the text as it comes. Without a stream, token ids only.
pub(super) async fn answer(
    session: &mut Session,
    options: GenerateOptions,
    mut stream: Option<ChannelStream<'_>>,
    display: &mut Display,
) -> anyhow::Result<Answer> {
    let mut transcript = Transcript::default();
    let mut show = |events: Vec<ChannelEvent>| {
        events.iter().try_for_each(|event| {
            transcript.add(event);
            display.show(event)
        })
    };
    let mut ids = Vec::new();
    let mut generation = session.generate(options)?;
    let mut stopped = false;
    while !stopped {
        let id = match generation.next().await {
            Ok(Some(id)) => id,
            // What was said before Ctrl-C is an answer, too.
            Ok(None) | Err(Error::Canceled) => break,
            Err(error) => return Err(error.into()),
        };
        ids.push(id);
        if let Some(stream) = &mut stream {
            show(stream.push(id)?)?;
            stopped = stream.stopped();
        }
    }
    if let Some(stream) = stream {
        show(stream.finish()?)?;
    }
    display.end()?;
    let mut report = generation.report();
    if stopped {
        report.stop = StopReason::StopText;
    }
    Ok(Answer {
        ids,
        transcript,
        report,
    })
}

/// Writes channels to standard output: the answer as it is, reasoning and calls of tools dimmed on a terminal, and
/// with their names before them elsewhere.
pub(super) struct Display {
    terminal: bool,
    silent: bool,
    hide_reasoning: bool,
    /// The message under way, if it is shown.
    showing: Option<ChannelKind>,
    /// Something was shown before.
    any: bool,
}

const DIM: &str = "\x1b[2m";
const NORMAL: &str = "\x1b[0m";

impl Display {
    /// `silent` shows nothing.
    pub(super) fn new(silent: bool, hide_reasoning: bool) -> Self {
        Self {
            terminal: std::io::stdout().is_terminal(),
            silent,
            hide_reasoning,
            showing: None,
            any: false,
        }
    }

    fn show(&mut self, event: &ChannelEvent) -> std::io::Result<()> {
        if self.silent {
            return Ok(());
        }
        let mut out = std::io::stdout();
        match event {
            ChannelEvent::Begin(channel) => {
                self.end()?;
                if channel.kind == ChannelKind::Reasoning && self.hide_reasoning {
                    return Ok(());
                }
                if std::mem::replace(&mut self.any, true) {
                    out.write_all(if self.terminal { b"\n\n" } else { b"\n" })?;
                }
                let name = channel.name.as_deref();
                let label = match channel.kind {
                    ChannelKind::Answer => None,
                    ChannelKind::ToolCall => Some(format!("call {}", channel.recipient.as_deref().unwrap_or("?"))),
                    ChannelKind::Reasoning => Some(name.unwrap_or("reasoning").to_string()),
                    ChannelKind::Commentary => Some(name.unwrap_or("commentary").to_string()),
                };
                if self.terminal && channel.kind != ChannelKind::Answer {
                    out.write_all(DIM.as_bytes())?;
                }
                if let Some(label) = label
                    && (!self.terminal || channel.kind == ChannelKind::ToolCall)
                {
                    write!(out, "[{label}] ")?;
                }
                self.showing = Some(channel.kind);
            }
            ChannelEvent::Text(text) if self.showing.is_some() => out.write_all(text.as_bytes())?,
            ChannelEvent::Text(_) => {}
        }
        out.flush()
    }

    /// Ends the message under way.
    fn end(&mut self) -> std::io::Result<()> {
        let dimmed = self.showing.take().is_some_and(|kind| kind != ChannelKind::Answer);
        if dimmed && self.terminal {
            let mut out = std::io::stdout();
            out.write_all(NORMAL.as_bytes())?;
            out.flush()?;
        }
        Ok(())
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        // An error leaves the terminal as it was.
        let _ = self.end();
    }
}
