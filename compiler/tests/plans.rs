//! Snapshots of what a small model of each architecture becomes: the rewritten templates, the plan, and the WGSL.
//! The graphs before are in `definitions.rs`. Review changes with `cargo insta review`.

use std::fmt::Write;
use std::fs;

use kiln_bundle::{Dispatch, Grid, Variant};
use kiln_compiler::architectures::Registry;
use kiln_compiler::compile::{CompileOptions, CompileReport, compile};
use kiln_compiler::progress::Silent;
use kiln_compiler::weights::Quant;
use serde_json::{Value, json};

fn config(more: Value) -> Value {
    let mut config = json!({
        "hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 333, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 256, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": true,
    });
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    config
}

fn check(name: &str, config: &Value) {
    let folder = tempfile::tempdir().unwrap();
    let (source, output) = (folder.path().join("config.json"), folder.path().join("out"));
    fs::write(&source, config.to_string()).unwrap();
    let options = CompileOptions {
        no_weights: true,
        quant: Quant::Q4,
        chunk: Some(64),
        ..CompileOptions::new(&source, &output)
    };
    let report = compile(&options, &Registry::default(), &Silent).unwrap();

    let variant = report
        .manifest
        .variants
        .iter()
        .find(|variant| variant.name == "subgroups")
        .unwrap();
    insta::with_settings!({ omit_expression => true }, {
        insta::assert_snapshot!(format!("{name}_rewritten"), rewritten(&report));
        insta::assert_snapshot!(format!("{name}_plan"), plan(variant));
    });
    let mut wgsl = String::new();
    for kernel in &variant.kernels {
        writeln!(
            wgsl,
            "// {}\n{}",
            kernel.file,
            fs::read_to_string(output.join(&kernel.file)).unwrap()
        )
        .unwrap();
    }
    insta::with_settings!({ omit_expression => true }, {
        insta::assert_snapshot!(format!("{name}_wgsl"), wgsl);
    });
}

fn rewritten(report: &CompileReport) -> String {
    report
        .explanations
        .iter()
        .map(|explanation| explanation.to_string())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The buffers, then a line for each dispatch: grid, label, kernel, and what it binds (`!` marks writes).
fn plan(variant: &Variant) -> String {
    let mut text = String::new();
    for buffer in variant.buffers.iter().filter(|buffer| !buffer.name.ends_with("weight")) {
        writeln!(text, "{}: {:?}", buffer.name, buffer.kind).unwrap();
    }
    for (name, program) in variant.programs.all() {
        writeln!(text, "\n{name}:").unwrap();
        for dispatch in program {
            writeln!(text, "  {}", line(variant, dispatch)).unwrap();
        }
    }
    text
}

fn line(variant: &Variant, dispatch: &Dispatch) -> String {
    let kernel = &variant.kernels[dispatch.kernel as usize];
    let grid: Vec<String> = dispatch
        .grid
        .iter()
        .map(|axis| match axis {
            Grid::Fixed(count) => count.to_string(),
            Grid::Tokens { per, times } => format!("{times}*ceil(T/{per})"),
        })
        .collect();
    let bound: Vec<String> = dispatch
        .bindings
        .iter()
        .zip(&kernel.bindings)
        .map(|(binding, access)| {
            let name = &variant.buffers[binding.buffer as usize].name;
            let offset = if binding.offset > 0 {
                format!("+{}", binding.offset)
            } else {
                String::new()
            };
            let write = if *access == kiln_bundle::Access::ReadWrite {
                "!"
            } else {
                ""
            };
            format!("{name}{offset}{write}")
        })
        .collect();
    format!(
        "[{}] {}: {}({})",
        grid.join(", "),
        dispatch.label,
        kernel.name,
        bound.join(", ")
    )
}

#[test]
fn llama() {
    check("llama", &config(json!({ "architectures": ["LlamaForCausalLM"] })));
}

#[test]
fn qwen3() {
    check("qwen3", &config(json!({ "architectures": ["Qwen3ForCausalLM"] })));
}

#[test]
fn gemma3() {
    check(
        "gemma3",
        &config(json!({
            "architectures": ["Gemma3ForCausalLM"], "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": 32, "sliding_window": 16, "rope_local_base_freq": 10000.0,
            "layer_types": ["sliding_attention", "full_attention"],
        })),
    );
}
