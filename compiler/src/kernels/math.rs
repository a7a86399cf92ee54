//! Functions that WebGPU's own are too loose for, accurate to a few units in the last place of f32 on every device.
//!
//! Polynomials are Cephes' (Moshier 1992: `sinf.c`, `logf.c`, `tanhf.c`).

use super::builder::{Bool, F32};

/// 2/π in quarter turns times 2^30: the whole part, and the next 12 bits.
const QUARTERS_PER_RADIAN_HIGH: u32 = 683_565_275;
const QUARTERS_PER_RADIAN_LOW: u32 = 2_361;

/// Sine and cosine of an angle in radians, `0 <= angle < 2^20`, to about 2e-7. WebGPU's own are only good to 2^-11,
/// and that between -π and π.
///
/// The argument is reduced by quarter turns. Its whole part goes through fixed-point integers (units of 2^-30 of a
/// quarter, whole turns wrap), so that neither rounding nor a compiler's reordering of float arithmetic can lose bits.
pub fn sine_cosine<'b>(angle: F32<'b>) -> (F32<'b>, F32<'b>) {
    let radians = angle.cast::<u32>().named("radians");
    let phase = (radians * QUARTERS_PER_RADIAN_HIGH + ((radians * QUARTERS_PER_RADIAN_LOW) >> 12)).named("phase");
    let rest = angle - radians.cast::<f32>();
    let within = (phase & 0x3fff_ffff).cast::<f32>() * (0.5f32).powi(30) + rest * std::f32::consts::FRAC_2_PI;
    let within = within.named("within_quarter");
    let nearest = (within + 0.5).floor().named("nearest_quarter");
    let quarter = ((phase >> 30) + nearest.cast::<u32>()).named("quarter");
    let x = ((within - nearest) * std::f32::consts::FRAC_PI_2).named("reduced");
    let z = (x * x).named("reduced_squared");
    let sine = (((z * -1.951_529_6e-4 + 8.332_161e-3) * z - 0.166_666_55) * z * x + x).named("sine");
    let cosine = ((z * 2.443_315_7e-5 - 1.388_731_6e-3) * z + 4.166_664_6e-2) * z * z - z * 0.5 + 1.0;
    let cosine = cosine.named("cosine");
    let swapped = (quarter & 1).eq(1);
    let sine_negative = (quarter & 2).eq(2);
    let cosine_negative = ((quarter + 1) & 2).eq(2);
    let signed = |negative: Bool<'b>, value: F32<'b>| negative.select(-value, value);
    (
        signed(sine_negative, swapped.select(cosine, sine)),
        signed(cosine_negative, swapped.select(sine, cosine)),
    )
}

/// Hyperbolic tangent. WebGPU gives no bound for its own.
pub fn tanh<'b>(x: F32<'b>) -> F32<'b> {
    let magnitude = x.abs().named("magnitude");
    let z = (x * x).named("squared");
    let series = (((z * -5.704_988_7e-3 + 2.063_909e-2) * z - 5.373_971_6e-2) * z + 0.133_314_42) * z - 0.333_332_8;
    let small = series * z * x + x;
    let one = x.builder().literal(1.0);
    // From 10 on the result is 1 in f32; the bound keeps exp finite.
    let large = one - x.builder().literal(2.0) / ((magnitude.min(10.0) * 2.0).exp() + 1.0);
    let large = x.lt(0.0).select(-large, large);
    magnitude.lt(0.625).select(small, large)
}

/// Natural logarithm of a positive, normal number.
pub fn log(x: F32<'_>) -> F32<'_> {
    let bits = x.bitcast::<u32>().named("log_bits");
    // The exponent of x / sqrt(1/2), so that the mantissa lies in sqrt(1/2) .. sqrt(2).
    let exponent = ((bits + (ONE - SQRT_HALF)) >> 23).named("log_exponent");
    let mantissa = (bits + ONE - (exponent << 23)).bitcast::<f32>();
    log_of_parts(mantissa - 1.0, exponent.cast::<f32>() - 127.0)
}

/// `log(1 - x)` for `0 <= x < 1`, relatively accurate near 0.
pub fn log_one_minus(x: F32<'_>) -> F32<'_> {
    x.lt(0.25).select(
        log_of_parts(-x, x.builder().literal(0.0)),
        log(x.builder().literal(1.0) - x),
    )
}

/// `log(1 + x)` for `0 <= x <= 1`, relatively accurate near 0.
pub fn log_one_plus(x: F32<'_>) -> F32<'_> {
    x.lt(0.25)
        .select(log_of_parts(x, x.builder().literal(0.0)), log(x + 1.0))
}

const ONE: u32 = 1f32.to_bits();
const SQRT_HALF: u32 = std::f32::consts::FRAC_1_SQRT_2.to_bits();

/// `log((1 + x) · 2^exponent)` for `1 + x` in sqrt(1/2) .. sqrt(2).
fn log_of_parts<'b>(x: F32<'b>, exponent: F32<'b>) -> F32<'b> {
    const COEFFICIENTS: [f32; 8] = [
        -0.115_146_1,
        0.116_769_99,
        -0.124_201_41,
        0.142_493_23,
        -0.166_680_58,
        0.200_007_15,
        -0.249_999_94,
        0.333_333_3,
    ];
    let x = x.named("log_rest");
    let z = (x * x).named("log_rest_squared");
    let series = COEFFICIENTS.iter().fold(x * 0.070_376_836, |sum, &c| (sum + c) * x);
    // ln 2 in two parts, the first with few bits.
    series * z - exponent * 2.121_944_4e-4 - z * 0.5 + x + exponent * 0.693_359_4
}
