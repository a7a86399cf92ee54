//! From stacked q, k and v to rotated q and the cache, in one dispatch.

use half::f16;
use kiln_bundle::Access;

use super::builder::{Array, Builder, F32, Float, KernelError, KernelSource, Reduction, U32};
use super::cache::{Plane, convert};
use super::names::{flag, number};
use super::rope::{rotary_name, rotate};
use super::step::Step;
use super::{CacheType, Capability, RopeCacheSpec};

impl RopeCacheSpec {
    fn name(&self) -> String {
        let rotary = rotary_name(self.rotary, self.cache.width, self.attention_factor);
        let norm = match self.norm {
            Some((eps, unit_offset)) => format!("_norm{}_eps{}", flag(unit_offset, "_unit"), number(eps)),
            None => String::new(),
        };
        let stride = match self.stride - (self.heads + 2 * self.cache.kv_heads) * self.cache.width {
            0 => String::new(),
            _ => format!("_of{}", self.stride),
        };
        format!("rope_cache_{}x{rotary}{norm}{stride}_{}", self.heads, self.cache.name())
    }
}

pub fn build(spec: &RopeCacheSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    spec.cache.check(&spec.name(), capability)?;
    let b = Builder::new(spec.name(), 64, capability);
    match spec.cache.element {
        CacheType::F32 => body::<f32>(&b, spec),
        CacheType::F16 => body::<f16>(&b, spec),
    }
    b.finish()
}

/// One head of one token; heads of q first, then of k, then of v.
fn body<'b, C: Float>(b: &'b Builder, spec: &RopeCacheSpec) {
    let RopeCacheSpec {
        heads,
        cache: layout,
        rotary,
        ..
    } = *spec;
    let width = layout.width;
    let qkv = b.storage::<f32>("qkv", Access::Read);
    let norms = spec.norm.map(|norm| {
        (
            norm,
            b.storage::<f32>("q_norm", Access::Read),
            b.storage::<f32>("k_norm", Access::Read),
        )
    });
    let inv_freq = b.storage::<f32>("inv_freq", Access::Read);
    let step = Step::bind(b);
    let q_out = b.storage::<f32>("q_out", Access::ReadWrite);
    let cache = b.storage::<C>("cache", Access::ReadWrite);

    let (head, token) = (b.group().x(), b.group().y());
    let source = (token * spec.stride + head * width).named("source");
    let position = step.position_of(token);
    let is_q = head.lt(heads).named("is_q");
    let is_v = head.ge(heads + layout.kv_heads).named("is_v");

    b.if_(is_v, || {
        let row = layout
            .row(position, Plane::Values, head - (heads + layout.kv_heads), 1)
            .named("value_row");
        b.range("i", b.thread(), width, b.workgroup(), |i| {
            cache.store(row + i, convert::<f32, C>(qkv.load(source + i)));
        });
        b.return_();
    });

    let scale = norms.map(|((eps, _), ..)| row_scale(b, qkv, source, width, eps));
    // Element `i` of the head, normed.
    let input = |i: U32<'b>| {
        let value = qkv.load(source + i);
        match (norms, scale) {
            (Some(((_, unit_offset), q_norm, k_norm)), Some(scale)) => {
                let mut weight = is_q.select(q_norm.load(i), k_norm.load(i));
                if unit_offset {
                    weight = weight + 1.0;
                }
                value * scale * weight
            }
            _ => value,
        }
    };
    let q_row = ((token * heads + head) * width).named("q_row");
    let key_row = layout.row(position, Plane::Keys, head - heads, 1).named("key_row");
    let write = |i: U32<'b>, value: F32<'b>| {
        b.if_else(
            is_q,
            || q_out.store(q_row + i, value),
            || cache.store(key_row + i, convert::<f32, C>(value)),
        );
    };
    let pairs = rotary / 2;
    b.range("pair", b.thread(), pairs, b.workgroup(), |i| {
        let inputs = [input(i).named("first"), input(i + pairs).named("second")];
        let [first, second] = rotate(inputs, position, inv_freq.load(i), spec.attention_factor);
        write(i, first.named("first_turned"));
        write(i + pairs, second.named("second_turned"));
    });
    if rotary < width {
        b.range("rest", b.thread() + rotary, width, b.workgroup(), |i| {
            write(i, input(i).named("unturned"))
        });
    }
}

/// What RMS norm multiplies a row with.
fn row_scale<'b>(b: &'b Builder, x: Array<'b, f32>, source: U32<'b>, width: u32, eps: f32) -> F32<'b> {
    let squares = b.variable("squares", 0.0);
    b.range("i", b.thread(), width, b.workgroup(), |i| {
        let value = x.load(source + i).named("value");
        squares.add(value * value);
    });
    let sum = b.reduce_one("partial_squares", Reduction::Sum, squares.load());
    (sum * (1.0 / width as f32) + eps).inverse_sqrt().named("scale")
}
