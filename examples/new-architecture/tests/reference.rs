//! The definition against Hugging Face transformers 5.23.0 (float32), on a tiny random checkpoint.

use std::path::Path;

use kiln_compiler::checkpoint::{Checkpoint, TensorSource};
use kiln_compiler::reference::{Evaluator, WeightError};
use safetensors::SafeTensors;

#[test]
fn logits_and_greedy_ids_equal_transformers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/qwen2");
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let registry = new_architecture::registry();
    let architecture = registry.for_config(checkpoint.config()).unwrap();
    let graph = architecture.build(checkpoint.config()).unwrap();
    let weights = |name: &str| checkpoint.read_f32(name).map_err(WeightError::from);

    let bytes = std::fs::read(folder.join("reference.safetensors")).unwrap();
    let reference = SafeTensors::deserialize(&bytes).unwrap();
    let ids = |name: &str| -> Vec<u32> {
        let (words, _) = reference.tensor(name).unwrap().data().as_chunks::<8>();
        words.iter().map(|word| i64::from_le_bytes(*word) as u32).collect()
    };
    for prompt in ["p0", "p1", "p2"] {
        let input = ids(&format!("{prompt}.input_ids"));
        let expected = reference.tensor(&format!("{prompt}.logits")).unwrap();
        let (words, _) = expected.data().as_chunks::<4>();
        let found = Evaluator::new(&graph, &weights).feed(&input).unwrap().concat();
        assert_eq!(found.len(), words.len());
        let (mut difference, mut norm) = (0.0, 0.0);
        for (found, word) in found.iter().zip(words) {
            let expected = f32::from_le_bytes(*word);
            difference += f64::from(found - expected).powi(2);
            norm += f64::from(expected).powi(2);
        }
        let error = (difference / norm).sqrt();
        assert!(error < 1e-4, "{prompt}: {error:.1e}");

        let greedy = ids(&format!("{prompt}.greedy_ids"));
        let found = Evaluator::new(&graph, &weights).greedy(&input, greedy.len()).unwrap();
        assert_eq!(found, greedy, "{prompt}");
    }
}
