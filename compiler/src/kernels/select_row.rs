//! One row of the hidden states, for a head that reads them otherwise than through a product.

use kiln_bundle::{Access, StepWord};

use super::builder::{Builder, KernelError, KernelSource};
use super::step::Step;
use super::{Capability, SelectRowSpec};

pub fn build(spec: &SelectRowSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    let SelectRowSpec { width } = *spec;
    let b = Builder::new(format!("select_row_{width}"), SelectRowSpec::WORKGROUP, capability);
    let x = b.storage::<f32>("x", Access::Read);
    let step = Step::bind(&b);
    let out = b.storage::<f32>("out", Access::ReadWrite);
    let column = (b.group().x() * SelectRowSpec::WORKGROUP + b.thread()).named("column");
    b.if_(column.lt(width), || {
        let row = step.word(StepWord::Row);
        out.store(column, x.load(row * width + column));
    });
    b.finish()
}
