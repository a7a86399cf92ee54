//! Generated text told apart by what it is: reasoning, the answer, calls of tools.
//!
//! How a model marks them follows from its tokenizer's added tokens, whatever the model:
//!
//! - harmony ([specification](https://cookbook.openai.com/articles/openai-harmony)): messages
//!   `<|start|>ROLE<|channel|>NAME<|message|>TEXT<|end|>`, where `<|return|>` ends the last one and `<|call|>` the call
//!   of a tool, whose name stands as ` to=NAME` in the header;
//! - reasoning between `<think>` and `</think>`, the answer after it;
//! - otherwise all text is the answer.

use serde::Serialize;

use super::{Pushed, TextError, TextModel, TokenStream};

/// What a piece of text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelKind {
    /// For the user.
    Answer,
    /// What the model thinks on its way to the answer.
    Reasoning,
    /// For the user, on what the model is about to do.
    Commentary,
    /// Arguments of a tool.
    ToolCall,
}

/// One message of the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Channel {
    pub kind: ChannelKind,
    /// The model's own word for it, e.g. `analysis`; absent where the format has none.
    #[serde(rename = "channel")]
    pub name: Option<String>,
    /// The tool that a call goes to, e.g. `functions.weather`.
    pub recipient: Option<String>,
}

/// What becomes known with a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelEvent {
    /// The text from here on, up to the next of these, is a message of this channel.
    Begin(Channel),
    Text(String),
}

/// The marks that a tokenizer has.
#[derive(Clone, Debug)]
pub(super) enum Format {
    Plain,
    Think {
        open: u32,
        close: u32,
    },
    Harmony {
        start: u32,
        channel: u32,
        message: u32,
        constrain: Option<u32>,
        /// `<|end|>`, `<|return|>`, `<|call|>`.
        ends: Vec<u32>,
    },
}

impl Format {
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer) -> Self {
        let added = tokenizer.get_added_tokens_decoder();
        let find = |text: &str| tokenizer.token_to_id(text).filter(|id| added.contains_key(id));
        if let (Some(start), Some(channel), Some(message), Some(end)) = (
            find("<|start|>"),
            find("<|channel|>"),
            find("<|message|>"),
            find("<|end|>"),
        ) {
            let others = ["<|return|>", "<|call|>"].into_iter().filter_map(find);
            return Format::Harmony {
                start,
                channel,
                message,
                constrain: find("<|constrain|>"),
                ends: [end].into_iter().chain(others).collect(),
            };
        }
        match (find("<think>"), find("</think>")) {
            (Some(open), Some(close)) => Format::Think { open, close },
            _ => Format::Plain,
        }
    }

    fn mark(&self, id: u32) -> Option<Mark> {
        match self {
            Format::Plain => None,
            Format::Think { open, close } => match id {
                id if id == *open => Some(Mark::Open),
                id if id == *close => Some(Mark::Close),
                _ => None,
            },
            Format::Harmony {
                start,
                channel,
                message,
                constrain,
                ends,
            } => match id {
                id if id == *start => Some(Mark::Start),
                id if id == *channel => Some(Mark::Channel),
                id if id == *message => Some(Mark::Message),
                id if Some(id) == *constrain => Some(Mark::Constrain),
                id if ends.contains(&id) => Some(Mark::End),
                _ => None,
            },
        }
    }
}

/// A token that is structure and no text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Open,
    Close,
    Start,
    Channel,
    Message,
    Constrain,
    End,
}

/// Turns token ids into text of channels as they come. For models without channels it gives what [`TokenStream`]
/// gives, as one answer.
pub struct ChannelStream<'a> {
    model: &'a TextModel,
    format: Format,
    stops: Vec<String>,
    stopped: bool,
    part: MessagePart,
    text: TokenStream<'a>,
    /// The message's [`ChannelEvent::Begin`] was given out.
    begun: bool,
    /// Newlines around reasoning are not part of it: none was seen but these since its start or end.
    at_edge: bool,
    /// Newlines that are part of the reasoning if more follows.
    newlines: String,
}

