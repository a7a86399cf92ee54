use serde_json::{Map, Value, json};

use super::ConfigError;

/// No model has more layers; a config that says so is damaged.
pub(crate) const MOST_LAYERS: u64 = 10_000;
/// transformers' base where a config gives none.
const DEFAULT_THETA: f64 = 10_000.0;

/// The name that config.json gives its architecture, `LlamaForCausalLM`.
pub fn architecture_name(config: &Value) -> Option<&str> {
    config.get("architectures")?.get(0)?.as_str()
}

/// Rewrites a config.json to the one spelling that the rest of the compiler knows, transformers 5's:
///
/// - `dtype` for `torch_dtype`;
/// - `layer_types`, made from `sliding_window_pattern` where that is what there is;
/// - `rope_parameters` for `rope_theta`, `rope_scaling`, `rope_local_base_freq` and
///   `partial_rotary_factor`; by layer type if there is a local base;
/// - `rope_type` for `type` within it, and `original_max_position_embeddings` and `factor` beside it if scaled.
///
/// Fields in the new spelling win over old ones; others stay as they are.
pub fn normalize(config: &Value) -> Result<Value, ConfigError> {
    let Value::Object(object) = config else {
        return Err(ConfigError::ill_typed("(the whole file)", "an object", config));
    };
    let mut config = object.clone();
    config.retain(|_, value| !value.is_null());
    if let Some(dtype) = config.remove("torch_dtype") {
        config.entry("dtype").or_insert(dtype);
    }
    if let Some(layers) = config.get("num_hidden_layers")
        && layers.as_u64().is_some_and(|layers| layers > MOST_LAYERS)
    {
        let problem = format!("more than {MOST_LAYERS} layers");
        return Err(ConfigError::unsupported("num_hidden_layers", layers, problem));
    }
    let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
    for (key, value) in assumed(model_type, config.contains_key("rope_parameters")) {
        config.entry(key).or_insert(value);
    }
    normalize_layer_types(&mut config)?;
    normalize_rope(&mut config)?;
    Ok(Value::Object(config))
}

/// What transformers' config of a model type assumes where a config.json is silent, in the old spelling.
fn assumed(model_type: &str, has_rope_parameters: bool) -> Vec<(&'static str, Value)> {
    match model_type {
        "gemma3_text" => {
            let mut assumed = vec![("_sliding_window_pattern", json!(6))];
            if !has_rope_parameters {
                assumed.push(("rope_theta", json!(1_000_000.0)));
                assumed.push(("rope_local_base_freq", json!(10_000.0)));
            }
            assumed
        }
        "gpt_oss" => {
            let mut assumed = vec![("_sliding_window_pattern", json!(2)), ("rope_theta", json!(150_000.0))];
            if !has_rope_parameters {
                let scaling = json!({
                    "rope_type": "yarn", "factor": 32.0, "truncate": false, "original_max_position_embeddings": 4096,
                });
                assumed.push(("rope_scaling", scaling));
            }
            assumed
        }
        "lfm2" | "lfm2_moe" => vec![("rope_theta", json!(1_000_000.0))],
        "qwen3_next" | "qwen3_5_text" | "qwen3_5_moe_text" => vec![("partial_rotary_factor", json!(0.25))],
        _ => Vec::new(),
    }
}

fn normalize_layer_types(config: &mut Map<String, Value>) -> Result<(), ConfigError> {
    let old = config.remove("_sliding_window_pattern");
    let pattern = config.remove("sliding_window_pattern").or(old);
    let layers = config.get("num_hidden_layers").and_then(Value::as_u64);
    if let Some(types) = config.get("layer_types") {
        let Some(list) = types.as_array() else {
            return Err(ConfigError::ill_typed("layer_types", "a list", types));
        };
        if layers.is_some_and(|layers| layers != list.len() as u64) {
            let problem = format!(
                "{} entries, but `num_hidden_layers` = {}",
                list.len(),
                layers.unwrap_or_default()
            );
            return Err(ConfigError::unsupported("layer_types", types, problem));
        }
        return Ok(());
    }
    // Every n-th layer attends to everything, the others to a window.
    let (Some(pattern), Some(layers)) = (pattern, layers) else {
        return Ok(());
    };
    let every = pattern.as_u64().filter(|n| *n > 0);
    let every =
        every.ok_or_else(|| ConfigError::ill_typed("sliding_window_pattern", "a whole number from 1 on", &pattern))?;
    let kind = |layer: u64| match layer % every {
        0 => "full_attention",
        _ => "sliding_attention",
    };
    let kinds: Vec<&str> = (1..=layers).map(kind).collect();
    config.insert("layer_types".to_string(), json!(kinds));
    Ok(())
}

fn normalize_rope(config: &mut Map<String, Value>) -> Result<(), ConfigError> {
    let mut take = |key: &str| config.remove(key);
    let theta = take("rope_theta");
    let local = take("rope_local_base_freq");
    let partial = take("partial_rotary_factor");
    let scaling = take("rope_scaling");
    let parameters = take("rope_parameters").unwrap_or_else(|| {
        let global = scaling.unwrap_or_else(|| json!({}));
        match local {
            Some(local) => json!({
                "full_attention": global,
                "sliding_attention": { "rope_theta": local },
            }),
            None => global,
        }
    });
    let Value::Object(mut parameters) = parameters else {
        return Err(ConfigError::ill_typed("rope_parameters", "an object", &parameters));
    };
    let theta = Some(theta.unwrap_or_else(|| json!(DEFAULT_THETA)));
    let longest = config.get("max_position_embeddings").cloned();
    let original = config
        .get("original_max_position_embeddings")
        .cloned()
        .or_else(|| longest.clone());
    let complete = |entry: &mut Map<String, Value>| {
        entry.retain(|_, value| !value.is_null());
        let default = entry.remove("type").unwrap_or_else(|| json!("default"));
        let kind = entry.entry("rope_type").or_insert(default).clone();
        let mut fill = |key: &str, value: &Option<Value>| {
            if let Some(value) = value {
                entry.entry(key).or_insert_with(|| value.clone());
            }
        };
        fill("rope_theta", &theta);
        fill("partial_rotary_factor", &partial);
        if ["llama3", "yarn"].iter().any(|scaled| kind == *scaled) {
            fill("original_max_position_embeddings", &original);
        }
        let original = entry.get("original_max_position_embeddings").and_then(Value::as_f64);
        if kind == "yarn"
            && let (Some(longest), Some(original)) = (longest.as_ref().and_then(Value::as_f64), original)
        {
            entry.entry("factor").or_insert_with(|| json!(longest / original));
        }
    };
    if is_by_layer_type(&parameters) {
        for entry in parameters.values_mut().filter_map(Value::as_object_mut) {
            complete(entry);
        }
    } else {
        complete(&mut parameters);
    }
    config.insert("rope_parameters".to_string(), Value::Object(parameters));
    Ok(())
}

/// Whether `rope_parameters` holds one entry for each type of layer.
pub(super) fn is_by_layer_type(parameters: &Map<String, Value>) -> bool {
    !parameters.is_empty() && parameters.values().all(Value::is_object)
}
