use kiln_codegen_tests::Random;
use kiln_compiler::kernels::{
    AttentionPrefillSpec, AttentionReduceSpec, AttentionShape, AttentionSplitSpec, CacheSpec, CacheType, Capability,
    KernelSpec, build,
};

use crate::reference::*;
use crate::support::{close, numbers, run_each};

/// Sums of up to some hundred products in f32, and exponentials good to a few units in the last place.
const TOLERANCE: f64 = 1e-5;

/// Runs split and join in turn for the token at `position`.
fn case(attention: AttentionShape, splits: u32, position: u32) {
    let layout = attention.cache;
    let (heads, width) = (attention.heads, layout.width);
    let mut random = Random(u64::from(position * 31 + width));
    let slots = layout.ring.unwrap_or(position + 1);
    let q = random.numbers((heads * width) as usize);
    let cache: Vec<f32> = random
        .numbers((slots * 2 * layout.kv_heads * width) as usize)
        .into_iter()
        .map(|x| cache_rounded(&layout, x))
        .collect();
    let expected: Vec<f64> = (0..heads)
        .flat_map(|head| {
            let q = &q[(head * width) as usize..][..width as usize];
            self::attention(&attention, q, &cache, position, head)
        })
        .collect();
    let partials = vec![f32::NAN; (heads * splits * (width + 2)) as usize];
    let buffers = [
        (&q).into(),
        cache_data(&layout, &cache),
        step_at(position, 1),
        (&partials).into(),
    ];
    let split = KernelSpec::AttentionSplit(AttentionSplitSpec {
        attention: attention.clone(),
        splits,
    });
    run_each(&split, &buffers, 1, |_, outputs| {
        let partials = numbers(&outputs[3]);
        let out = vec![f32::NAN; expected.len()];
        let join = KernelSpec::AttentionReduce(AttentionReduceSpec {
            heads,
            width,
            splits,
            sinks: attention.sinks,
        });
        let mut buffers = vec![(&partials).into()];
        if attention.sinks {
            buffers.push((&sinks(heads)).into());
        }
        buffers.push((&out).into());
        run_each(&join, &buffers, 1, |kernel, outputs| {
            close(kernel, &numbers(outputs.last().expect("out")), &expected, TOLERANCE);
        });
    });
}

fn shape(heads: u32, kv_heads: u32, width: u32) -> AttentionShape {
    AttentionShape {
        heads,
        cache: CacheSpec {
            kv_heads,
            width,
            ring: None,
            element: CacheType::F32,
        },
        scale: 1.0 / (width as f32).sqrt(),
        window: None,
        softcap: None,
        sinks: false,
    }
}

#[test]
fn parts_of_the_cache_add_up() {
    for (heads, kv_heads, width) in [
        (1, 1, 64),
        (9, 3, 64),
        (4, 1, 256),
        (4, 2, 20),
        (2, 2, 30),
        (2, 1, 80),
        (8, 1, 64),
        (6, 2, 128),
        // Groups that no workgroup holds: 3 and 2, 4 and 3, three times 3, 4, 4 and 3.
        (5, 1, 48),
        (10, 2, 64),
        (14, 2, 64),
        (7, 1, 20),
        (9, 1, 32),
        (11, 1, 32),
    ] {
        for position in [0, 3, 130, 700] {
            case(shape(heads, kv_heads, width), 4, position);
        }
    }
}

#[test]
fn parts_may_be_empty_or_one() {
    case(shape(2, 1, 32), 1, 300);
    case(shape(2, 1, 32), 16, 5);
    case(shape(2, 1, 32), 7, 13);
}

#[test]
fn decode_in_a_window_over_a_ring() {
    for position in [0, 6, 7, 40, 95] {
        let mut windowed = shape(4, 2, 32);
        windowed.window = Some(7);
        windowed.cache.ring = Some(24);
        case(windowed, 3, position);
    }
}

#[test]
fn decode_with_softcap_and_half_precision_cache() {
    let mut capped = shape(4, 2, 64);
    capped.softcap = Some(0.5);
    case(capped.clone(), 4, 77);
    capped.cache.element = CacheType::F16;
    case(capped, 4, 77);
    let mut odd = shape(2, 2, 30);
    odd.cache.element = CacheType::F16;
    case(odd, 4, 200);
}

#[test]
fn decode_with_sinks() {
    for (heads, kv_heads, width) in [(5, 5, 20), (4, 1, 64)] {
        let mut sinking = shape(heads, kv_heads, width);
        sinking.sinks = true;
        // Also with parts that are empty, and with one.
        for (splits, position) in [(4, 300), (16, 5), (1, 0)] {
            case(sinking.clone(), splits, position);
        }
        sinking.window = Some(7);
        sinking.cache.ring = Some(24);
        sinking.cache.element = CacheType::F16;
        case(sinking, 3, 95);
    }
}

#[test]
fn sinks_are_in_the_names() {
    let mut sinking = shape(4, 2, 64);
    sinking.sinks = true;
    let name = |spec| build(&spec, Capability::Base).expect("a valid spec").name;
    let prefill = |attention| name(KernelSpec::AttentionPrefill(AttentionPrefillSpec { attention }));
    let join = |sinks| {
        name(KernelSpec::AttentionReduce(AttentionReduceSpec {
            heads: 4,
            width: 64,
            splits: 8,
            sinks,
        }))
    };
    assert_ne!(prefill(shape(4, 2, 64)), prefill(sinking));
    assert_ne!(join(false), join(true));
}
