use super::detokenize::Detokenizer;
use super::stop::StopFilter;
use super::{TextError, TextModel};

/// Turns token ids into text as they come.
///
/// The pieces of [`push`](Self::push) and [`finish`](Self::finish) together are
/// [`TextModel::decode`] of all ids without special tokens, up to the first stop string. No piece ends
/// within a character or shows the beginning of a stop string; a token costs the same however long the
/// text is.
pub struct TokenStream<'a> {
    model: &'a TextModel,
    detokenizer: Detokenizer<'a>,
    filter: StopFilter,
}

/// The outcome of one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Text to show now; empty while a character or a possible stop string is incomplete.
    pub text: String,
    /// A stop string is complete: the text ended before it, and further tokens add nothing.
    pub stopped: bool,
}

impl<'a> TokenStream<'a> {
    /// `stops` end the text where one of them is complete; they are not part of it. One that is exactly
    /// a special token's text stops at that token.
    pub fn new(model: &'a TextModel, stops: Vec<String>) -> Self {
        TokenStream {
            model,
            detokenizer: Detokenizer::new(model),
            filter: StopFilter::new(stops),
        }
    }

    /// Adds a token. Special tokens and ids outside the vocabulary are no text.
    ///
    /// # Errors
    /// [`TextError::Decode`] where the tokenizer's decoder fails.
    pub fn push(&mut self, id: u32) -> Result<Pushed, TextError> {
        let text = match self.model.special_token_text(id) {
            Some(special) if self.filter.stops_at(&special) => self.stop_now()?,
            Some(_) => String::new(),
            None if self.filter.stopped() => String::new(),
            None => self.filter.push(&self.detokenizer.push(id)?),
        };
        Ok(Pushed {
            text,
            stopped: self.filter.stopped(),
        })
    }

    /// The rest of the text, when no more tokens come: what was held back, an incomplete character as
    /// U+FFFD.
    ///
    /// # Errors
    /// [`TextError::Decode`] where the tokenizer's decoder fails.
    pub fn finish(mut self) -> Result<String, TextError> {
        self.stop_now()
    }

    fn stop_now(&mut self) -> Result<String, TextError> {
        let mut text = self.filter.push(&self.detokenizer.finish()?);
        text.push_str(&self.filter.stop());
        Ok(text)
    }
}
