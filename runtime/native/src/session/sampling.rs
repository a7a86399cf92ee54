//! How the next token is picked, and what `adjust` is told of it.

use kiln_bundle::{Model, RuleWord, TokenRule};

use crate::Error;

/// Below this, temperatures make no difference: noise no longer outweighs any difference of logits.
const LEAST_TEMPERATURE: f32 = 1e-6;

/// What numbers must be.
const SHARE: &str = "from 0 to 1";
const FINITE: &str = "a finite number";

/// How the next token is picked. What it does, and in which order, is what Hugging Face's transformers do: rules,
/// penalties and bans first, in greedy decoding too; then temperature, top-k, top-p and min-p.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0: always the most likely token.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set of tokens with this probability; 1 keeps all.
    pub top_p: f32,
    /// Keep the tokens that are at least this times as likely as the most likely one; 0 keeps all.
    pub min_p: f32,
    pub seed: u32,
    /// Divides the positive logits of tokens that stand in the session already, multiplies their negative ones; 1 does
    /// nothing.
    pub repetition_penalty: f32,
    /// Taken from the logits of tokens that this generation has sampled.
    pub presence_penalty: f32,
    /// Taken from the logits of tokens that this generation has sampled, as often as it has.
    pub frequency_penalty: f32,
    /// No sequence of so many tokens occurs a second time in the session; 0: any may.
    pub no_repeat_ngram: u32,
    /// No id that ends the generation is sampled among so many first tokens.
    pub min_tokens: u32,
    /// No id that ends the generation is sampled before the session has so many tokens.
    pub min_length: u32,
    /// Biases and bans, of tokens and of sequences.
    pub rules: Vec<TokenRule>,
}

impl Default for Sampling {
    /// Greedy, and nothing else.
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            no_repeat_ngram: 0,
            min_tokens: 0,
            min_length: 0,
            rules: Vec::new(),
        }
    }
}

impl Sampling {
    /// As the model's checkpoint says.
    pub fn of(model: &Model) -> Self {
        let told = &model.sampling;
        let nothing = Self::default();
        Self {
            temperature: told.temperature.unwrap_or(nothing.temperature),
            top_k: told.top_k.unwrap_or(nothing.top_k),
            top_p: told.top_p.unwrap_or(nothing.top_p),
            min_p: told.min_p.unwrap_or(nothing.min_p),
            repetition_penalty: told.repetition_penalty.unwrap_or(nothing.repetition_penalty),
            no_repeat_ngram: told.no_repeat_ngram_size.unwrap_or(nothing.no_repeat_ngram),
            min_tokens: told.min_new_tokens.unwrap_or(nothing.min_tokens),
            min_length: told.min_length.unwrap_or(nothing.min_length),
            rules: told.rules.clone(),
            ..nothing
        }
    }

    /// # Errors
    /// A number that means nothing, or a rule about ids that a vocabulary of this size does not have.
    pub(super) fn check(&self, vocab: u32) -> Result<(), Error> {
        let share = |value: f32| (0.0..=1.0).contains(&value);
        for (name, good, expected) in [
            (
                "temperature",
                self.temperature.is_finite() && self.temperature >= 0.0,
                "0 or more",
            ),
            ("top_p", share(self.top_p), SHARE),
            ("min_p", share(self.min_p), SHARE),
            (
                "repetition_penalty",
                self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0,
                "above 0",
            ),
            ("presence_penalty", self.presence_penalty.is_finite(), FINITE),
            ("frequency_penalty", self.frequency_penalty.is_finite(), FINITE),
            (
                "bias",
                self.rules.iter().all(|rule| rule.bias.is_none_or(f32::is_finite)),
                FINITE,
            ),
        ] {
            if !good {
                return Err(Error::Sampling { name, expected });
            }
        }
        let mut ids = self.rules.iter().flat_map(|rule| &rule.ids);
        match ids.find(|id| **id >= vocab) {
            Some(&id) => Err(Error::TokenOutOfRange { id, vocab }),
            None => Ok(()),
        }
    }

    pub(super) fn is_greedy(&self) -> bool {
        self.temperature < LEAST_TEMPERATURE
    }

    /// Contents of the rules buffer for a generation that these ids end, after `position` tokens; `None` where nothing is
    /// asked of `adjust`.
    pub(super) fn adjustments(&self, stop_ids: &[u32], position: u32, vocab: u32) -> Option<Vec<u32>> {
        let mut rules: Vec<(u32, f32, u32, &[u32])> = Vec::new();
        // Those of one token side by side; as a rule they come in order.
        let mut add = |id: u32, bias: f32, first: u32, before| {
            let place = rules.partition_point(|(other, ..)| *other <= id);
            rules.insert(place, (id, bias, first, before));
        };
        for rule in &self.rules {
            if let [before @ .., id] = &rule.ids[..] {
                let bias = rule.bias.unwrap_or(f32::NEG_INFINITY);
                add(*id, bias, rule.first.unwrap_or(u32::MAX), before);
            }
        }
        let unending = self.min_tokens.max(self.min_length.saturating_sub(position));
        if unending > 0 {
            for &id in stop_ids.iter().filter(|id| **id < vocab) {
                add(id, f32::NEG_INFINITY, unending, &[]);
            }
        }
        let mut words = vec![0; RuleWord::COUNT];
        words[RuleWord::RepetitionPenalty as usize] = self.repetition_penalty.to_bits();
        words[RuleWord::PresencePenalty as usize] = self.presence_penalty.to_bits();
        words[RuleWord::FrequencyPenalty as usize] = self.frequency_penalty.to_bits();
        words[RuleWord::NoRepeatNgram as usize] = self.no_repeat_ngram;
        words[RuleWord::Count as usize] = rules.len() as u32;
        let has_penalties =
            self.repetition_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0;
        if rules.is_empty() && !has_penalties && self.no_repeat_ngram == 0 {
            return None;
        }
        let mut behind = words.len() + RuleWord::PER_RULE * rules.len();
        for (id, bias, first, before) in &rules {
            words.extend([*id, bias.to_bits(), *first, behind as u32, before.len() as u32]);
            behind += before.len();
        }
        words.extend(rules.iter().flat_map(|(.., before)| *before));
        Some(words)
    }
}

/// Contents of the history buffer: each token and, at its first place, 1 (none is sampled yet).
///
/// # Errors
/// A token that the vocabulary does not have.
pub(super) fn history_entries(tokens: &[u32], vocab: u32) -> Result<Vec<[u32; 2]>, Error> {
    let mut is_new = vec![true; vocab as usize];
    let entry = |&id: &u32| {
        let is_new = is_new
            .get_mut(id as usize)
            .ok_or(Error::TokenOutOfRange { id, vocab })?;
        Ok([id, u32::from(std::mem::take(is_new))])
    };
    tokens.iter().map(entry).collect()
}
