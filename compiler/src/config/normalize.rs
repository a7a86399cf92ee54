use serde_json::{Map, Value, json};

use super::{ConfigError, Conventions};

/// No model has more layers; a config that says so is damaged.
pub(crate) const MOST_LAYERS: u64 = 10_000;
/// transformers' base where neither a config nor its family gives one.
const DEFAULT_THETA: f64 = 10_000.0;

/// The names that config.json gives its architecture, `LlamaForCausalLM`: mostly one, none if it is silent.
pub fn architecture_names(config: &Value) -> Vec<&str> {
    let names = config.get("architectures").and_then(Value::as_array);
    names.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The name that config.json gives itself, `llama`.
pub fn model_type(config: &Value) -> Option<&str> {
    config.get("model_type")?.as_str()
}

/// The name that the config of the text model within a larger one gives itself.
pub fn text_model_type(config: &Value) -> Option<&str> {
    model_type(config.get(TEXT_PART)?)
}

/// Where models that also see or hear keep the config of their text model.
const TEXT_PART: &str = "text_config";

fn text_part(config: &Value) -> Option<&Map<String, Value>> {
    config.get(TEXT_PART)?.as_object()
}

/// Rewrites a config.json to the one spelling that the rest of the compiler knows, transformers 5's:
///
/// - of a model that also sees or hears, only the config of its text model;
/// - keys that are absent as the family's `conventions` have them, and no other spellings of keys;
/// - `dtype` for `torch_dtype`;
/// - `layer_types`, made from `sliding_window_pattern` where that is what there is;
/// - `rope_parameters` for `rope_theta`, `rope_scaling`, `rope_local_base_freq` and
///   `partial_rotary_factor`; by layer type if there is a local base;
/// - `rope_type` for `type` within it, and `original_max_position_embeddings` and `factor` beside it if scaled.
///
/// Normalizing again changes nothing.
///
/// # Errors
/// No object, more than 10,000 layers, or layers or rotary parameters that cannot be.
pub fn normalize(config: &Value, conventions: &Conventions) -> Result<Value, ConfigError> {
    let Value::Object(object) = config else {
        return Err(ConfigError::ill_typed("(the whole file)", "an object", config));
    };
    let mut config = match text_part(config) {
        Some(text) => of_text_model(object, text),
        None => object.clone(),
    };
    conventions.apply(&mut config);
    if let Some(dtype) = config.remove("torch_dtype") {
        config.entry("dtype").or_insert(dtype);
    }
    if let Some(layers) = config.get("num_hidden_layers")
        && layers.as_u64().is_some_and(|layers| layers > MOST_LAYERS)
    {
        let problem = format!("more than {MOST_LAYERS} layers");
        return Err(ConfigError::unsupported("num_hidden_layers", layers, problem));
    }
    normalize_layer_types(&mut config)?;
    normalize_rope(&mut config)?;
    Ok(Value::Object(config))
}

/// The text model's config on its own. The larger model says whether it ties its head; one that is silent has a head of
/// its own where the checkpoint does, so it counts as tied here.
fn of_text_model(larger: &Map<String, Value>, text: &Map<String, Value>) -> Map<String, Value> {
    const TIED: &str = "tie_word_embeddings";
    let mut config = text.clone();
    let stated = |of: &Map<String, Value>| of.get(TIED).filter(|tied| !tied.is_null()).cloned();
    let tied = stated(larger).or_else(|| stated(text)).unwrap_or(json!(true));
    config.insert(TIED.to_string(), tied);
    config
}

fn normalize_layer_types(config: &mut Map<String, Value>) -> Result<(), ConfigError> {
    let pattern = config
        .remove("sliding_window_pattern")
        .filter(|pattern| !pattern.is_null());
    let layers = config.get("num_hidden_layers").and_then(Value::as_u64);
    if let Some(types) = config.get("layer_types").filter(|types| !types.is_null()) {
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

/// Positions before they were scaled.
const ORIGINAL: &str = "original_max_position_embeddings";

fn normalize_rope(config: &mut Map<String, Value>) -> Result<(), ConfigError> {
    let mut take = |key: &str| config.remove(key).filter(|value| !value.is_null());
    let theta = take("rope_theta");
    let local = take("rope_local_base_freq");
    let partial = take("partial_rotary_factor");
    let scaling = take("rope_scaling");
    let stated = take("rope_parameters");
    // As in transformers, the old spelling wins where a config has both.
    let scaling = scaling.filter(|scaling| scaling.as_object().is_none_or(|entries| !entries.is_empty()));
    let parameters = match (&local, scaling, stated) {
        (Some(_), scaling, stated) => by_base(stated, scaling),
        (None, Some(scaling), _) => scaling,
        (None, None, stated) => stated.unwrap_or_else(|| json!({})),
    };
    let Value::Object(mut parameters) = parameters else {
        return Err(ConfigError::ill_typed("rope_parameters", "an object", &parameters));
    };
    let theta = Some(theta.unwrap_or_else(|| json!(DEFAULT_THETA)));
    let number = |key: &str| config.get(key).filter(|value| !value.is_null()).cloned();
    let longest = number("max_position_embeddings");
    let original = number("original_max_position_embeddings");
    let complete = |entry: &mut Map<String, Value>, theta: &Option<Value>| {
        entry.retain(|_, value| !value.is_null());
        let default = entry.remove("type").unwrap_or_else(|| json!("default"));
        let kind = entry.entry("rope_type").or_insert(default).clone();
        let mut fill = |key: &str, value: &Option<Value>| {
            if let Some(value) = value {
                entry.entry(key).or_insert_with(|| value.clone());
            }
        };
        fill("rope_theta", theta);
        fill("partial_rotary_factor", &partial);
        if ["llama3", "yarn"].iter().any(|scaled| kind == *scaled) {
            // Beside the rotary parameters it outweighs the one among them.
            if let Some(original) = &original {
                entry.insert(ORIGINAL.to_string(), original.clone());
            } else if let Some(longest) = &longest {
                entry.entry(ORIGINAL).or_insert_with(|| longest.clone());
            }
        }
        let original = entry.get(ORIGINAL).and_then(Value::as_f64);
        if kind == "yarn"
            && let (Some(longest), Some(original)) = (longest.as_ref().and_then(Value::as_f64), original)
        {
            entry.entry("factor").or_insert_with(|| json!(longest / original));
        }
    };
    if is_by_layer_type(&parameters) {
        for (kind, entry) in &mut parameters {
            let theta = match kind == "sliding_attention" && local.is_some() {
                true => &local,
                false => &theta,
            };
            if let Value::Object(entry) = entry {
                complete(entry, theta);
            }
        }
    } else {
        complete(&mut parameters, &theta);
    }
    config.insert("rope_parameters".to_string(), Value::Object(parameters));
    Ok(())
}

/// The parameters of a model whose windowed layers have a base of their own: those of the others may be scaled.
fn by_base(stated: Option<Value>, scaling: Option<Value>) -> Value {
    let mut entries = match stated {
        None => Map::new(),
        Some(Value::Object(entries)) => entries,
        Some(other) => return other,
    };
    entries.retain(|_, entry| entry.is_object());
    entries.entry("sliding_attention").or_insert_with(|| json!({}));
    let full = entries.entry("full_attention").or_insert_with(|| json!({}));
    match (full, scaling) {
        (Value::Object(full), Some(Value::Object(scaling))) => full.extend(scaling),
        (_, Some(other)) => return other,
        (_, None) => {}
    }
    Value::Object(entries)
}

/// Whether `rope_parameters` holds one entry for each type of layer.
pub(super) fn is_by_layer_type(parameters: &Map<String, Value>) -> bool {
    !parameters.is_empty() && parameters.values().all(Value::is_object)
}
