use serde_json::json;

use super::metadata::Metadata;
use crate::checkpoint::{CheckpointError, Sampling};

/// What a file says of sampling in `general.sampling.*`: `generation_config.json` in other words. Greedy unless there is a
/// temperature.
pub(super) fn translate(metadata: &Metadata<'_>) -> Result<Sampling, CheckpointError> {
    let key = |name: &str| format!("general.sampling.{name}");
    let temperature = metadata.number(&key("temp"))?;
    let generation = json!({
        "do_sample": temperature.is_some_and(|temperature| temperature > 0.0),
        "temperature": temperature,
        // The file's silence is not transformers': nothing is left out then.
        "top_k": metadata.size(&key("top_k"))?.unwrap_or(0),
        "top_p": metadata.number(&key("top_p"))?,
        "min_p": metadata.number(&key("min_p"))?,
        "repetition_penalty": metadata.number(&key("penalty_repeat"))?,
    });
    let mut sampling = Sampling::read(&generation);
    // The last one is how far back llama.cpp's penalty looks; ours looks back to the start, as transformers' does.
    for name in ["sequence", "xtc_probability", "mirostat", "penalty_last_n"] {
        if metadata.get(&key(name)).is_some() {
            sampling.ignored.push(key(name));
        }
    }
    Ok(sampling)
}
