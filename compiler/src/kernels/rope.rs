//! Rotary position embedding (Su et al. 2021), half-split as Hugging Face stores it.

use kiln_bundle::Access;

use super::builder::{Array, Builder, F32, KernelError, KernelSource, U32};
use super::cache::head_start;
use super::math::sine_cosine;
use super::names::{number, strided};
use super::step::Step;
use super::{Capability, RopeKernelSpec};

/// As in kernel names: `64`, `32of64` (elements past the first 32 pass through), `64_factor1p2`.
pub fn rotary_name(rotary: u32, width: u32, attention_factor: f32) -> String {
    let part = if rotary == width {
        format!("{width}")
    } else {
        format!("{rotary}of{width}")
    };
    match attention_factor {
        1.0 => part,
        factor => format!("{part}_factor{}", number(factor)),
    }
}

/// The pair `(first, second)` turned by `position · frequency` and scaled.
pub fn rotate<'b>(
    [first, second]: [F32<'b>; 2],
    position: U32<'b>,
    frequency: F32<'b>,
    attention_factor: f32,
) -> [F32<'b>; 2] {
    let (sine, cosine) = sine_cosine((position.cast::<f32>() * frequency).named("angle"));
    let sine = (sine * attention_factor).named("sine_scaled");
    let cosine = (cosine * attention_factor).named("cosine_scaled");
    [first * cosine - second * sine, second * cosine + first * sine]
}

pub fn build(spec: &RopeKernelSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    let RopeKernelSpec {
        heads,
        width,
        rotary,
        attention_factor,
        x,
    } = *spec;
    let name = format!(
        "rope_{heads}x{}{}",
        rotary_name(rotary, width, attention_factor),
        strided(x, heads * width)
    );
    let b = Builder::new(name, if width <= 128 { 32 } else { 64 }, capability);
    body(&b, spec);
    b.finish()
}

/// One head of one token.
fn body(b: &Builder, spec: &RopeKernelSpec) {
    let x = b.storage::<f32>("x", Access::Read);
    let inv_freq: Array<'_, f32> = b.storage("inv_freq", Access::Read);
    let step = Step::bind(b);
    let out = b.storage::<f32>("out", Access::ReadWrite);

    let (head, token) = (b.group().x(), b.group().y());
    let source = head_start(spec.x, token, head, spec.width, 1).named("source");
    let destination = ((token * spec.heads + head) * spec.width).named("destination");
    let position = step.position_of(token);
    let pairs = spec.rotary / 2;
    b.range("i", b.thread(), pairs, b.workgroup(), |i| {
        let pair = [x.load(source + i), x.load(source + i + pairs)];
        let [first, second] = rotate(pair, position, inv_freq.load(i), spec.attention_factor);
        out.store(destination + i, first);
        out.store(destination + i + pairs, second);
    });
    if spec.rotary < spec.width {
        b.range("j", b.thread() + spec.rotary, spec.width, b.workgroup(), |i| {
            out.store(destination + i, x.load(source + i));
        });
    }
}
