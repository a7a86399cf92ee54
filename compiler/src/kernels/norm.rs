//! RMS norm of rows (Zhang & Sennrich 2019): `x / sqrt(mean(x²) + eps) · weight`.

use kiln_bundle::Access;

use super::builder::{Builder, Float, KernelError, KernelSource, Reduction};
use super::names::{flag, number};
use super::{Capability, NormSpec};

/// Threads for rows up to this many elements, else [`WIDE`].
const NARROW: u32 = 64;
const WIDE: u32 = 256;

impl NormSpec {
    fn name(&self) -> String {
        let NormSpec {
            width,
            per_token,
            eps,
            unit_offset,
            add,
            x_stride,
            x_offset,
        } = self;
        format!(
            "norm_{width}{}{}{}{}_eps{}",
            if *per_token == 1 {
                String::new()
            } else {
                format!("x{per_token}")
            },
            if *x_stride == width * per_token && *x_offset == 0 {
                String::new()
            } else {
                format!("_at{x_offset}of{x_stride}")
            },
            flag(*unit_offset, "_unit"),
            flag(*add, "_add"),
            number(*eps),
        )
    }
}

pub fn build(spec: &NormSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    let lanes_of_4 = [spec.width, spec.x_stride, spec.x_offset].iter().all(|n| n % 4 == 0);
    let elements = if lanes_of_4 { spec.width / 4 } else { spec.width };
    let workgroup = if elements <= 2 * NARROW { NARROW } else { WIDE };
    let b = Builder::new(spec.name(), workgroup, capability);
    if lanes_of_4 {
        body::<[f32; 4]>(&b, spec, 4);
    } else {
        body::<f32>(&b, spec, 1);
    }
    b.finish()
}

/// One row, read as elements of type `T` that hold `lanes` numbers each.
fn body<T: Float<Component = f32>>(b: &Builder, spec: &NormSpec, lanes: u32) {
    let x = b.storage::<T>("x", Access::Read);
    let weight = b.storage::<T>("weight", Access::Read);
    let out = b.storage::<T>("out", Access::ReadWrite);

    let elements = b.constant("ELEMENTS", spec.width / lanes);
    let (row, token) = (b.group().x(), b.group().y());
    let source = (token * (spec.x_stride / lanes) + spec.x_offset / lanes + row * elements).named("source");
    let destination = ((token * spec.per_token + row) * elements).named("destination");

    let squares = b.variable("squares", 0.0);
    b.range("i", b.thread(), elements, b.workgroup(), |i| {
        let value = x.load(source + i).named("value");
        squares.add(value.dot(value));
    });
    let sum = b.reduce_one("partial_squares", Reduction::Sum, squares.load());
    let mean = sum * (1.0 / spec.width as f32);
    let scale = b.splat::<T>((mean + spec.eps).inverse_sqrt()).named("scale");

    b.range("j", b.thread(), elements, b.workgroup(), |i| {
        let mut factor = weight.load(i);
        if spec.unit_offset {
            factor = factor + b.splat(1.0);
        }
        let normed = x.load(source + i) * scale * factor;
        let place = out.at(destination + i);
        place.store(if spec.add { place.load() + normed } else { normed });
    });
}
