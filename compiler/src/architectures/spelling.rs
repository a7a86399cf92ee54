//! Which known architecture an unknown name is a misspelling of.

/// Names of other architectures that are as much like ours as a misspelling is. Of all that transformers knows, these are
/// the ones; a test holds that.
const OTHERS: &[&str] = &[
    "AfmoeForCausalLM",
    "Gemma3nForCausalLM",
    "Gemma3nForConditionalGeneration",
    "MinistralForCausalLM",
    "MixtralForCausalLM",
    "MllamaForCausalLM",
    "OlmoForCausalLM",
];

/// Insertions, deletions and substitutions that a misspelling may have.
const MOST_SLIPS: usize = 2;

/// The name of `known` that was probably meant by `name`. A name with other digits is another model, not a slip.
pub(super) fn misspelled<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    if OTHERS.contains(&name) {
        return None;
    }
    let digits = |name: &str| name.chars().filter(char::is_ascii_digit).collect::<String>();
    let alike = known.iter().filter(|known| digits(known) == digits(name));
    let distances = alike.map(|known| (edit_distance(&name.to_lowercase(), &known.to_lowercase()), *known));
    let (distance, nearest) = distances.min()?;
    (distance <= MOST_SLIPS).then_some(nearest)
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
    use super::*;
    use crate::architectures::Registry;

    #[test]
    fn slips_are_guessed() {
        let registry = Registry::default();
        for (slip, meant) in [
            ("LLaMAForCausalLM", "LlamaForCausalLM"),
            ("LamaForCausalLM", "LlamaForCausalLM"),
            ("Qwen3_MoeForCausalLM", "Qwen3MoeForCausalLM"),
            ("Qwen3MoeForCausalLLM", "Qwen3MoeForCausalLM"),
            ("gpt_ossForCausalLM", "GptOssForCausalLM"),
        ] {
            assert_eq!(misspelled(slip, &registry.names()), Some(meant));
        }
        assert_eq!(misspelled("", &registry.names()), None);
    }

    /// All of transformers' names of models that generate text (`names.py` beside the list).
    #[test]
    fn other_models_are_no_slips() {
        let names: Vec<String> =
            serde_json::from_str(include_str!("../../tests/fixtures/transformers/names.json")).unwrap();
        let registry = Registry::default();
        let known = registry.names();
        assert!(names.len() > 200 && known.iter().all(|known| names.iter().any(|name| name == known)));
        for name in names.iter().filter(|name| !known.contains(&name.as_str())) {
            assert_eq!(misspelled(name, &known), None, "{name}");
        }
    }

    #[test]
    fn distances() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("abc", ""), 3);
        assert_eq!(edit_distance("abc", "abc"), 0);
    }
}
