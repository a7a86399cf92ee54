//! Every emitted kernel is checked by two independent readers of WGSL.

use std::io::Write;
use std::process::{Command, Stdio};

use kiln_bundle::Feature;
use kiln_compiler::kernels::KernelSource;
use kiln_require::{Requirement, skip};
use naga::valid::{Capabilities, ShaderStages, ValidationFlags, Validator};

/// Reads the text with naga's WGSL front end and validates it with the features that the kernel names, no more.
///
/// # Panics
/// The text is refused.
pub fn check_with_naga(kernel: &KernelSource) {
    let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    for feature in &kernel.features {
        capabilities |= match feature {
            Feature::ShaderF16 => Capabilities::SHADER_FLOAT16,
            Feature::Subgroups => Capabilities::SUBGROUP,
        };
    }
    let module = naga::front::wgsl::parse_str(&kernel.wgsl)
        .unwrap_or_else(|error| panic!("{}: {}", kernel.name, error.emit_to_string(&kernel.wgsl)));
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    validator.subgroup_stages(ShaderStages::COMPUTE);
    if let Err(error) = validator.validate(&module) {
        panic!(
            "{}: {}\n{}",
            kernel.name,
            error.emit_to_string(&kernel.wgsl),
            kernel.wgsl
        );
    }
}

/// Checks the text with Dawn's compiler, as a browser sees it. Says so where `tint` is not installed.
///
/// # Panics
/// The text is refused.
pub fn check_with_tint(kernel: &KernelSource) {
    // A browser wants subgroups enabled in the text; naga's front end refuses the line, so it is not in there.
    let enable = match kernel.features.contains(&Feature::Subgroups) {
        true => "enable subgroups;\n",
        false => "",
    };
    let mut file = tempfile::Builder::new()
        .suffix(".wgsl")
        .tempfile()
        .expect("a temporary file");
    write!(file, "{enable}{}", kernel.wgsl).expect("writing a temporary file");
    let command = Command::new("tint")
        .args(["--format", "wgsl", "-o", "/dev/null"])
        .arg(file.path())
        .stdout(Stdio::null())
        .output();
    match command {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!(
            "{}: {}\n{}",
            kernel.name,
            String::from_utf8_lossy(&output.stderr),
            kernel.wgsl
        ),
        Err(_) => skip(
            Requirement::Tint,
            format!("tint is not installed, {} was not checked with it", kernel.name),
        ),
    }
}
