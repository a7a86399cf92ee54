//! Checkpoints that were quantized in a way that Kiln does not read, by what gives them away.

use serde_json::Value;

use super::{SourceType, TensorSource};

/// How the weights of a checkpoint are quantized by its config.json, unless they are not or in MXFP4.
pub(super) fn by_config(config: &Value) -> Option<String> {
    let stated = |of: &Value| {
        let settings = of.get("quantization_config").filter(|settings| settings.is_object());
        settings
            .or_else(|| of.get("quantization").filter(|settings| settings.is_object()))
            .cloned()
    };
    let settings = stated(config).or_else(|| config.get("text_config").and_then(stated))?;
    let text = |key: &str| settings.get(key).and_then(Value::as_str);
    let method = match text("quant_method") {
        // MLX writes how many bits, and no method.
        None if settings.get("bits").is_some() => return Some("MLX's quantization".to_string()),
        None => return Some("a method that config.json does not name".to_string()),
        Some("mxfp4") => return None,
        Some(method) => named(method),
    };
    match text("quant_algo").or_else(|| text("format")) {
        Some(kind) => Some(format!("{method} ({kind})")),
        None => Some(method),
    }
}

fn named(method: &str) -> String {
    let known = [
        ("awq", "AWQ"),
        ("gptq", "GPTQ"),
        ("fp8", "FP8"),
        ("fbgemm_fp8", "FP8 (FBGEMM)"),
        ("eetq", "EETQ"),
        ("hqq", "HQQ"),
        ("aqlm", "AQLM"),
        ("vptq", "VPTQ"),
    ];
    let found = known.iter().find(|(key, _)| *key == method);
    found.map_or(method, |(_, name)| name).to_string()
}

/// What the ends of tensors' names say, the more telling ones first.
const SIGNS: &[(&[&str], &str)] = &[
    (&[".qweight", ".qzeros", ".g_idx"], "GPTQ"),
    (&[".qweight", ".qzeros"], "AWQ or GPTQ"),
    (&[".q_weight"], "EXL2"),
    (&[".trellis"], "EXL3"),
    (&[".weight_packed"], "compressed-tensors"),
    (&[".weight_scale_2"], "NVFP4 (modelopt)"),
    (&[".weight_scale_inv"], "FP8"),
    (&[".weight_scale"], "FP8 or compressed-tensors"),
    (&[".absmax"], "bitsandbytes"),
    (&[".SCB"], "bitsandbytes"),
    (&["._data", "._scale"], "quanto"),
    (&["_weight_qdata"], "torchao"),
    (&[".W_q"], "HQQ"),
    (&[".weight_scales"], "EETQ"),
    (&[".codebooks"], "AQLM"),
    (&[".Qidxs"], "QuIP#"),
    (&[".scales", ".biases"], "MLX's quantization"),
];

/// How the weights are quantized by their names and types.
pub(super) fn by_tensors(source: &dyn TensorSource) -> Option<String> {
    let names = source.names();
    let any = |end: &&str| names.iter().any(|name| name.ends_with(*end));
    if let Some((_, method)) = SIGNS.iter().find(|(ends, _)| ends.iter().all(any)) {
        return Some(method.to_string());
    }
    let types = names.iter().filter_map(|name| source.info(name));
    let mut in_f8 = types.filter(|info| matches!(info.source, SourceType::Other(name) if name.starts_with("f8_e4m3")));
    in_f8.next().map(|_| "FP8".to_string())
}
