//! Embedding rows of the step's tokens.

use kiln_bundle::Access;

use super::builder::{Builder, KernelError, KernelSource};
use super::names::number;
use super::weight::{Quads, Weight};
use super::{Capability, GatherSpec};

const WORKGROUP: u32 = 64;

impl GatherSpec {
    fn name(&self) -> String {
        let GatherSpec {
            rows,
            first_row,
            width,
            format,
            scale,
        } = self;
        let part = if *first_row == 0 {
            String::new()
        } else {
            format!("_from{first_row}")
        };
        let scale = if *scale == 1.0 {
            String::new()
        } else {
            format!("_times{}", number(*scale))
        };
        format!("gather_{format}_{rows}x{width}{part}{scale}")
    }
}

pub fn build(spec: &GatherSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    let b = Builder::new(spec.name(), WORKGROUP, capability);
    body(&b, spec);
    b.finish()
}

fn body(b: &Builder, spec: &GatherSpec) {
    let table = Weight::bind(b, spec.format, spec.width, 1);
    let tokens = b.storage::<u32>("tokens", Access::Read);
    b.storage::<u32>("step_buffer", Access::Read);
    let out = Quads::bind(b, "out", spec.width, Access::ReadWrite);

    let token = b.group().x();
    // Below the first row this wraps to a large number.
    let row = (tokens.load(token) - spec.first_row).named("row");
    let quads = table.chunk / 4;
    b.if_(row.lt(spec.rows), || {
        b.range(
            "chunk",
            b.thread(),
            b.constant("CHUNKS", table.chunks(spec.width)),
            WORKGROUP,
            |chunk| {
                let values = table.load(row, chunk, "").values();
                for (i, value) in (0..).zip(values) {
                    let value = if spec.scale == 1.0 { value } else { value * spec.scale };
                    out.store(token, chunk * quads + i, value, !spec.width.is_multiple_of(table.chunk));
                }
            },
        );
    });
}
