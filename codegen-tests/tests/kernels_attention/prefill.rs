use kiln_codegen_tests::Random;
use kiln_compiler::kernels::{AttentionPrefillSpec, AttentionShape, CacheSpec, CacheType, KernelSpec};

use crate::reference::*;
use crate::support::{close, numbers, run_each};

/// Scores reach 30, where numbers in f32 lie 2e-6 apart: so far off may the weights be, relative to themselves.
const TOLERANCE: f64 = 2e-6;

pub fn shape(heads: u32, kv_heads: u32, width: u32) -> AttentionShape {
    let cache = CacheSpec {
        kv_heads,
        width,
        ring: None,
        element: CacheType::F32,
    };
    let scale = 1.0 / (width as f32).sqrt();
    AttentionShape {
        heads,
        cache,
        scale,
        window: None,
        softcap: None,
        sinks: false,
    }
}

/// `tokens` tokens from `position` on, over a cache that holds all positions before and theirs (or its last ones).
fn case(attention: AttentionShape, tokens: u32, position: u32) {
    let layout = attention.cache;
    let mut random = Random(u64::from(layout.width * tokens + position));
    let width = layout.width as usize;
    // Large products, so that the softmax is far from flat.
    let q: Vec<f32> = random
        .numbers((tokens * attention.heads) as usize * width)
        .iter()
        .map(|x| 4.0 * x)
        .collect();
    let slots = layout.ring.unwrap_or(position + tokens);
    let cache: Vec<f32> = random
        .numbers((slots * 2 * layout.kv_heads) as usize * width)
        .iter()
        .map(|&x| cache_rounded(&layout, x))
        .collect();
    let mut expected = Vec::new();
    for (index, query) in (0u32..).zip(q.chunks(width)) {
        let (token, head) = (index / attention.heads, index % attention.heads);
        expected.extend(super::reference::attention(
            &attention,
            query,
            &cache,
            position + token,
            head,
        ));
    }
    let out = vec![0f32; q.len()];
    let mut buffers = vec![(&q).into(), cache_data(&layout, &cache)];
    if attention.sinks {
        buffers.push((&sinks(attention.heads)).into());
    }
    buffers.extend([step_at(position, tokens), (&out).into()]);
    let spec = KernelSpec::AttentionPrefill(AttentionPrefillSpec { attention });
    run_each(&spec, &buffers, tokens, |kernel, outputs| {
        close(kernel, &numbers(outputs.last().expect("out")), &expected, TOLERANCE);
    });
}

#[test]
fn prefill_of_all_head_shapes() {
    for (heads, kv_heads, width) in [
        (1, 1, 20),
        (4, 2, 32),
        (9, 3, 64),
        (4, 1, 80),
        (4, 2, 128),
        (2, 1, 256),
        (2, 2, 30),
        // No whole fours, and values in two slices.
        (1, 1, 66),
    ] {
        case(shape(heads, kv_heads, width), 70, 0);
    }
}

#[test]
fn prefill_of_any_chunking() {
    for (tokens, position) in [(1, 0), (1, 1), (1, 95), (31, 1), (32, 32), (33, 63), (5, 300)] {
        case(shape(4, 2, 32), tokens, position);
    }
}

#[test]
fn prefill_with_windows() {
    for (window, tokens, position) in [(1, 40, 0), (16, 70, 0), (16, 3, 200), (33, 64, 100), (500, 40, 7)] {
        case(
            AttentionShape {
                window: Some(window),
                ..shape(2, 1, 32)
            },
            tokens,
            position,
        );
    }
}

#[test]
fn prefill_over_rings_that_wrap() {
    for (tokens, position) in [(40, 0), (40, 40), (40, 1_000), (1, 129)] {
        let mut shape = AttentionShape {
            window: Some(24),
            ..shape(4, 2, 64)
        };
        shape.cache.ring = Some(64);
        case(shape, tokens, position);
    }
}

#[test]
fn prefill_with_softcap() {
    for softcap in [2.0, 50.0] {
        case(
            AttentionShape {
                softcap: Some(softcap),
                scale: 0.5,
                ..shape(2, 1, 64)
            },
            40,
            10,
        );
    }
}

#[test]
fn prefill_over_f16_caches() {
    for (width, ring) in [(20, None), (64, Some(96)), (128, None), (30, None)] {
        let mut shape = AttentionShape {
            window: Some(50),
            ..shape(4, 2, width)
        };
        shape.cache = CacheSpec {
            ring,
            element: CacheType::F16,
            ..shape.cache
        };
        case(shape, 40, 77);
    }
}

#[test]
fn prefill_with_sinks() {
    let sinking = |heads, kv_heads, width| AttentionShape {
        sinks: true,
        ..shape(heads, kv_heads, width)
    };
    for (heads, kv_heads, width) in [(5, 5, 20), (4, 2, 64), (6, 3, 30)] {
        case(sinking(heads, kv_heads, width), 40, 0);
        case(sinking(heads, kv_heads, width), 33, 150);
    }
    let mut over_ring = AttentionShape {
        window: Some(24),
        softcap: Some(20.0),
        ..sinking(10, 2, 32)
    };
    over_ring.cache.ring = Some(64);
    case(over_ring.clone(), 40, 40);
    over_ring.cache.element = CacheType::F16;
    case(over_ring, 1, 1_000);
}
