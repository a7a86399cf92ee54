//! Expected numbers were computed in double precision from the formulas, by hand-written Python loops.

use super::*;

pub fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let tolerance = 2e-6 * expected.abs().max(1.0);
        assert!(
            (found - expected).abs() <= tolerance,
            "element {i}: expected {expected}, found {found}"
        );
    }
}

const X: [f32; 7] = [-3.5, -1.0, -0.1, 0.0, 0.5, 2.0, 8.0];

fn assert_unary(function: Unary, expected: [f32; 7]) {
    assert_close(&X.map(|x| unary(function, x)), &expected);
}

#[test]
fn silu_is_x_times_sigmoid() {
    assert_unary(
        Unary::Silu,
        [-0.1025928, -0.2689414, -0.04750208, 0.0, 0.3112297, 1.761594, 7.997317],
    );
}

#[test]
fn the_two_gelus_differ() {
    assert_unary(
        Unary::GeluTanh,
        [-0.0006161977, -0.158808, -0.04601725, 0.0, 0.345714, 1.954598, 8.0],
    );
    assert_unary(
        Unary::GeluErf,
        [-0.0008142018, -0.1586553, -0.04601722, 0.0, 0.3457312, 1.9545, 8.0],
    );
}

#[test]
fn sigmoid_tanh_and_relu() {
    assert_unary(
        Unary::Sigmoid,
        [0.02931223, 0.2689414, 0.4750208, 0.5, 0.6224593, 0.8807971, 0.9996646],
    );
    assert_unary(
        Unary::Tanh,
        [
            -0.9981779,
            -0.7615942,
            -0.09966799,
            0.0,
            0.4621172,
            0.9640276,
            0.9999998,
        ],
    );
    assert_unary(Unary::Relu, [0.0, 0.0, 0.0, 0.0, 0.5, 2.0, 8.0]);
}

#[test]
fn erf_at_its_ends() {
    // erf(0.1), erf(2), erf(5.9): NIST DLMF table 7.23; the rest by symmetry.
    assert_close(
        &[0.1, 2.0, 5.9, -2.0, 7.0, f32::NEG_INFINITY].map(erf),
        &[0.1124629, 0.9953223, 1.0, -0.9953223, 1.0, -1.0],
    );
    assert!(erf(f32::NAN).is_nan());
}

#[test]
fn softcap_bends_towards_the_cap() {
    assert_close(
        &X.map(|x| softcap(x, 2.0)),
        &[-1.882751, -0.9242343, -0.09991675, 0.0, 0.4898373, 1.523188, 1.998659],
    );
}

#[test]
fn binary_functions() {
    let all = [Binary::Add, Binary::Sub, Binary::Mul].map(|function| binary(function, 5.0, -2.0));
    assert_eq!(all, [3.0, 7.0, -10.0]);
}

#[test]
fn dot_counts_every_element_once() {
    for len in 0..40 {
        let a: Vec<f32> = (0..len).map(|i| i as f32).collect();
        let b: Vec<f32> = (0..len).map(|i| i as f32 + 1.0).collect();
        // Σ i (i + 1) for i < n is (n - 1) n (n + 1) / 3.
        let expected = (len.max(1) - 1) * len * (len + 1) / 3;
        assert_eq!(dot(&a, &b), expected as f32, "length {len}");
    }
}

#[test]
fn gather_takes_rows() {
    let table = [0.0, 0.1, 1.0, 1.1, 2.0, 2.1];
    assert_eq!(gather(&table, 2, &[2, 0, 2]), [2.0, 2.1, 0.0, 0.1, 2.0, 2.1]);
}

#[test]
fn linear_multiplies_by_the_transpose() {
    let x = [1.0, 2.0, 3.0, -1.0, 0.5, 0.0];
    let weight = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0];
    assert_eq!(linear(&x, &weight, None, 3), [1.0, 5.0, -1.0, 0.5]);
    assert_eq!(linear(&x, &weight, Some(&[10.0, 20.0]), 3), [11.0, 25.0, 9.0, 20.5]);
}

#[test]
fn linear_of_many_rows_keeps_their_order() {
    // Row `o` of the weight is `[o, o + 1, o + 2]`.
    let weight: Vec<f32> = (0..100).flat_map(|o| [o, o + 1, o + 2]).map(|w| w as f32).collect();
    let y = linear(&[1.0, 0.0, 0.0, 0.0, 0.0, 2.0], &weight, None, 3);
    for o in 0..100 {
        assert_eq!((y[o], y[100 + o]), (o as f32, 2.0 * (o as f32 + 2.0)));
    }
}

#[test]
fn rms_norm_uses_eps_and_offset() {
    let x = [1.0, -2.0, 3.0, 0.5, 0.01, 0.02, -0.01, 0.0];
    let weight = [0.5, 1.0, -1.0, 2.0];
    assert_close(
        &rms_norm(&x, &weight, 1e-5, false),
        &[
            0.2649061, -1.059624, -1.589437, 0.5298122, 0.3952847, 1.581139, 0.7905694, 0.0,
        ],
    );
    assert_close(
        &rms_norm(&x, &weight, 0.02, true),
        &[0.792498, -2.113328, 0.0, 0.792498, 0.1056705, 0.281788, 0.0, 0.0],
    );
}

