//! Where keys and values lie in a cache, and the kernel that appends them.

use half::f16;
use kiln_bundle::Access;

use super::builder::{Builder, Float, KernelError, KernelSource, Kind, U32, Value};
use super::names::strided;
use super::step::Step;
use super::{CacheSpec, CacheType, CacheWriteSpec, Capability, Strided};

/// A plane of the cache.
#[derive(Clone, Copy, Debug)]
pub enum Plane {
    Keys = 0,
    Values = 1,
}

impl CacheSpec {
    /// As in kernel names: `kv3x64`, `kv3x64_ring1024`, `kv3x64_f16`.
    pub(super) fn name(&self) -> String {
        let ring = self.ring.map(|ring| format!("_ring{ring}")).unwrap_or_default();
        let element = match self.element {
            CacheType::F32 => "",
            CacheType::F16 => "_f16",
        };
        format!("kv{}x{}{ring}{element}", self.kv_heads, self.width)
    }

    /// Vectors of four fit the rows.
    pub(super) fn by_fours(&self) -> bool {
        self.width.is_multiple_of(4)
    }

    /// Index of the first element of a head's row at `position`, in elements of `lanes` numbers.
    pub(super) fn row<'b>(&self, position: U32<'b>, plane: Plane, kv_head: U32<'b>, lanes: u32) -> U32<'b> {
        let slot = match self.ring {
            Some(ring) => position % ring,
            None => position,
        };
        ((slot * 2 + plane as u32) * self.kv_heads + kv_head) * (self.width / lanes)
    }

    /// f16 caches need f16 storage.
    pub(super) fn check(&self, kernel: &str, capability: Capability) -> Result<(), KernelError> {
        if self.element == CacheType::F16 && capability < Capability::F16 {
            return Err(KernelError::Unsupported {
                kernel: kernel.into(),
                what: format!("an f16 cache needs the f16 capability, not {capability:?}"),
            });
        }
        Ok(())
    }
}

/// `value` as another type of the same size; nothing is written where it has that type already.
pub fn convert<'b, T: Kind, U: Kind>(value: Value<'b, T>) -> Value<'b, U> {
    match T::SCALAR == U::SCALAR {
        true => value.same(),
        false => value.cast(),
    }
}

pub fn build(spec: &CacheWriteSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    let CacheWriteSpec { cache, k, v } = spec;
    let row = cache.kv_heads * cache.width;
    let name = format!("cache_write_{}{}{}", cache.name(), strided(*k, row), strided(*v, row));
    cache.check(&name, capability)?;
    let by_fours = cache.by_fours() && [k, v].iter().all(|x| x.stride % 4 == 0 && x.offset % 4 == 0);
    let b = Builder::new(name, 64, capability);
    match (by_fours, cache.element) {
        (true, CacheType::F32) => body::<[f32; 4], [f32; 4]>(&b, spec, 4),
        (true, CacheType::F16) => body::<[f32; 4], [f16; 4]>(&b, spec, 4),
        (false, CacheType::F32) => body::<f32, f32>(&b, spec, 1),
        (false, CacheType::F16) => body::<f32, f16>(&b, spec, 1),
    }
    b.finish()
}

/// One head of one token.
fn body<T: Float, C: Float>(b: &Builder, spec: &CacheWriteSpec, lanes: u32) {
    let k = b.storage::<T>("k", Access::Read);
    let v = b.storage::<T>("v", Access::Read);
    let step = Step::bind(b);
    let cache = b.storage::<C>("cache", Access::ReadWrite);

    let (head, token) = (b.group().x(), b.group().y());
    let position = step.position_of(token);
    let elements = spec.cache.width / lanes;
    let key_source = head_start(spec.k, token, head, elements, lanes).named("key_source");
    let value_source = head_start(spec.v, token, head, elements, lanes).named("value_source");
    let key_row = spec.cache.row(position, Plane::Keys, head, lanes).named("key_row");
    let value_row = spec.cache.row(position, Plane::Values, head, lanes).named("value_row");
    b.range("i", b.thread(), elements, b.workgroup(), |i| {
        cache.store(key_row + i, convert::<T, C>(k.load(key_source + i)));
        cache.store(value_row + i, convert::<T, C>(v.load(value_source + i)));
    });
}

/// Index of the first element of a head of a token in a strided tensor, in elements of `lanes` numbers.
pub fn head_start<'b>(x: Strided, token: U32<'b>, head: U32<'b>, elements: u32, lanes: u32) -> U32<'b> {
    token * (x.stride / lanes) + head * elements + x.offset / lanes
}
