//! How a checkpoint wants its tokens picked: `generation_config.json` as transformers reads it.

use kiln_bundle::{SamplingDefaults, TokenRule};
use serde_json::Value;

/// Tokens that transformers samples among where `generation_config.json` says nothing.
const DEFAULT_TOP_K: u32 = 50;

/// What a checkpoint says of sampling.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampling {
    pub defaults: SamplingDefaults,
    /// Settings that change what is generated and that Kiln does not have, or that mean nothing; for a warning.
    pub ignored: Vec<String>,
}

impl Sampling {
    /// Reads `generation_config.json` with transformers' meaning: what is absent or null is at transformers' default;
    /// greedy unless `do_sample`, with everything applied that does not belong to sampling.
    pub(in crate::checkpoint) fn read(generation: &Value) -> Self {
        let mut reader = Reader {
            generation,
            ignored: Vec::new(),
        };
        let sampled = reader.get("do_sample").and_then(Value::as_bool) == Some(true);
        let temperature = reader.number("temperature", |value| value >= 0.0);
        let top_k = reader.count("top_k");
        let min_new_tokens = reader.count("min_new_tokens").filter(|count| *count > 0);
        let defaults = SamplingDefaults {
            temperature: Some(if sampled { temperature.unwrap_or(1.0) } else { 0.0 }),
            top_k: top_k.or(sampled.then_some(DEFAULT_TOP_K)).filter(|k| *k > 0),
            top_p: reader.number("top_p", is_share).filter(|p| *p < 1.0),
            min_p: reader.number("min_p", is_share).filter(|p| *p > 0.0),
            repetition_penalty: reader
                .number("repetition_penalty", |value| value > 0.0)
                .filter(|penalty| *penalty != 1.0),
            no_repeat_ngram_size: reader.count("no_repeat_ngram_size").filter(|n| *n > 0),
            min_new_tokens,
            // Transformers lets the other one win.
            min_length: reader
                .count("min_length")
                .filter(|length| *length > 0 && min_new_tokens.is_none()),
            rules: reader.rules(),
        };
        reader.name_unsupported(sampled);
        Sampling {
            defaults,
            ignored: reader.ignored,
        }
    }

    /// What a user should know of the settings that are ignored, if there are any.
    pub(in crate::checkpoint) fn warning(&self) -> Option<String> {
        let settings = self.ignored.join(", ");
        (!settings.is_empty()).then(|| {
            format!("the model will generate without these settings of its checkpoint, which Kiln lacks or cannot read: {settings}")
        })
    }
}

/// Settings that Kiln does not have, and the value at which they do nothing (null does nothing either). Of transformers'
/// others some only matter to beam search, which stands here itself, or change nothing about the tokens.
const UNSUPPORTED: &[(&str, f64)] = &[
    ("num_beams", 1.0),
    ("num_beam_groups", 1.0),
    ("num_return_sequences", 1.0),
    ("penalty_alpha", 0.0),
    ("guidance_scale", 1.0),
    ("encoder_repetition_penalty", 1.0),
    ("encoder_no_repeat_ngram_size", 0.0),
    ("max_new_tokens", f64::INFINITY),
    ("max_time", f64::INFINITY),
    ("forced_bos_token_id", f64::NAN),
    ("forced_eos_token_id", f64::NAN),
    ("exponential_decay_length_penalty", f64::NAN),
    ("watermarking_config", f64::NAN),
    ("stop_strings", f64::NAN),
];

/// The same of settings that only matter where tokens are sampled.
const UNSUPPORTED_IN_SAMPLING: &[(&str, f64)] = &[
    ("typical_p", 1.0),
    ("epsilon_cutoff", 0.0),
    ("eta_cutoff", 0.0),
    ("top_h", f64::NAN),
];

fn is_share(value: f32) -> bool {
    (0.0..=1.0).contains(&value)
}

struct Reader<'a> {
    generation: &'a Value,
    ignored: Vec<String>,
}

