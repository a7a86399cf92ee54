//! Hugging Face directories and bare config files.

use std::path::Path;

use super::files::Files;
use super::store::TensorStore;
use super::{
    Checkpoint, CheckpointError, GenerationDefaults, mistaken, model_name, safetensors, tokenizer, unreadable,
};

pub(super) fn open_directory(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let config_path = path.join("config.json");
    let files = Files::default();
    let missing = || CheckpointError::io(&config_path, std::io::ErrorKind::NotFound.into());
    let otherwise = || {
        mistaken::what_is(path)
            .or_else(|| unreadable::in_folder(path))
            .unwrap_or_else(missing)
    };
    let config = files.json(&config_path)?.ok_or_else(otherwise)?;
    let tensors = safetensors::open(path, &files)?;
    if tensors.is_empty()
        && let Some(error) = unreadable::in_folder(path)
    {
        return Err(error);
    }
    let generation = files.json(&path.join("generation_config.json"))?;
    let generation = GenerationDefaults::read(generation.as_ref(), &config);
    let mut warnings = Vec::from_iter(generation.sampling.warning());
    Ok(Checkpoint {
        name: model_name(path),
        generation,
        text: tokenizer::read(path, &files, &config, &mut warnings)?,
        config,
        tensors,
        files: files.into_paths(),
        gguf: false,
        warnings,
    })
}

pub(super) fn open_config(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let files = Files::default();
    let config = (files.json(path)?).ok_or_else(|| CheckpointError::io(path, std::io::ErrorKind::NotFound.into()))?;
    let describes_model = ["architectures", "model_type"]
        .iter()
        .any(|key| config.get(key).is_some());
    let is_named_so = path.file_name().is_some_and(|name| name == "config.json");
    if !describes_model
        && !is_named_so
        && let Some(mistaken) = mistaken::what_is(path)
    {
        return Err(mistaken);
    }
    Ok(Checkpoint {
        name: model_name(path),
        generation: GenerationDefaults::read(None, &config),
        text: None,
        config,
        tensors: TensorStore::default(),
        files: files.into_paths(),
        gguf: false,
        warnings: Vec::new(),
    })
}