/// Where in a message the next text belongs.
enum MessagePart {
    /// In the text of a message.
    Body(Channel),
    /// In the header, up to the text's begin.
    Header(Header, Field),
    /// Behind the end of a message.
    Between,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Role,
    Channel,
    Other,
}

#[derive(Default)]
struct Header {
    role: String,
    channel: String,
}

impl Header {
    /// The channel, and the recipient after ` to=`, which stands behind the role or behind the channel.
    fn parse(&self) -> Channel {
        let words = || self.role.split_whitespace().chain(self.channel.split_whitespace());
        let recipient = words().find_map(|word| word.strip_prefix("to=")).map(String::from);
        let name = self.channel.split_whitespace().next();
        let name = name.filter(|name| !name.starts_with("to=")).map(String::from);
        let kind = match (&recipient, name.as_deref()) {
            (Some(_), _) => ChannelKind::ToolCall,
            (None, None | Some("final")) => ChannelKind::Answer,
            (None, Some("analysis")) => ChannelKind::Reasoning,
            (None, Some(_)) => ChannelKind::Commentary,
        };
        Channel { kind, name, recipient }
    }
}

impl Channel {
    fn unnamed(kind: ChannelKind) -> Self {
        Self {
            kind,
            name: None,
            recipient: None,
        }
    }
}

impl<'a> ChannelStream<'a> {
    /// `opening` is the end of the prompt in which the answer begins, e.g. `<|start|>assistant` or `<think>`: the ids
    /// that the chat template adds for the model's turn. `stops` end the answer as in [`TokenStream::new`]; they are
    /// not looked for in other channels.
    ///
    /// # Errors
    /// [`TextError::Decode`] where the tokenizer's decoder fails.
    pub fn new(model: &'a TextModel, opening: &[u32], stops: Vec<String>) -> Result<Self, TextError> {
        let format = model.format.clone();
        let part = match format {
            Format::Harmony { .. } => MessagePart::Between,
            _ => MessagePart::Body(Channel::unnamed(ChannelKind::Answer)),
        };
        let mut stream = Self {
            model,
            format,
            stops: Vec::new(),
            stopped: false,
            part,
            text: TokenStream::new(model, Vec::new()),
            begun: false,
            at_edge: false,
            newlines: String::new(),
        };
        for &id in opening {
            stream.push(id)?;
        }
        // Nothing of it was generated.
        stream.begun = false;
        stream.newlines.clear();
        stream.stops = stops;
        if matches!(stream.part, MessagePart::Body(_)) {
            stream.text = stream.new_text();
        }
        Ok(stream)
    }

    /// All text as one answer, special tokens left out.
    pub fn plain(model: &'a TextModel, stops: Vec<String>) -> Self {
        Self {
            model,
            format: Format::Plain,
            stopped: false,
            part: MessagePart::Body(Channel::unnamed(ChannelKind::Answer)),
            text: TokenStream::new(model, stops.clone()),
            stops,
            begun: false,
            at_edge: false,
            newlines: String::new(),
        }
    }

