use kiln_bundle::{Access, Feature};
use naga::compact::{KeepUnused, compact};
use naga::valid::{Capabilities, ShaderStages, ValidationFlags, Validator};
use thiserror::Error;

use super::Builder;
use crate::kernels::Capability;

/// A finished kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSource {
    /// Descriptive, the same only for equal specs; also the entry point.
    pub name: String,
    /// Without `enable subgroups;`: a loader adds it where it is wanted.
    pub wgsl: String,
    /// Access of group 0, bindings 0, 1, 2 ...
    pub bindings: Vec<Access>,
    pub workgroup_size: [u32; 3],
    /// Workgroup memory in bytes.
    pub workgroup_bytes: u32,
    /// Device features that the text uses; empty in `base`.
    pub features: Vec<Feature>,
}

/// Why a kernel cannot be made.
#[derive(Debug, Error)]
pub enum KernelError {
    /// More of a resource than every WebGPU device offers.
    #[error("kernel {kernel}: {what} is {found}, the limit is {limit}")]
    Limit {
        kernel: String,
        what: &'static str,
        found: u32,
        limit: u32,
    },
    /// The spec asks for something that this family of kernels does not do.
    #[error("kernel {kernel}: {what}")]
    Unsupported { kernel: String, what: String },
    /// The generated module is wrong: a bug in the generator.
    #[error("kernel {kernel}: the generated code is invalid, please report it: {message}")]
    Invalid { kernel: String, message: String },
}

/// What `base` guarantees, and so the most that any kernel uses.
const MAX_INVOCATIONS: u32 = 256;
pub const MAX_WORKGROUP_BYTES: u32 = 16_352;
const MAX_STORAGE_BUFFERS: u32 = 8;

impl Builder {
    /// Checks limits, validates the module with exactly what its capability allows, and writes it as WGSL.
    ///
    /// # Errors
    /// A limit is passed, or the module is invalid.
    pub fn finish(self) -> Result<KernelSource, KernelError> {
        let Builder {
            name,
            workgroup,
            capability,
            state,
        } = self;
        let mut state = state.into_inner();
        state.flush();
        let limits = [
            ("the workgroup size", workgroup, MAX_INVOCATIONS),
            ("workgroup memory in bytes", state.workgroup_bytes, MAX_WORKGROUP_BYTES),
            (
                "the number of storage buffers",
                state.bindings.len() as u32,
                MAX_STORAGE_BUFFERS,
            ),
        ];
        if let Some(&(what, found, limit)) = limits.iter().find(|(_, found, limit)| found > limit) {
            return Err(KernelError::Limit {
                kernel: name,
                what,
                found,
                limit,
            });
        }

        let workgroup_size = [workgroup, 1, 1];
        let mut function = state.function;
        function.body = state.blocks.pop().expect("the function body");
        let mut module = state.module;
        module.entry_points.push(naga::EntryPoint {
            name: name.clone(),
            stage: naga::ShaderStage::Compute,
            early_depth_test: None,
            workgroup_size,
            workgroup_size_overrides: None,
            function,
            mesh_info: None,
            task_payload: None,
            incoming_ray_payload: None,
        });
        let wgsl = write(&mut module, capability).map_err(|message| KernelError::Invalid {
            kernel: name.clone(),
            message,
        })?;
        let used = [(state.half, Feature::ShaderF16), (state.subgroups, Feature::Subgroups)];
        Ok(KernelSource {
            name,
            wgsl,
            bindings: state.bindings,
            workgroup_size,
            workgroup_bytes: state.workgroup_bytes,
            features: used
                .into_iter()
                .filter_map(|(used, feature)| used.then_some(feature))
                .collect(),
        })
    }
}

fn write(module: &mut naga::Module, capability: Capability) -> Result<String, String> {
    // `unpack2x16float` is plain WGSL; naga counts it as a capability because of old OpenGL.
    let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    if capability >= Capability::Subgroups {
        capabilities |= Capabilities::SUBGROUP;
    }
    if capability >= Capability::F16 {
        capabilities |= Capabilities::SHADER_FLOAT16;
    }
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    if capability >= Capability::Subgroups {
        validator.subgroup_stages(ShaderStages::COMPUTE);
    }
    let info = validator.validate(module).map_err(|error| error.emit_to_string(""))?;
    let entry_point = info.get_entry_point(0);
    if let Some((_, unused)) = (module.global_variables.iter()).find(|(handle, _)| entry_point[*handle].is_empty()) {
        let name = unused.name.as_deref().unwrap_or("a variable");
        return Err(format!("{name} is bound or declared, but never used"));
    }
    compact(module, KeepUnused::Yes);
    let info = validator.validate(module).map_err(|error| error.emit_to_string(""))?;
    let flags = naga::back::wgsl::WriterFlags::empty();
    naga::back::wgsl::write_string(module, &info, flags).map_err(|error| error.to_string())
}