impl<'a> Reader<'a> {
    /// The value of a setting; null is none.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.generation.get(key).filter(|value| !value.is_null())
    }

    fn ignore(&mut self, key: &str, value: &Value) {
        self.ignored.push(format!("{key} {value}"));
    }

    fn number(&mut self, key: &str, good: impl Fn(f32) -> bool) -> Option<f32> {
        let value = self.get(key)?;
        let number = value.as_f64().map(|number| number as f32);
        let number = number.filter(|number| number.is_finite() && good(*number));
        if number.is_none() {
            self.ignore(key, value);
        }
        number
    }

    fn count(&mut self, key: &str) -> Option<u32> {
        let value = self.get(key)?;
        let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
        if count.is_none() {
            self.ignore(key, value);
        }
        count
    }

    /// The rules of the four settings that are about tokens.
    fn rules(&mut self) -> Vec<TokenRule> {
        let single = |first| {
            move |value: &Value| {
                Some(TokenRule {
                    ids: vec![id(value)?],
                    bias: None,
                    first,
                })
            }
        };
        let sequence = |value: &Value| {
            Some(TokenRule {
                ids: ids(value)?,
                bias: None,
                first: None,
            })
        };
        let biased = |value: &Value| {
            let [sequence, bias] = value.as_array()?.as_slice() else {
                return None;
            };
            let bias = bias.as_f64()? as f32;
            Some(TokenRule {
                ids: ids(sequence)?,
                // What is too low for f32 rules the token out.
                bias: bias.is_finite().then_some(bias),
                first: None,
            })
            .filter(|_| bias < f32::INFINITY)
        };
        let mut rules = self.list("sequence_bias", biased);
        rules.extend(self.list("suppress_tokens", single(None)));
        rules.extend(self.list("begin_suppress_tokens", single(Some(1))));
        rules.extend(self.bad_words(sequence));
        rules
    }

    /// As transformers, leaves out the end tokens: an answer must be able to end.
    fn bad_words(&mut self, sequence: impl Fn(&Value) -> Option<TokenRule>) -> Vec<TokenRule> {
        let ends = match self.get("eos_token_id") {
            Some(Value::Array(ends)) => ends.iter().filter_map(id).collect(),
            Some(end) => id(end).into_iter().collect::<Vec<u32>>(),
            None => Vec::new(),
        };
        let mut rules = self.list("bad_words_ids", sequence);
        rules.retain(|rule| !matches!(rule.ids[..], [id] if ends.contains(&id)));
        rules
    }

    fn list(&mut self, key: &str, rule: impl Fn(&Value) -> Option<TokenRule>) -> Vec<TokenRule> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let rules = value.as_array().and_then(|values| values.iter().map(rule).collect());
        rules.unwrap_or_else(|| {
            self.ignore(key, value);
            Vec::new()
        })
    }

    fn name_unsupported(&mut self, sampled: bool) {
        let in_sampling = UNSUPPORTED_IN_SAMPLING.iter().filter(|_| sampled);
        for (key, neutral) in UNSUPPORTED.iter().chain(in_sampling) {
            if let Some(value) = self.get(key)
                && value.as_f64() != Some(*neutral)
            {
                self.ignore(key, value);
            }
        }
    }
}

fn id(value: &Value) -> Option<u32> {
    // Some lists hold a -1 that stands for no token.
    value
        .as_i64()
        .and_then(|id| u32::try_from(id).ok().or((id < 0).then_some(u32::MAX)))
}

