use kiln_codegen_tests::{Data, Random};
use kiln_compiler::kernels::{CacheSpec, CacheType, CacheWriteSpec, KernelSource, KernelSpec, RopeCacheSpec, Strided};

use crate::reference::*;
use crate::support::{close, numbers, run_each};

/// Outputs are up to about 3; keys also pass an f32 norm. An f16 cache has 11 bits.
fn tolerance(element: CacheType) -> f64 {
    match element {
        CacheType::F32 => 2e-6,
        CacheType::F16 => 5e-4,
    }
}

/// Compares the slots that a step should have written, and that all others are as before.
fn compare(kernel: &KernelSource, layout: &CacheSpec, before: &[f32], written: &[(usize, Vec<f64>)], bytes: &[u8]) {
    let mut expected: Vec<f64> = before.iter().map(|&x| f64::from(cache_rounded(layout, x))).collect();
    for (start, row) in written {
        expected[*start..][..row.len()].copy_from_slice(row);
    }
    let found = cache_numbers(layout, bytes);
    close(kernel, &found, &expected, tolerance(layout.element));
}

fn write_case(spec: CacheWriteSpec, tokens: u32, position: u32) {
    let layout = spec.cache;
    let mut random = Random(u64::from(position));
    let slots = layout.ring.unwrap_or(position + tokens + 2);
    let k = random.numbers((tokens * spec.k.stride) as usize);
    let v = random.numbers((tokens * spec.v.stride) as usize);
    let before = random.numbers((slots * 2 * layout.kv_heads * layout.width) as usize);
    let mut written = Vec::new();
    for token in 0..tokens {
        for head in 0..layout.kv_heads {
            for (plane, x, at) in [(0, &k, spec.k), (1, &v, spec.v)] {
                let start = (token * at.stride + at.offset + head * layout.width) as usize;
                let row = x[start..start + layout.width as usize]
                    .iter()
                    .map(|&x| f64::from(x))
                    .collect();
                written.push((cache_row(&layout, position + token, plane, head), row));
            }
        }
    }
    let buffers = [
        (&k).into(),
        (&v).into(),
        step_at(position, tokens),
        cache_data(&layout, &before),
    ];
    run_each(&KernelSpec::CacheWrite(spec), &buffers, tokens, |kernel, outputs| {
        compare(kernel, &layout, &before, &written, &outputs[3]);
    });
}

#[test]
fn cache_write_appends_and_wraps() {
    for element in [CacheType::F32, CacheType::F16] {
        for (kv_heads, width, ring) in [(1, 20, None), (3, 64, Some(24)), (2, 80, Some(7)), (2, 30, None)] {
            let cache = CacheSpec {
                kv_heads,
                width,
                ring,
                element,
            };
            let dense = Strided {
                stride: kv_heads * width,
                offset: 0,
            };
            let tokens = ring.unwrap_or(9).min(9);
            write_case(
                CacheWriteSpec {
                    cache,
                    k: dense,
                    v: dense,
                },
                tokens,
                20,
            );
            let wide = |offset| Strided {
                stride: 4 * kv_heads * width,
                offset,
            };
            let spec = CacheWriteSpec {
                cache,
                k: wide(kv_heads * width),
                v: wide(2 * kv_heads * width),
            };
            write_case(spec, 1, 5);
        }
    }
}

fn fused_case(spec: RopeCacheSpec, tokens: u32, position: u32) {
    let layout = spec.cache;
    let (width, heads, kv_heads) = (layout.width as usize, spec.heads as usize, layout.kv_heads as usize);
    let mut random = Random(u64::from(position) + u64::from(layout.width));
    let slots = layout.ring.unwrap_or(position + tokens + 1);
    let per_token = (heads + 2 * kv_heads) * width;
    let qkv = random.numbers(tokens as usize * per_token);
    let norms = [random.numbers(width), random.numbers(width)];
    let frequencies = inv_freq(spec.rotary, 500_000.0);
    let before = random.numbers(slots as usize * 2 * kv_heads * width);
    let (mut queries, mut written) = (Vec::new(), Vec::new());
    for token in 0..tokens {
        let at = position + token;
        for slot in 0..heads + 2 * kv_heads {
            let start = token as usize * per_token + slot * width;
            let mut row: Vec<f64> = qkv[start..start + width].iter().map(|&x| f64::from(x)).collect();
            if slot < heads + kv_heads {
                if let Some((eps, unit_offset)) = spec.norm {
                    row = normed(&row, &norms[usize::from(slot >= heads)], eps, unit_offset);
                }
                row = rotated(row, at, &frequencies, spec.attention_factor);
            }
            match slot.checked_sub(heads) {
                None => queries.extend(row),
                Some(kv) => {
                    let (plane, head) = ((kv / kv_heads) as u32, (kv % kv_heads) as u32);
                    written.push((cache_row(&layout, at, plane, head), row));
                }
            }
        }
    }
    let mut buffers: Vec<Data> = vec![(&qkv).into()];
    if spec.norm.is_some() {
        buffers.extend([(&norms[0]).into(), (&norms[1]).into()]);
    }
    let q_out = vec![0f32; queries.len()];
    buffers.extend([
        (&frequencies).into(),
        step_at(position, tokens),
        (&q_out).into(),
        cache_data(&layout, &before),
    ]);
    let last = buffers.len() - 1;
    run_each(&KernelSpec::RopeCache(spec), &buffers, tokens, |kernel, outputs| {
        compare(kernel, &layout, &before, &written, &outputs[last]);
        close(
            kernel,
            &numbers(&outputs[last - 1]),
            &queries,
            tolerance(CacheType::F32),
        );
    });
}

#[test]
fn rope_cache_of_llama_like_layers() {
    for element in [CacheType::F32, CacheType::F16] {
        for (heads, kv_heads, width) in [(1, 1, 20), (4, 2, 32), (9, 3, 64), (4, 1, 80), (4, 2, 128), (2, 1, 256)] {
            let cache = CacheSpec {
                kv_heads,
                width,
                ring: None,
                element,
            };
            let spec = RopeCacheSpec {
                heads,
                cache,
                stride: (heads + 2 * kv_heads) * width,
                rotary: width,
                attention_factor: 1.0,
                norm: None,
            };
            fused_case(spec, 3, 11);
        }
    }
}

#[test]
fn rope_cache_with_head_norms_and_rings() {
    for element in [CacheType::F32, CacheType::F16] {
        for (unit_offset, rotary) in [(false, 64), (true, 64), (false, 16)] {
            let cache = CacheSpec {
                kv_heads: 2,
                width: 64,
                ring: Some(10),
                element,
            };
            let norm = Some((1e-6, unit_offset));
            let spec = RopeCacheSpec {
                heads: 6,
                cache,
                stride: 10 * 64,
                rotary,
                attention_factor: 1.1,
                norm,
            };
            fused_case(spec.clone(), 7, 15);
            fused_case(spec, 1, 4_000);
        }
    }
}
