use serde::Serialize;

use super::{Channel, ChannelEvent, ChannelKind, Message};

/// A channel and its whole text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChannelText {
    #[serde(flatten)]
    pub channel: Channel,
    pub text: String,
}

/// What was said, message by message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Transcript(pub Vec<ChannelText>);

impl Transcript {
    pub fn add(&mut self, event: &ChannelEvent) {
        match event {
            ChannelEvent::Begin(channel) => self.0.push(ChannelText {
                channel: channel.clone(),
                text: String::new(),
            }),
            ChannelEvent::Text(text) => {
                if let Some(last) = self.0.last_mut() {
                    last.text.push_str(text);
                }
            }
        }
    }

    /// All that is of this kind; `None` if nothing is.
    pub fn text_of(&self, kind: ChannelKind) -> Option<String> {
        let texts = self.0.iter().filter(|part| part.channel.kind == kind);
        let texts: Vec<&str> = texts.map(|part| part.text.as_str()).collect();
        (!texts.is_empty()).then(|| texts.join("\n"))
    }

    /// As a turn of the assistant for the chat template: the answer (or what was said instead), and the reasoning, which
    /// templates keep or drop as the model was trained.
    pub fn message(&self) -> Message {
        let answer = self.text_of(ChannelKind::Answer);
        let content = answer.or_else(|| self.text_of(ChannelKind::Commentary));
        Message {
            reasoning: self.text_of(ChannelKind::Reasoning),
            ..Message::new("assistant", content.unwrap_or_default())
        }
    }
}
