use std::path::Path;

use serde_json::Value;

use crate::checkpoint::CheckpointError;
use crate::checkpoint::files::Files;

/// The chat template that transformers takes, and what to say where there are only others. Files of their own come before
/// `tokenizer_config.json`; of several by name it is `default`.
pub(super) fn read(
    directory: &Path,
    files: &Files,
    tokenizer_config: &Value,
    warnings: &mut Vec<String>,
) -> Result<Option<String>, CheckpointError> {
    const FILE: &str = "chat_template.jinja";
    const FOLDER: &str = "additional_chat_templates";
    if let Some(template) = files.text(&directory.join(FILE))? {
        return Ok(Some(template));
    }
    let names = names_in(&directory.join(FOLDER))?;
    if !names.is_empty() {
        if let Some(template) = files.text(&directory.join(FOLDER).join("default.jinja"))? {
            return Ok(Some(template));
        }
        warnings.push(no_default(FOLDER, &names));
        return Ok(None);
    }
    if let Some(stated) = tokenizer_config.get("chat_template").filter(|value| !value.is_null()) {
        return Ok(default_of(stated, "chat_template of tokenizer_config.json", warnings));
    }
    // Where processors kept it before.
    let older = files.json(&directory.join("chat_template.json"))?.unwrap_or_default();
    let older = older.get("chat_template").and_then(Value::as_str);
    Ok(older.map(str::to_string))
}

/// A template, a list of objects with `name` and `template`, or an object with templates by name.
fn default_of(stated: &Value, place: &str, warnings: &mut Vec<String>) -> Option<String> {
    let named: Vec<(&str, &str)> = match stated {
        Value::String(template) => return Some(template.clone()),
        Value::Array(entries) => entries
            .iter()
            .filter_map(|entry| Some((entry.get("name")?.as_str()?, entry.get("template")?.as_str()?)))
            .collect(),
        Value::Object(entries) => entries
            .iter()
            .filter_map(|(name, template)| Some((name.as_str(), template.as_str()?)))
            .collect(),
        _ => Vec::new(),
    };
    let default = named.iter().find(|(name, _)| *name == "default");
    if default.is_none() {
        let names: Vec<String> = named.iter().map(|(name, _)| name.to_string()).collect();
        warnings.push(no_default(place, &names));
    }
    default.map(|(_, template)| template.to_string())
}

fn no_default(place: &str, names: &[String]) -> String {
    let names = match names {
        [] => "no chat template".to_string(),
        names => format!("chat templates {} and none called default", names.join(", ")),
    };
    format!("{place} has {names}; the bundle has none, put the one you want into chat_template.jinja")
}

/// Names of the `.jinja` files of a folder, in order; none where there is no folder.
fn names_in(folder: &Path) -> Result<Vec<String>, CheckpointError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(CheckpointError::io(folder, error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| CheckpointError::io(folder, error))?.file_name();
        names.extend(name.to_string_lossy().strip_suffix(".jinja").map(str::to_string));
    }
    names.sort();
    Ok(names)
}