#[test]
fn rope_pairs_halves_of_the_rotated_part() {
    let spec = RopeSpec {
        name: "rope".to_string(),
        inv_freq: vec![1.0, 0.1],
        attention_factor: 1.5,
    };
    // Two tokens at positions 3 and 4, two heads of 6, of which the first 4 are rotated.
    let x = [
        1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -1.0, 0.0, 1.0, 0.5, 2.0, -2.0, 0.0, 1.0, 0.0, -1.0, 7.0, 8.0, 2.0, 2.0, 2.0,
        2.0, 9.0, 9.0,
    ];
    assert_close(
        &rope(&x, 2, 6, 3, &spec),
        &[
            -2.120029, 1.092888, -4.243286, 6.61858, 5.0, 6.0, 1.273309, -0.2216402, -1.696669, 0.7165024, 2.0, -2.0,
            0.0, 1.965719, 0.0, -0.797464, 7.0, 8.0, 0.3094766, 1.594928, -4.231338, 3.931438, 9.0, 9.0,
        ],
    );
}

/// Two tokens at positions 1 and 2; 4 query heads, 2 key-value heads, 2 elements each.
fn attend(window: Option<usize>, softcap: Option<f32>) -> Vec<f32> {
    attend_with(None, window, softcap)
}

fn attend_with(sinks: Option<&[f32]>, window: Option<usize>, softcap: Option<f32>) -> Vec<f32> {
    let q = [
        1.0, 0.0, 0.0, 1.0, 1.0, 1.0, -1.0, 2.0, 0.5, -0.5, 2.0, 0.0, 0.0, -2.0, 1.0, 3.0,
    ];
    let keys = [1.0, 2.0, 0.0, 1.0, -1.0, 1.0, 2.0, 0.0, 0.5, 0.5, 1.0, -1.0];
    let values = [1.0, -2.0, 2.0, 5.0, 3.0, 0.0, 4.0, -1.0, 5.0, 7.0, 6.0, 1.0];
    let shape = AttentionSizes {
        heads: 4,
        kv_heads: 2,
        width: 2,
    };
    let spec = AttentionSpec {
        scale: 0.7,
        window,
        softcap,
    };
    attention(&q, &keys, &values, sinks, 1, shape, &spec)
}

#[test]
fn attention_is_causal_and_grouped() {
    assert_close(
        &attend(None, None),
        &[
            1.3956322, -1.6043678, 1.6636245, -1.3363755, 3.3363755, 0.9908734, 2.1146484, 4.656_055, 3.268_31,
            2.5397226, 2.3535172, 0.9477986, 5.436_722, 0.8088172, 2.7296128, 2.9693892,
        ],
    );
}

#[test]
fn a_window_counts_the_token_itself() {
    assert_close(
        &attend(Some(2), None),
        &[
            1.3956322, -1.6043678, 1.6636245, -1.3363755, 3.3363755, 0.9908734, 2.1146484, 4.656_055, 4.3363755,
            4.6773144, 4.7818064, 6.2363223, 5.6043678, 0.6043678, 4.1146484, -0.8853516,
        ],
    );
    // A window of one sees nothing but the token's own value.
    let own = [3.0, 0.0, 3.0, 0.0, 4.0, -1.0, 4.0, -1.0];
    assert_close(&attend(Some(1), None)[..8], &own);
}

#[test]
fn attention_softcaps_scaled_scores() {
    assert_close(
        &attend(None, Some(1.0)),
        &[
            1.4598497, -1.5401503, 1.8604252, -1.1395748, 3.1395748, 1.5812755, 2.2909098, 4.1272707, 3.2526968,
            2.4643282, 2.7455302, 1.7064159, 5.0485166, 0.9088408, 3.1867225, 2.0426135,
        ],
    );
}

#[test]
fn sinks_take_their_share_and_give_nothing() {
    let sinks = [0.5, -1.0, 3.0, 0.0];
    assert_close(
        &attend_with(Some(&sinks), None, None),
        &[
            0.8423801, -0.9683693, 1.568545, -1.259999, 0.7741809, 0.2299247, 1.715793, 3.777852, 1.868689, 1.452112,
            2.223971, 0.8956284, 1.135385, 0.1689104, 2.526938, 2.748911,
        ],
    );
    // Neither capped nor out of the window.
    assert_close(
        &attend_with(Some(&sinks), Some(2), Some(1.0)),
        &[
            0.8619008, -0.9093106, 1.712342, -1.048869, 0.5487193, 0.2763675, 1.69376, 3.051454, 2.077924, 2.190827,
            3.979318, 4.907279, 0.78875, 0.06056463, 3.172438, -0.5242583,
        ],
    );
    // Larger than any score, and still no overflow.
    assert_close(&attend_with(Some(&[200.0; 4]), None, None), &[0.0; 16]);
}

#[test]
fn clamp_cuts_both_ends() {
    assert_eq!(X.map(|x| clamp(x, 1.5)), [-1.5, -1.0, -0.1, 0.0, 0.5, 1.5, 1.5]);
}

#[test]
fn scale_rows_scales_each_row() {
    let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    assert_eq!(scale_rows(&x, &[2.0, -1.0], 3), [2.0, 4.0, 6.0, -4.0, -5.0, -6.0]);
}

#[test]
fn slice_takes_columns() {
    let x = [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0];
    assert_eq!(slice(&x, 4, 1, 2), [1.0, 2.0, 11.0, 12.0]);
}
