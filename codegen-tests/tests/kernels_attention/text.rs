//! The text that people review.

use kiln_compiler::kernels::*;

use crate::prefill::shape;

#[test]
fn text_of_prefill_attention() {
    let attention = AttentionShape {
        window: Some(128),
        ..shape(4, 2, 64)
    };
    let spec = KernelSpec::AttentionPrefill(AttentionPrefillSpec { attention });
    insta::assert_snapshot!(build(&spec, Capability::Base).expect("a valid spec").wgsl);
}

#[test]
fn text_of_rope_and_cache() {
    let cache = CacheSpec {
        kv_heads: 2,
        width: 64,
        ring: Some(1024),
        element: CacheType::F16,
    };
    let norm = Some((1e-6, true));
    let spec = RopeCacheSpec {
        heads: 4,
        cache,
        stride: 8 * 64,
        rotary: 64,
        attention_factor: 1.0,
        norm,
    };
    insta::assert_snapshot!(
        build(&KernelSpec::RopeCache(spec), Capability::F16)
            .expect("a valid spec")
            .wgsl
    );
}

#[test]
fn text_of_join_with_sinks() {
    let spec = AttentionReduceSpec {
        heads: 4,
        width: 64,
        splits: 16,
        sinks: true,
    };
    insta::assert_snapshot!(
        build(&KernelSpec::AttentionReduce(spec), Capability::Base)
            .expect("a valid spec")
            .wgsl
    );
}

#[test]
fn text_of_convolutions() {
    let lies = |part: u32| Strided {
        stride: 3 * 512,
        offset: part * 512,
    };
    let step = ConvolutionSpec {
        channels: 512,
        taps: 3,
        ring: 66,
        x: lies(2),
        gate_in: Some(lies(0)),
        gate_out: Some(lies(1)),
        bias: false,
        activation: None,
        writes_state: true,
    };
    let state = ConvolutionStateSpec {
        channels: 512,
        ring: 66,
        x: lies(2),
        gate_in: Some(lies(0)),
    };
    for spec in [KernelSpec::Convolution(step), KernelSpec::ConvolutionState(state)] {
        insta::assert_snapshot!(build(&spec, Capability::Base).expect("a valid spec").wgsl);
    }
}

#[test]
fn text_of_gated_delta() {
    let lies = |offset: u32| Strided { stride: 256, offset };
    let gates = Strided { stride: 2, offset: 0 };
    let spec = GatedDeltaSpec {
        key_heads: 1,
        value_heads: 2,
        key_dim: 64,
        value_dim: 64,
        q: lies(0),
        k: lies(64),
        v: lies(128),
        a: gates,
        b: gates,
        single: false,
    };
    let single = GatedDeltaSpec {
        single: true,
        ..spec.clone()
    };
    for (spec, variant) in [(spec, Capability::Subgroups), (single, Capability::Base)] {
        insta::assert_snapshot!(
            build(&KernelSpec::GatedDelta(spec), variant)
                .expect("a valid spec")
                .wgsl
        );
    }
}