    /// A stop text is complete: further tokens add nothing.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Adds a token.
    ///
    /// # Errors
    /// [`TextError::Decode`] where the tokenizer's decoder fails.
    pub fn push(&mut self, id: u32) -> Result<Vec<ChannelEvent>, TextError> {
        let mut events = Vec::new();
        if self.stopped {
            return Ok(events);
        }
        let Some(mark) = self.format.mark(id) else {
            let Pushed { text, stopped } = self.text.push(id)?;
            self.stopped = stopped;
            self.add(text, &mut events);
            return Ok(events);
        };
        self.end_text(&mut events)?;
        self.stopped = self.model.token_text(id).is_some_and(|text| self.stops.contains(&text));
        let part = std::mem::replace(&mut self.part, MessagePart::Between);
        self.part = match (mark, part) {
            (Mark::Open, _) => MessagePart::Body(Channel::unnamed(ChannelKind::Reasoning)),
            (Mark::Close, _) => MessagePart::Body(Channel::unnamed(ChannelKind::Answer)),
            (Mark::Start, _) => MessagePart::Header(Header::default(), Field::Role),
            (Mark::Channel, MessagePart::Header(header, _)) => MessagePart::Header(header, Field::Channel),
            (Mark::Channel, _) => MessagePart::Header(Header::default(), Field::Channel),
            (Mark::Constrain, MessagePart::Header(header, _)) => MessagePart::Header(header, Field::Other),
            // A stray one within a text is no text.
            (Mark::Constrain, part) => part,
            (Mark::Message, MessagePart::Header(header, _)) => MessagePart::Body(header.parse()),
            (Mark::Message, _) => MessagePart::Body(Channel::unnamed(ChannelKind::Answer)),
            (Mark::End, _) => MessagePart::Between,
        };
        self.begun &= mark == Mark::Constrain;
        self.at_edge = matches!(mark, Mark::Open | Mark::Close);
        self.text = self.new_text();
        // A call is one even without arguments.
        if let MessagePart::Body(channel) = &self.part
            && channel.kind == ChannelKind::ToolCall
            && !self.begun
        {
            self.begun = true;
            events.push(ChannelEvent::Begin(channel.clone()));
        }
        Ok(events)
    }

    /// The rest of the text, when no more tokens come.
    ///
    /// # Errors
    /// [`TextError::Decode`] where the tokenizer's decoder fails.
    pub fn finish(mut self) -> Result<Vec<ChannelEvent>, TextError> {
        let mut events = Vec::new();
        self.end_text(&mut events)?;
        Ok(events)
    }

    fn end_text(&mut self, events: &mut Vec<ChannelEvent>) -> Result<(), TextError> {
        let rest = std::mem::replace(&mut self.text, TokenStream::new(self.model, Vec::new())).finish()?;
        self.add(rest, events);
        self.newlines.clear();
        Ok(())
    }

    /// Stop texts end the answer only.
    fn new_text(&self) -> TokenStream<'a> {
        let stops = match &self.part {
            MessagePart::Body(channel) if channel.kind == ChannelKind::Answer => self.stops.clone(),
            _ => Vec::new(),
        };
        TokenStream::new(self.model, stops)
    }

    fn add(&mut self, text: String, events: &mut Vec<ChannelEvent>) {
        if text.is_empty() {
            return;
        }
        if matches!(self.part, MessagePart::Between) {
            // Not as the format has it; rather shown than lost.
            self.part = MessagePart::Body(Channel::unnamed(ChannelKind::Answer));
        }
        let (channel, text) = match &mut self.part {
            MessagePart::Header(header, Field::Role) => return header.role.push_str(&text),
            MessagePart::Header(header, Field::Channel) => return header.channel.push_str(&text),
            MessagePart::Header(_, Field::Other) | MessagePart::Between => return,
            MessagePart::Body(channel) => (channel, text),
        };
        let mut text = if self.at_edge {
            text.trim_start_matches('\n')
        } else {
            &text[..]
        };
        if text.is_empty() {
            return;
        }
        self.at_edge = false;
        let mut out = String::new();
        if matches!(self.format, Format::Think { .. }) && channel.kind == ChannelKind::Reasoning {
            let body = text.trim_end_matches('\n');
            let newlines = &text[body.len()..];
            if body.is_empty() {
                self.newlines.push_str(newlines);
                return;
            }
            out = std::mem::replace(&mut self.newlines, newlines.to_string());
            text = body;
        }
        out.push_str(text);
        if !std::mem::replace(&mut self.begun, true) {
            events.push(ChannelEvent::Begin(channel.clone()));
        }
        events.push(ChannelEvent::Text(out));
    }
}