/// At least one id.
fn ids(value: &Value) -> Option<Vec<u32>> {
    let ids: Vec<u32> = value.as_array()?.iter().map(id).collect::<Option<_>>()?;
    (!ids.is_empty()).then_some(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(ids: &[u32], bias: Option<f32>, first: Option<u32>) -> TokenRule {
        TokenRule {
            ids: ids.to_vec(),
            bias,
            first,
        }
    }

    #[test]
    fn greedy_unless_asked_to_sample() {
        let greedy =
            json!({ "temperature": 0.6, "top_k": 20, "top_p": 0.9, "typical_p": 0.5, "repetition_penalty": 1.1 });
        let expected = SamplingDefaults {
            temperature: Some(0.0),
            // For a caller that asks for a temperature.
            top_k: Some(20),
            top_p: Some(0.9),
            repetition_penalty: Some(1.1),
            ..SamplingDefaults::default()
        };
        let read = Sampling::read(&greedy);
        assert_eq!((read.defaults, read.ignored), (expected, vec![]));
        let sampled = json!({ "do_sample": true, "temperature": 0.6, "top_p": 0.9, "min_p": 0.15 });
        let expected = SamplingDefaults {
            temperature: Some(0.6),
            top_k: Some(DEFAULT_TOP_K),
            top_p: Some(0.9),
            min_p: Some(0.15),
            ..SamplingDefaults::default()
        };
        assert_eq!(Sampling::read(&sampled).defaults, expected);
        let all = json!({ "do_sample": true, "top_k": 0, "temperature": null });
        let expected = SamplingDefaults {
            temperature: Some(1.0),
            ..SamplingDefaults::default()
        };
        assert_eq!(Sampling::read(&all).defaults, expected);
    }

    #[test]
    fn settings_about_tokens_become_rules() {
        let generation = json!({
            "eos_token_id": [2, 9], "no_repeat_ngram_size": 3, "min_length": 12,
            "suppress_tokens": [5, -1], "begin_suppress_tokens": [6], "bad_words_ids": [[7], [2], [8, 9], [9, 2]],
            "sequence_bias": [[[10, 11], -2.5], [[13], -1e300]],
        });
        let read = Sampling::read(&generation);
        assert_eq!(read.ignored, Vec::<String>::new());
        assert_eq!(read.defaults.no_repeat_ngram_size, Some(3));
        assert_eq!(read.defaults.min_length, Some(12));
        let expected = [
            rule(&[10, 11], Some(-2.5), None),
            rule(&[13], None, None),
            rule(&[5], None, None),
            rule(&[u32::MAX], None, None),
            rule(&[6], None, Some(1)),
            rule(&[7], None, None),
            rule(&[8, 9], None, None),
            rule(&[9, 2], None, None),
        ];
        assert_eq!(read.defaults.rules, expected);
    }

    #[test]
    fn what_is_not_done_is_named() {
        let neutral = json!({
            "num_beams": 1, "typical_p": 1.0, "epsilon_cutoff": 0, "penalty_alpha": null, "guidance_scale": 1,
            "repetition_penalty": 1.0, "max_length": 4096, "pad_token_id": 0, "renormalize_logits": true,
            "encoder_no_repeat_ngram_size": 0, "no_repeat_ngram_size": 0, "suppress_tokens": null,
        });
        let read = Sampling::read(&neutral);
        let greedy = SamplingDefaults {
            temperature: Some(0.0),
            ..SamplingDefaults::default()
        };
        assert_eq!((read.defaults, read.ignored), (greedy, vec![]));
        let unsupported = json!({
            "do_sample": true, "num_beams": 4, "typical_p": 0.9, "max_new_tokens": 64, "forced_eos_token_id": 2,
            "repetition_penalty": 0, "min_p": "0.1", "suppress_tokens": 5, "bad_words_ids": [[]], "top_k": -1,
            "sequence_bias": [[[12], 1e300]],
        });
        let mut ignored = Sampling::read(&unsupported).ignored;
        ignored.sort();
        let expected = [
            "bad_words_ids [[]]",
            "forced_eos_token_id 2",
            "max_new_tokens 64",
            "min_p \"0.1\"",
            "num_beams 4",
            "repetition_penalty 0",
            "sequence_bias [[[12],1e+300]]",
            "suppress_tokens 5",
            "top_k -1",
            "typical_p 0.9",
        ];
        assert_eq!(ignored, expected);
    }
}
