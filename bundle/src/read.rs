//! The manifest's types from JSON.

use crate::json::{Faults, FromJson, Json};
use crate::manifest::*;

/// A struct whose fields have their own names in JSON, or those given.
macro_rules! record {
    ($type:ident { $($field:ident $(= $name:literal)?),* $(,)? }) => {
        impl FromJson for $type {
            fn from_json(json: &Json<'_>, faults: &mut Faults) -> Self {
                Self { $($field: json.field(record!(@ $field $($name)?), faults)),* }
            }
        }
    };
    (@ $field:ident) => { stringify!($field) };
    (@ $field:ident $name:literal) => { $name };
}

record!(Manifest {
    format_version,
    compiler,
    model,
    text,
    shards,
    weights,
    variants,
    self_test
});
record!(Model {
    name,
    architecture,
    layers,
    hidden_size,
    vocab_size,
    max_context,
    default_context,
    chunk,
    parameters,
    quantization,
    eos_token_ids,
    bos_token_id,
    sampling,
});
record!(SamplingDefaults {
    temperature,
    top_k,
    top_p,
    min_p,
    repetition_penalty,
    no_repeat_ngram_size,
    min_new_tokens,
    min_length,
    rules,
});
record!(TokenRule { ids, bias, first });
record!(TextFiles {
    tokenizer,
    tokenizer_config,
    chat_template
});
record!(TextFile { file, sha256 });
record!(Shard { file, bytes, sha256 });
record!(WeightTensor {
    name,
    shard,
    offset,
    bytes
});
impl FromJson for Variant {
    fn from_json(json: &Json<'_>, faults: &mut Faults) -> Self {
        Variant {
            name: json.field("name", faults),
            features: json.field("features", faults),
            language_features: json.field::<Option<_>>("language_features", faults).unwrap_or_default(),
            limits: json.field("limits", faults),
            kernels: json.field("kernels", faults),
            buffers: json.field("buffers", faults),
            programs: json.field("programs", faults),
        }
    }
}
record!(Limits {
    max_storage_buffers_per_shader_stage = "maxStorageBuffersPerShaderStage",
    max_storage_buffer_binding_size = "maxStorageBufferBindingSize",
    max_buffer_size = "maxBufferSize",
    max_compute_invocations_per_workgroup = "maxComputeInvocationsPerWorkgroup",
    max_compute_workgroup_storage_size = "maxComputeWorkgroupStorageSize",
    max_compute_workgroups_per_dimension = "maxComputeWorkgroupsPerDimension",
});
record!(Kernel {
    name,
    file,
    sha256,
    bindings
});
record!(Buffer { name, kind });
record!(Programs {
    prefill,
    decode,
    head,
    adjust,
    greedy,
    sample
});
record!(Dispatch {
    kernel,
    bindings,
    grid,
    label
});
record!(SelfTest { ids, top_logits, norm });

impl FromJson for Feature {
    fn from_json(json: &Json<'_>, faults: &mut Faults) -> Self {
        match json.text(faults) {
            "shader-f16" => Feature::ShaderF16,
            "subgroups" => Feature::Subgroups,
            other => {
                faults.note(format!("unknown feature {other:?}"));
                Feature::ShaderF16
            }
        }
    }
}

impl FromJson for Access {
    fn from_json(json: &Json<'_>, faults: &mut Faults) -> Self {
        match json.text(faults) {
            "read" => Access::Read,
            "read-write" => Access::ReadWrite,
            other => {
                faults.note(format!("unknown access {other:?}"));
                Access::Read
            }
        }
    }
}

impl FromJson for BufferKind {
    fn from_json(json: &Json<'_>, faults: &mut Faults) -> Self {
        let kind: String = json.field("kind", faults);
        match kind.as_str() {
            "weight" => BufferKind::Weight {
                weight: json.field("weight", faults),
            },
            "state" => BufferKind::State {
                bytes_per_position: json.field("bytes_per_position", faults),
                positions: json.field("positions", faults),
                window: json.field("window", faults),
            },
            "recurrent" => BufferKind::Recurrent {
                bytes: json.field("bytes", faults),
            },
            "arena" => BufferKind::Arena {
                bytes: json.field("bytes", faults),
            },
            "step" => BufferKind::Step,
            "tokens" => BufferKind::Tokens,
            "output" => BufferKind::Output {
                slots: json.field("slots", faults),
            },
            "hidden" => BufferKind::Hidden {
                bytes: json.field("bytes", faults),
            },
            "logits" => BufferKind::Logits {
                bytes: json.field("bytes", faults),
            },
            "history" => BufferKind::History {
                bytes_per_position: json.field("bytes_per_position", faults),
            },
            "rules" => BufferKind::Rules {
                bytes: json.field("bytes", faults),
            },
            other => {
                faults.note(format!("unknown kind of buffer {other:?}"));
                BufferKind::Step
            }
        }
    }
}

