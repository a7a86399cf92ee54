//! Hugging Face directories and bare config files.

use std::path::Path;

use serde_json::Value;

use super::files::Files;
use super::store::TensorStore;
use super::{Checkpoint, CheckpointError, GenerationDefaults, TextAssets, model_name, safetensors, unreadable};

pub(super) fn open_directory(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let config_path = path.join("config.json");
    let files = Files::default();
    let config = files.json(&config_path)?.ok_or_else(|| {
        let missing = || CheckpointError::io(&config_path, std::io::ErrorKind::NotFound.into());
        unreadable::in_folder(path).unwrap_or_else(missing)
    })?;
    let tensors = safetensors::open(path, &files)?;
    if tensors.is_empty()
        && let Some(error) = unreadable::in_folder(path)
    {
        return Err(error);
    }
    let generation = files.json(&path.join("generation_config.json"))?;
    Ok(Checkpoint {
        name: model_name(path),
        generation: GenerationDefaults::read(generation.as_ref(), &config),
        text: text_assets(path, &files)?,
        config,
        tensors,
        files: files.into_paths(),
        gguf: false,
    })
}

pub(super) fn open_config(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let files = Files::default();
    let config = (files.json(path)?).ok_or_else(|| CheckpointError::io(path, std::io::ErrorKind::NotFound.into()))?;
    Ok(Checkpoint {
        name: model_name(path),
        generation: GenerationDefaults::read(None, &config),
        text: None,
        config,
        tensors: TensorStore::default(),
        files: files.into_paths(),
        gguf: false,
    })
}

fn text_assets(directory: &Path, files: &Files) -> Result<Option<TextAssets>, CheckpointError> {
    let Some(tokenizer_json) = files.text(&directory.join("tokenizer.json"))? else {
        return Ok(None);
    };
    let config_path = directory.join("tokenizer_config.json");
    let tokenizer_config = files.json(&config_path)?;
    let chat_template = match files.text(&directory.join("chat_template.jinja"))? {
        Some(template) => Some(template),
        None => tokenizer_config.as_ref().and_then(embedded_template),
    };
    Ok(Some(TextAssets {
        tokenizer_json,
        tokenizer_config_json: files.text(&config_path)?,
        chat_template,
    }))
}

/// `chat_template` in `tokenizer_config.json`: a template, or several by name, of which `default`.
fn embedded_template(tokenizer_config: &Value) -> Option<String> {
    let template = match tokenizer_config.get("chat_template")? {
        Value::Array(named) => named
            .iter()
            .find(|entry| entry.get("name").is_some_and(|name| name == "default"))?
            .get("template")?,
        template => template,
    };
    template.as_str().map(str::to_string)
}
