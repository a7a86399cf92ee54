//! The weighted sum of a token's experts.

use kiln_bundle::Access;

use super::bank::RoutingBuffer;
use super::builder::{Builder, Float, KernelError, KernelSource};
use super::names::lettered;
use super::{Capability, CombineSpec, Residual};

/// Columns of one workgroup.
const COLUMNS: u32 = 256;

pub fn build(spec: &CombineSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    let CombineSpec { width, k, residual } = *spec;
    let name = format!("combine_{width}_top{k}{}", residual.name());
    if k == 0 {
        return Err(KernelError::Unsupported {
            kernel: name,
            what: "no expert for a token".to_string(),
        });
    }
    let lanes = if width.is_multiple_of(4) { 4 } else { 1 };
    let b = Builder::new(name, COLUMNS / lanes, capability);
    match lanes {
        4 => body::<[f32; 4]>(&b, spec, 4),
        _ => body::<f32>(&b, spec, 1),
    }
    b.finish()
}

/// Columns are read as elements of type `T` that hold `lanes` numbers each.
fn body<T: Float<Component = f32>>(b: &Builder, spec: &CombineSpec, lanes: u32) {
    let y = b.storage::<T>("y", Access::Read);
    let routing = RoutingBuffer::bind(b);
    let addend = (spec.residual == Residual::Add).then(|| b.storage::<T>("residual", Access::Read));
    let out = b.storage::<T>("out", Access::ReadWrite);

    let elements = b.constant("ELEMENTS", spec.width / lanes);
    let token = b.group().y();
    let element = (b.group().x() * b.workgroup() + b.thread()).named("element");
    b.if_(element.lt(elements), || {
        let first = (token * spec.k).named("first_assignment");
        let terms: Vec<_> = (0..spec.k)
            .map(|slot| {
                let y = y.load((first + slot) * elements + element);
                y.named(&lettered("y", slot as usize))
            })
            .collect();
        let place = (token * elements + element).named("place");
        let start = match spec.residual {
            Residual::None => None,
            Residual::Add => addend.map(|addend| addend.load(place)),
            Residual::InPlace => Some(out.load(place)),
        };
        let terms = (0..).zip(terms).map(|(slot, y)| {
            let (_, weight) = routing.load(first + slot);
            y * b.splat(weight)
        });
        let sum = start.into_iter().chain(terms).reduce(|sum, term| sum + term);
        out.store(place, sum.expect("at least one expert"));
    });
}