impl FromJson for Binding {
    fn from_json(json: &Json<'_>, faults: &mut Faults) -> Self {
        Self {
            buffer: json.field("buffer", faults),
            offset: json.field::<Option<u64>>("offset", faults).unwrap_or(0),
            bytes: json.field("bytes", faults),
        }
    }
}

impl FromJson for Grid {
    fn from_json(json: &Json<'_>, faults: &mut Faults) -> Self {
        match json {
            Json::Number(_) => Grid::Fixed(u32::from_json(json, faults)),
            _ => Grid::Tokens {
                per: json.field("per", faults),
                times: json.field("times", faults),
            },
        }
    }
}

impl FromJson for u32 {
    fn from_json(json: &Json<'_>, faults: &mut Faults) -> Self {
        whole(json, faults, u32::MAX.into(), "u32") as u32
    }
}

impl FromJson for u64 {
    fn from_json(json: &Json<'_>, faults: &mut Faults) -> Self {
        whole(json, faults, u64::MAX, "u64")
    }
}

/// A number of a type that goes up to `most`.
#[inline(never)]
fn whole(json: &Json<'_>, faults: &mut Faults, most: u64, name: &str) -> u64 {
    let text = json.number(faults);
    match text.parse() {
        Ok(number) if number <= most => number,
        _ => {
            faults.note(format!("{text} is no {name}"));
            0
        }
    }
}

/// Not the standard library's: its tables alone are a tenth of the runtime in a browser.
impl FromJson for f32 {
    fn from_json(json: &Json<'_>, faults: &mut Faults) -> Self {
        let text = json.number(faults);
        decimal(text).unwrap_or_else(|| {
            faults.note(format!("{text} is no f32"));
            0.0
        })
    }
}

/// The nearest f32, or one of its neighbours for more than 15 digits or exponents beyond 22: up to there digits and power of ten
/// are exact as f64, and their quotient or product is rounded once.
fn decimal(text: &str) -> Option<f32> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut exponent: i32 = exponent.strip_prefix('+').unwrap_or(exponent).parse().ok()?;
    let negative = whole.starts_with('-');
    if whole.len() == usize::from(negative) {
        return None;
    }
    let mut digits = 0u64;
    for byte in whole.bytes().skip(negative.into()).chain(fraction.bytes()) {
        let digit = u64::from(byte.checked_sub(b'0').filter(|digit| *digit < 10)?);
        // Digits that no longer fit only move the point.
        match digits.checked_mul(10).and_then(|digits| digits.checked_add(digit)) {
            Some(more) => digits = more,
            None => exponent = exponent.checked_add(1)?,
        }
    }
    exponent = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let power = 10f64.powi(exponent.unsigned_abs().min(400) as i32);
    let value = if exponent < 0 {
        digits as f64 / power
    } else {
        digits as f64 * power
    };
    let value = value as f32;
    Some(if negative { -value } else { value })
}

impl FromJson for String {
    fn from_json(json: &Json<'_>, faults: &mut Faults) -> Self {
        json.text(faults).to_string()
    }
}

impl<T: FromJson> FromJson for Option<T> {
    fn from_json(json: &Json<'_>, faults: &mut Faults) -> Self {
        match json {
            Json::Absent | Json::Null => None,
            _ => Some(T::from_json(json, faults)),
        }
    }
}

impl<T: FromJson> FromJson for Vec<T> {
    fn from_json(json: &Json<'_>, faults: &mut Faults) -> Self {
        json.elements(faults)
    }
}

/// The number of workgroups in each direction.
impl FromJson for [Grid; 3] {
    fn from_json(json: &Json<'_>, faults: &mut Faults) -> Self {
        let elements = json.elements(faults);
        elements.try_into().unwrap_or_else(|_| {
            faults.note("expected 3 elements".to_string());
            [Grid::Fixed(0); 3]
        })
    }
}

