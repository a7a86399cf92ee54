use serde_json::Value;

use super::sampling::Sampling;

/// Where generation stops and how it samples unless told otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationDefaults {
    /// Generation ends at any of these.
    pub eos_token_ids: Vec<u32>,
    pub bos_token_id: Option<u32>,
    pub sampling: Sampling,
}

impl GenerationDefaults {
    /// Reads `generation_config.json` (if there is one) with transformers' meaning: the config's
    /// own token ids stand in for absent ones.
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
        GenerationDefaults {
            eos_token_ids: ids("eos_token_id"),
            bos_token_id: ids("bos_token_id").first().copied(),
            sampling: Sampling::read(generation.unwrap_or(&Value::Null)),
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
    fn the_configs_ids_stand_in_for_absent_ones() {
        let config = json!({ "eos_token_id": 2, "bos_token_id": 1 });
        let stated = json!({ "eos_token_id": [2, 7] });
        let read = GenerationDefaults::read(Some(&stated), &config);
        assert_eq!((read.eos_token_ids, read.bos_token_id), (vec![2, 7], Some(1)));
        assert_eq!(GenerationDefaults::read(None, &config).eos_token_ids, [2]);
    }
}
