//! The end-to-end test: every reference case, compiled, loaded and run on a GPU (real or software), at level 0
//! and in full, in every variant, against Hugging Face transformers.

use kiln_codegen_tests::oracle::{Case, Spelling, worst_relative_error};
use kiln_codegen_tests::pipeline::{Compiled, VARIANTS, feed, greedy, session, tolerance};
use kiln_compiler::rewrite::OptLevel;

fn check(name: &'static str, level: OptLevel) {
    let case = Case::load(name);
    let checkpoint = case.checkpoint(Spelling::V4);
    let compiled = Compiled::new(checkpoint.path(), |options| options.level = level);
    for variant in VARIANTS {
        let Some(model) = compiled.load(variant) else { continue };
        for (p, prompt) in case.prompts.iter().enumerate() {
            let place = format!("{name} {level:?} {variant} p{p}");
            let mut session = session(&model);
            let logits = feed(&mut session, &prompt.ids);
            let error = worst_relative_error(&logits, &prompt.logits);
            println!("{place}: {error:.1e}");
            assert!(error < tolerance(variant), "{place}: relative error {error:.1e}");
            // The gap between the two largest logits may be less than the error of f16.
            if variant != "f16" {
                let ids = greedy(&mut session, prompt.greedy_ids.len());
                assert_eq!(ids, prompt.greedy_ids, "{place}");
            }
        }
    }
}

macro_rules! cases {
    ($($test:ident: $case:literal,)*) => {$(
        mod $test {
            use kiln_compiler::rewrite::OptLevel;

            #[test]
            fn unfused() {
                super::check($case, OptLevel::None);
            }

            #[test]
            fn full() {
                super::check($case, OptLevel::Full);
            }
        }
    )*};
}

cases! {
    llama_a_bf16: "llama-A-bf16",
    llama_a_f16: "llama-A-f16",
    llama_a_f32: "llama-A-f32",
    llama_b_bf16: "llama-B-bf16",
    qwen3_a_bf16: "qwen3-A-bf16",
    qwen3_b_bf16: "qwen3-B-bf16",
    gemma3_a_bf16: "gemma3-A-bf16",
    gemma3_b_bf16: "gemma3-B-bf16",
}
