use serde_json::Value;
use thiserror::Error;

use crate::config;
use crate::dsl::Architecture;

/// The architectures that a compiler knows.
#[derive(Clone, Debug)]
pub struct Registry {
    architectures: Vec<Architecture>,
}

/// A config.json of an architecture that the registry lacks.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown architecture {}{}; known are {}", quoted(.name), guess(.nearest), .known.join(", "))]
pub struct UnknownArchitecture {
    /// `None` if config.json names none.
    pub name: Option<String>,
    /// The known name that is most like it, if any is.
    pub nearest: Option<String>,
    pub known: Vec<String>,
}

fn quoted(name: &Option<String>) -> String {
    match name {
        Some(name) => format!("`{name}`"),
        None => "(config.json has no `architectures`)".to_string(),
    }
}

fn guess(name: &Option<String>) -> String {
    match name {
        Some(name) => format!(" (did you mean `{name}`?)"),
        None => String::new(),
    }
}

impl Registry {
    /// Knows nothing.
    pub fn empty() -> Self {
        Registry {
            architectures: Vec::new(),
        }
    }

    /// With one more architecture, which goes before a known one of the same name.
    pub fn with(mut self, architecture: Architecture) -> Self {
        self.architectures.insert(0, architecture);
        self
    }

    pub fn lookup(&self, name: &str) -> Result<&Architecture, UnknownArchitecture> {
        let found = self.architectures.iter().find(|a| a.names().contains(&name));
        found.ok_or_else(|| self.unknown(Some(name)))
    }

    /// The architecture that a config.json names.
    pub fn for_config(&self, config: &Value) -> Result<&Architecture, UnknownArchitecture> {
        match config::architecture_name(config) {
            Some(name) => self.lookup(name),
            None => Err(self.unknown(None)),
        }
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.architectures.iter().flat_map(|a| a.names()).copied().collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn unknown(&self, name: Option<&str>) -> UnknownArchitecture {
        let known = self.names();
        let nearest = name.and_then(|name| {
            let distances = known.iter().map(|known| (edit_distance(name, known), *known));
            let (distance, nearest) = distances.min()?;
            (distance <= name.chars().count() / 2).then(|| nearest.to_string())
        });
        UnknownArchitecture {
            name: name.map(str::to_string),
            nearest,
            known: known.into_iter().map(str::to_string).collect(),
        }
    }
}

/// Knows what Kiln ships.
impl Default for Registry {
    fn default() -> Self {
        use super::*;
        Registry {
            architectures: vec![
                gemma3(),
                gpt_oss(),
                granite(),
                granitemoe(),
                lfm2(),
                lfm2_moe(),
                llama(),
                mistral(),
                olmoe(),
                qwen3(),
                qwen3_5(),
                qwen3_5_moe(),
                qwen3_moe(),
                qwen3_next(),
            ],
        }
    }
}

/// Levenshtein: insertions, deletions and substitutions from `a` to `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_unknown_name_gets_the_nearest_known_one() {
        let registry = Registry::default();
        let error = registry.lookup("LLamaForCausalLm").unwrap_err();
        assert_eq!(error.nearest.as_deref(), Some("LlamaForCausalLM"));
        assert_eq!(
            error.to_string(),
            "unknown architecture `LLamaForCausalLm` (did you mean `LlamaForCausalLM`?); \
             known are Gemma3ForCausalLM, GptOssForCausalLM, GraniteForCausalLM, GraniteMoeForCausalLM, \
             Lfm2ForCausalLM, Lfm2MoeForCausalLM, LlamaForCausalLM, MistralForCausalLM, OlmoeForCausalLM, \
             Qwen3ForCausalLM, Qwen3MoeForCausalLM, Qwen3NextForCausalLM, Qwen3_5ForCausalLM, Qwen3_5MoeForCausalLM"
        );
        assert_eq!(
            registry.lookup("Qwen2ForCausalLM").unwrap_err().nearest.as_deref(),
            Some("Qwen3ForCausalLM")
        );
        assert_eq!(registry.lookup("T5").unwrap_err().nearest, None);
        assert_eq!(registry.for_config(&json!({})).unwrap_err().name, None);
    }

    #[test]
    fn distances() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("abc", ""), 3);
        assert_eq!(edit_distance("abc", "abc"), 0);
    }
}
