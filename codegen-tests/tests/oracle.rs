//! The end-to-end test: every reference case, compiled, loaded and run on a GPU (real or software), at level 0
//! and in full, in every variant and with every expert plan, against Hugging Face transformers.

use kiln_codegen_tests::oracle::{Case, Spelling, worst_relative_error};
use kiln_codegen_tests::pipeline::{Compiled, VARIANTS, feed, greedy, session, tolerance};
use kiln_compiler::rewrite::{MoePlan, OptLevel};

/// Level 0 feeds prompts in small steps, so that states and windows are carried over; the full level in one.
fn check(name: &'static str, level: OptLevel, plan: Option<MoePlan>) {
    let case = Case::load(name);
    let checkpoint = case.checkpoint(Spelling::V4);
    let compiled = Compiled::new(checkpoint.path(), |options| {
        options.level = level;
        options.moe_plan = plan;
        options.chunk = (level == OptLevel::None).then_some(12);
    });
    for variant in VARIANTS {
        let Some(model) = compiled.load(variant) else { continue };
        for (p, prompt) in case.prompts.iter().enumerate() {
            let place = format!("{name} {level:?} {variant} p{p}");
            let compare = |what: &str, found: &[Vec<f32>], expected: &[Vec<f32>]| {
                let error = worst_relative_error(found, expected);
                println!("{place} {what}: {error:.1e}");
                assert!(error < tolerance(variant), "{place} {what}: relative error {error:.1e}");
            };
            let mut generating = session(&model);
            compare("prefill", &feed(&mut generating, &prompt.ids), &prompt.logits);
            let ids = greedy(&mut generating, prompt.greedy_ids.len());
            assert_eq!(ids, prompt.greedy_ids, "{place}");

            // The same ids once more, with the logits after each.
            let mut stepping = session(&model);
            let mut logits = feed(&mut stepping, &prompt.ids).split_off(prompt.ids.len() - 1);
            let last = prompt.greedy_ids.len() - 1;
            logits.extend(
                prompt.greedy_ids[..last]
                    .iter()
                    .flat_map(|id| feed(&mut stepping, &[*id])),
            );
            compare("decode", &logits, &prompt.greedy_logits);
        }
    }
}

macro_rules! cases {
    ($($test:ident: $case:literal,)*) => {$(
        mod $test {
            use kiln_compiler::rewrite::OptLevel;

            #[test]
            fn unfused() {
                super::check($case, OptLevel::None, None);
            }

            #[test]
            fn full() {
                super::check($case, OptLevel::Full, None);
            }
        }
    )*};
}

/// Cases with mixtures of experts, under each plan. (Others are under `cases!`; random shapes under each plan are in
/// `mixtures.rs`.)
macro_rules! mixtures {
    ($($test:ident: $case:literal,)*) => {$(
        mod $test {
            use kiln_compiler::rewrite::{MoePlan, OptLevel};

            #[test]
            fn chosen() {
                super::check($case, OptLevel::Full, None);
            }

            mixtures!(@plan $case, gather, unfused_gather, Gather);
            mixtures!(@plan $case, grouped, unfused_grouped, Grouped);
            mixtures!(@plan $case, dense, unfused_dense, Dense);
        }
    )*};
    (@plan $case:literal, $full:ident, $unfused:ident, $plan:ident) => {
        #[test]
        fn $full() {
            super::check($case, OptLevel::Full, Some(MoePlan::$plan));
        }

        #[test]
        fn $unfused() {
            super::check($case, OptLevel::None, Some(MoePlan::$plan));
        }
    };
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
    granite_a_bf16: "granite-A-bf16",
    granite_b_bf16: "granite-B-bf16",
    mistral_a_bf16: "mistral-A-bf16",
    mistral_b_bf16: "mistral-B-bf16",
    lfm2_a_bf16: "lfm2-A-bf16",
    lfm2_b_bf16: "lfm2-B-bf16",
    qwen3_5_a_bf16: "qwen3_5-A-bf16",
    qwen3_5_b_bf16: "qwen3_5-B-bf16",
    gpt_oss_b_bf16: "gpt_oss-B-bf16",
    qwen3_5_moe_b_bf16: "qwen3_5_moe-B-bf16",
    qwen3_next_b_bf16: "qwen3_next-B-bf16",
    lfm2_moe_b_bf16: "lfm2_moe-B-bf16",
    granitemoe_b_bf16: "granitemoe-B-bf16",
    olmoe_b_bf16: "olmoe-B-bf16",
    qwen3_moe_b_bf16: "qwen3_moe-B-bf16",
}

mixtures! {
    gpt_oss_a_bf16: "gpt_oss-A-bf16",
    gpt_oss_a_f32: "gpt_oss-A-f32",
    gpt_oss_a_mxfp4: "gpt_oss-A-mxfp4",
    gpt_oss_b_mxfp4: "gpt_oss-B-mxfp4",
    qwen3_moe_a_bf16: "qwen3_moe-A-bf16",
    olmoe_a_bf16: "olmoe-A-bf16",
    granitemoe_a_bf16: "granitemoe-A-bf16",
    lfm2_moe_a_bf16: "lfm2_moe-A-bf16",
    qwen3_next_a_bf16: "qwen3_next-A-bf16",
    qwen3_5_moe_a_bf16: "qwen3_5_moe-A-bf16",
}
