//! Checkpoints of mixtures of experts as they lie on disk: MXFP4 blocks and scales, one tensor an expert; and what is
//! wrong with them, said before anything is written.

mod fixture_files;

use std::path::Path;

use fixture_files::{Tensors, fixture, tensors, write};
use kiln_compiler::architectures::Registry;
use kiln_compiler::checkpoint::{Checkpoint, SourceType, TensorSource, View};
use kiln_compiler::compile::{CompileOptions, compile};
use kiln_compiler::progress::Silent;
use kiln_compiler::rewrite::MoePlan;
use kiln_compiler::weights::Quant;

const GPT_OSS: &str = "gpt_oss-A-mxfp4";
const GATE_UP: &str = "model.layers.1.mlp.experts.gate_up_proj";

/// The E2M1 codes' values, from the OCP Microscaling Formats specification, section 5.3.3.
const E2M1: [f32; 16] = [
    0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0,
];

/// A copy of a fixture with changed tensors.
fn changed(name: &str, change: impl FnOnce(&mut Tensors)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = tensors(name);
    change(&mut tensors);
    write(&tensors, &folder.path().join("model.safetensors"));
    std::fs::copy(fixture(name).join("config.json"), folder.path().join("config.json")).unwrap();
    folder
}

fn options(checkpoint: &Path, place: &Path) -> CompileOptions {
    CompileOptions {
        moe_plan: Some(MoePlan::Gather),
        ..CompileOptions::new(checkpoint, place.join("bundle"))
    }
}

/// Why a changed fixture does not compile. Nothing is left of the bundle.
fn refusal(name: &str, change: impl FnOnce(&mut Tensors)) -> String {
    let checkpoint = changed(name, change);
    let place = tempfile::tempdir().unwrap();
    let options = options(checkpoint.path(), place.path());
    let error = compile(&options, &Registry::default(), &Silent).unwrap_err();
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "{error}");
    error.to_string()
}

#[test]
fn blocks_and_scales_are_one_tensor() {
    let checkpoint = Checkpoint::open(&fixture(GPT_OSS)).unwrap();
    let on_disk = tensors(GPT_OSS);
    for (name, blocks) in on_disk.iter().filter(|(name, _)| name.ends_with("_blocks")) {
        let name = name.trim_end_matches("_blocks");
        let scales = &on_disk[&format!("{name}_scales")];
        let info = checkpoint.info(name).unwrap();
        assert_eq!(info.source, SourceType::Mxfp4);
        assert_eq!(info.shape, [&blocks.shape[..2], &[blocks.shape[2] * 32]].concat());
        // Low nibble first: `convert_moe_packed_tensors` of transformers.
        let codes = blocks.bytes.iter().flat_map(|byte| [byte & 15, byte >> 4]);
        let expected: Vec<f32> = codes
            .enumerate()
            .map(|(i, code)| E2M1[usize::from(code)] * 2f32.powi(i32::from(scales.bytes[i / 32]) - 127))
            .collect();
        assert!(expected.iter().any(|value| *value != 0.0));
        assert_eq!(checkpoint.read_f32(name).unwrap(), expected, "{name}");
        let part = checkpoint.read_rows(name, 3..7).unwrap().into_owned();
        let all = checkpoint
            .read_rows(name, 0..blocks.shape[0] * blocks.shape[1])
            .unwrap();
        let row = info.shape[2] / 32 * 17;
        assert_eq!(part, all[3 * row..7 * row]);
    }
    assert!(
        !checkpoint
            .names()
            .iter()
            .any(|name| name.contains("_blocks") || name.contains("_scales"))
    );
}