/// A token and its logit.
impl FromJson for (u32, f32) {
    fn from_json(json: &Json<'_>, faults: &mut Faults) -> Self {
        match json {
            Json::Array(pair) if pair.len() == 2 => {
                (u32::from_json(&pair[0], faults), f32::from_json(&pair[1], faults))
            }
            _ => {
                faults.expected("a pair", json);
                (0, 0.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{BundleError, Manifest};

    /// One of everything.
    const MANIFEST: &str = r#" {"format_version": 3, "compiler": "kiln \"1\" \u00e9\ud83d\ude00\n", "unknown": [{}, [], true, false],
        "model": {"name": "m", "architecture": "A", "layers": 1, "hidden_size": 8, "vocab_size": 9, "max_context": 10,
            "default_context": 10, "chunk": 4, "parameters": 18446744073709551615, "quantization": "q4",
            "eos_token_ids": [1, 2], "bos_token_id": null,
            "sampling": {"temperature": 0.6, "top_k": 20, "top_p": 9.5e-1, "min_p": 0.05, "repetition_penalty": 1.1,
                "no_repeat_ngram_size": 3, "min_new_tokens": 4, "min_length": 5,
                "rules": [{"ids": [1]}, {"ids": [2, 3], "bias": -2.5, "first": 1}]}},
        "text": {"tokenizer": {"file": "t", "sha256": "aa"}, "tokenizer_config": null, "chat_template": {"file": "c", "sha256": "bb"}},
        "shards": [{"file": "w", "bytes": 64, "sha256": "00"}],
        "weights": [{"name": "a", "shard": 0, "offset": 16, "bytes": 48}],
        "variants": [{"name": "f16", "features": ["shader-f16", "subgroups"], "language_features": ["subgroup_id"],
            "limits": {"maxStorageBuffersPerShaderStage": 8, "maxStorageBufferBindingSize": 1, "maxBufferSize": 2,
                "maxComputeInvocationsPerWorkgroup": 3, "maxComputeWorkgroupStorageSize": 4,
                "maxComputeWorkgroupsPerDimension": 5},
            "kernels": [{"name": "k", "file": "k.wgsl", "sha256": "11", "bindings": ["read", "read-write"]}],
            "buffers": [{"name": "w", "kind": {"kind": "weight", "weight": 0}},
                {"name": "s", "kind": {"kind": "state", "bytes_per_position": 2, "positions": null}},
                {"name": "r", "kind": {"kind": "state", "bytes_per_position": 2, "positions": 8, "window": 4}},
                {"name": "n", "kind": {"kind": "recurrent", "bytes": 4}}, {"name": "a", "kind": {"kind": "arena", "bytes": 4}},
                {"name": "p", "kind": {"kind": "step"}}, {"name": "t", "kind": {"kind": "tokens"}},
                {"name": "o", "kind": {"kind": "output", "slots": 8}}, {"name": "h", "kind": {"kind": "hidden", "bytes": 4}},
                {"name": "l", "kind": {"kind": "logits", "bytes": 4}},
                {"name": "y", "kind": {"kind": "history", "bytes_per_position": 8}}, {"name": "z", "kind": {"kind": "rules", "bytes": 64}}],
            "programs": {"prefill": [{"kernel": 0, "bindings": [{"buffer": 0}, {"buffer": 1, "offset": 256, "bytes": 8}],
                "grid": [1, {"per": 2, "times": 3}, 4], "label": "x"}], "decode": [], "head": [], "adjust": [], "greedy": [], "sample": []}}],
        "self_test": {"ids": [1, 2], "top_logits": [[3, -1.5], [4, 1e-3]], "norm": 3.25}} "#;

    #[test]
    fn reads_as_serde_json_does() {
        let read = Manifest::from_json(MANIFEST.as_bytes(), "m").unwrap();
        assert_eq!(read, serde_json::from_str(MANIFEST).unwrap());
        assert_eq!(Manifest::from_json(read.to_json().as_bytes(), "m").unwrap(), read);
    }

    #[test]
    fn no_part_of_a_manifest_is_one() {
        for length in 0..MANIFEST.trim_end().len() {
            let read = Manifest::from_json(&MANIFEST.as_bytes()[..length], "m");
            assert!(matches!(read, Err(BundleError::Syntax { .. })), "{length} bytes");
        }
    }

    #[test]
    fn numbers_are_those_of_the_standard_library() {
        let mut bits = 1u32;
        for _ in 0..20_000 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Logits and sampling settings lie far within these.
            let value = f32::from_bits(bits);
            if value.is_finite() && (1e-14..1e14).contains(&value.abs()) {
                for text in [value.to_string(), format!("{value:e}")] {
                    assert_eq!(super::decimal(&text), Some(value), "{text}");
                }
            }
        }
        for bad in ["", "-", "1x", "1e", "1e99999999999", "--1", "1.-2"] {
            assert_eq!(super::decimal(bad), None, "{bad}");
        }
    }

    #[test]
    fn faults_say_where_they_are() {
        for (from, to, expected) in [
            (r#""bytes": 64"#, r#""bytes": -64"#, "shards[0].bytes: -64 is no u64"),
            (r#""chunk": 4,"#, "", "model.chunk: it is missing"),
            (
                r#""read-write"]"#,
                r#""write"]"#,
                r#"variants[0].kernels[0].bindings[1]: unknown access "write""#,
            ),
            (
                r#""slots": 8"#,
                r#""slots": "8""#,
                "variants[0].buffers[7].kind.slots: expected a number",
            ),
            (
                r#"[1, {"per""#,
                r#"[{"per""#,
                "variants[0].programs.prefill[0].grid: expected 3 elements",
            ),
            (r#""layers": 1,"#, r#""layers": 01e,"#, "model.layers: 01e is no u32"),
            ("[], true", "[[,]], true", "not JSON at byte"),
            (r#"\u00e9"#, r#"\ud83d"#, "not JSON at byte"),
            ("[{}, [], true", &format!("[{}", "[".repeat(1000)), "nested too deeply"),
        ] {
            assert!(MANIFEST.contains(from), "{from}");
            let error = Manifest::from_json(MANIFEST.replace(from, to).as_bytes(), "m").unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
