use serde_json::Value;

/// Where generation stops and how it samples unless told otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationDefaults {
    /// Generation ends at any of these.
    pub eos_token_ids: Vec<u32>,
    pub bos_token_id: Option<u32>,
    /// 0 is greedy.
    pub temperature: f32,
    /// `None` keeps all tokens.
    pub top_k: Option<u32>,
    /// `None` keeps all tokens.
    pub top_p: Option<f32>,
}

impl GenerationDefaults {
    /// Reads `generation_config.json` (if there is one) with transformers' meaning: the config's
    /// own token ids stand in for absent ones; greedy unless `do_sample`; then, where the file
    /// says nothing, temperature 1 and the best 50 tokens.
    pub(super) fn read(generation: Option<&Value>, config: &Value) -> Self {
        let ids = |key: &str| {
            let stated = generation.and_then(|generation| generation.get(key));
            let nested = || config.get("text_config").and_then(|text| text.get(key));
            let value = stated
                .filter(|value| !value.is_null())
                .or_else(|| config.get(key).filter(|value| !value.is_null()))
                .or_else(nested);
            value.map(token_ids).unwrap_or_default()
        };
        let setting = |key: &str| generation.and_then(|generation| generation.get(key));
        let sampled = setting("do_sample").and_then(Value::as_bool) == Some(true);
        let number = |key: &str| setting(key).and_then(Value::as_f64).map(|value| value as f32);
        let top_k = match setting("top_k") {
            None => Some(50),
            Some(value) => value.as_u64().and_then(|k| u32::try_from(k).ok()),
        };
        GenerationDefaults {
            eos_token_ids: ids("eos_token_id"),
            bos_token_id: ids("bos_token_id").first().copied(),
            temperature: if sampled {
                number("temperature").unwrap_or(1.0)
            } else {
                0.0
            },
            top_k: top_k.filter(|&k| sampled && k > 0),
            top_p: number("top_p").filter(|&p| sampled && p < 1.0),
        }
    }
}

/// One id or a list of them; what is no id is left out.
fn token_ids(value: &Value) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(values) => values.iter().filter_map(id).collect(),
        value => id(value).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn greedy_unless_asked_to_sample() {
        let config = json!({ "eos_token_id": 2, "bos_token_id": 1 });
        let greedy = json!({ "eos_token_id": [2, 7], "temperature": 0.6, "top_k": 20, "top_p": 0.9 });
        let read = GenerationDefaults::read(Some(&greedy), &config);
        let expected = GenerationDefaults {
            eos_token_ids: vec![2, 7],
            bos_token_id: Some(1),
            ..GenerationDefaults::default()
        };
        assert_eq!(read, expected);
        let sampled = json!({ "do_sample": true, "temperature": 0.6, "top_p": 0.9 });
        let read = GenerationDefaults::read(Some(&sampled), &config);
        assert_eq!(read.eos_token_ids, [2]);
        assert_eq!((read.temperature, read.top_k, read.top_p), (0.6, Some(50), Some(0.9)));
    }
}