/// Gate and up take turns in the tensor; the bf16 checkpoint has the same weights, transposed and not rounded.
#[test]
fn both_layouts_of_gpt_oss_hold_about_the_same() {
    let [blocks, plain] = [GPT_OSS, "gpt_oss-A-bf16"].map(|name| Checkpoint::open(&fixture(name)).unwrap());
    let registry = Registry::default();
    let gpt_oss = registry.for_config(blocks.config()).unwrap();
    let declared = gpt_oss.build(blocks.config()).unwrap().declared_weights();
    let [blocks, plain] = [&blocks, &plain].map(|source| View::new(source, &declared).unwrap());
    for part in ["gate_up_proj.gate", "gate_up_proj.up", "down_proj"] {
        for layer in 0..4 {
            let name = format!("model.layers.{layer}.mlp.experts.{part}");
            let [blocks, plain] = [&blocks, &plain].map(|view| view.read_f32(&name).unwrap());
            // Codes are a quarter of their value apart; half of that, and what a block's largest value exceeds 6 by.
            let largest = plain.iter().fold(0f32, |most, value| most.max(value.abs()));
            assert_eq!(blocks.len(), plain.len());
            for (a, b) in blocks.iter().zip(&plain) {
                assert!((a - b).abs() <= largest / 4.0, "{name}: {a} and {b}");
            }
        }
    }
}

#[test]
fn quantization_leaves_blocks_and_routers_alone() {
    let place = tempfile::tempdir().unwrap();
    let options = CompileOptions {
        quant: Quant::Q8,
        ..options(&fixture(GPT_OSS), place.path())
    };
    let manifest = compile(&options, &Registry::default(), &Silent).unwrap().manifest;
    assert_eq!(manifest.model.quantization, "q8 (bf16, mxfp4, q8)");
}

#[test]
fn scales_out_of_range_are_named() {
    let message = refusal(GPT_OSS, |tensors| {
        // Expert 3, row 5 (the third of up), second block; rows of the tensor have two blocks.
        let scales = tensors.get_mut(&format!("{GATE_UP}_scales")).unwrap();
        let at = (3 * scales.shape[1] + 5) * scales.shape[2] + 1;
        scales.bytes[at] = 255;
    });
    // Row 2 of the fourth expert's 32.
    let expected = format!("tensor {GATE_UP}.up, row 98: the scale of a block is not a number or too large");
    assert!(message.contains(&expected), "{message}");
}

#[test]
fn blocks_and_scales_that_do_not_belong_together_are_named() {
    let message = refusal(GPT_OSS, |tensors| {
        let scales = tensors.get_mut(&format!("{GATE_UP}_scales")).unwrap();
        let (experts, rows) = (scales.shape[0], scales.shape[1]);
        scales.shape = vec![experts, rows / 2, scales.shape[2] * 2];
    });
    assert!(
        message.contains(&format!(
            "tensor {GATE_UP}_blocks of shape [8, 64, 2, 16] and {GATE_UP}_scales of shape [8, 32, 4] do not belong together"
        )),
        "{message}"
    );
    let message = refusal(GPT_OSS, |tensors| {
        tensors.remove(&format!("{GATE_UP}_scales"));
    });
    assert!(
        message.contains(&format!("tensor {GATE_UP}_blocks: expected none, found [8, 64, 2, 16]")),
        "{message}"
    );
}

#[test]
fn a_missing_expert_is_named() {
    let name = "model.layers.2.mlp.experts.5.up_proj.weight";
    let message = refusal("qwen3_moe-A-bf16", |tensors| {
        tensors.remove(name);
    });
    assert!(
        message.contains("(1 tensor)") && message.contains(&format!("tensor {name}: expected [32, 64], found none")),
        "{message}"
    );
}

#[test]
fn routers_and_sinks_that_are_not_finite_are_named() {
    let with_nan = |name: &str, element: usize| {
        refusal(GPT_OSS, |tensors| {
            // bf16
            tensors.get_mut(name).unwrap().bytes[2 * element..2 * element + 2].copy_from_slice(&[0xc0, 0x7f]);
        })
    };
    let router = "model.layers.2.mlp.router.weight";
    let message = with_nan(router, 64 * 6 + 3);
    assert!(
        message.contains(&format!("tensor {router}, row 6: a value is infinite or not a number")),
        "{message}"
    );
    let sinks = "model.layers.0.self_attn.sinks";
    assert!(with_nan(sinks, 2).contains(&format!("tensor {sinks}, row 2: ")));
    let bias = "model.layers.3.mlp.experts.gate_up_proj_bias";
    // Element 5 of the second expert is the third of its up bias; 32 of each expert.
    assert!(with_nan(bias, 64 + 5).contains(&format!("tensor {bias}.up, row 34: ")));
}
