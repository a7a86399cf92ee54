use std::io::Write;
use std::process::ExitCode;

use anyhow::bail;
use kiln_bundle::{Feature, SelfTest, Variant};

use super::args::VerifyArgs;
use super::open::{self, FolderBundle};
use crate::{CancelToken, Device, DeviceOptions, Error, Session, Trust};

/// Largest error of a variant with 32-bit and with 16-bit arithmetic.
const TOLERANCE_F32: f32 = 1e-3;
const TOLERANCE_F16: f32 = 2e-2;

pub(super) async fn run(args: VerifyArgs, cancel: &CancelToken) -> anyhow::Result<ExitCode> {
    let bundle = open::bundle(&args.bundle).await?;
    let Some(test) = &bundle.manifest().self_test else {
        bail!("the bundle has no self-test; compile it without --no-weights");
    };
    let variants: Vec<&Variant> = match &args.variant {
        None => bundle.manifest().variants.iter().collect(),
        Some(name) => bundle
            .manifest()
            .variants
            .iter()
            .filter(|variant| variant.name == *name)
            .collect(),
    };
    if variants.is_empty() {
        let name = args.variant.unwrap_or_default();
        let available = bundle
            .manifest()
            .variants
            .iter()
            .map(|variant| variant.name.clone())
            .collect();
        return Err(Error::UnknownVariant { name, available }.into());
    }
    let mut out = std::io::stdout();
    let (mut ran, mut failed) = (0, 0);
    for variant in variants {
        let options = DeviceOptions {
            device: args.device.clone(),
            variant: Some(variant.name.clone()),
            ..DeviceOptions::default()
        };
        let device = match Device::open(bundle.manifest(), &options).await {
            Ok(device) => device,
            Err(error @ Error::Unsupported { .. }) => {
                writeln!(out, "{:<10} skipped: {error}", variant.name)?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let name = device.name().to_string();
        // Every file of weights is read for each variant; once is enough to check it.
        let outcome = check(&bundle, device, test, ran == 0, cancel).await?;
        ran += 1;
        let tolerance = tolerance(variant);
        // A NaN is no success.
        let passed = outcome <= tolerance;
        failed += u32::from(!passed);
        writeln!(
            out,
            "{:<10} {} largest error {outcome:.2e}, allowed {tolerance:.0e} ({name})",
            variant.name,
            if passed { "ok:" } else { "FAILED:" },
        )?;
    }
    if ran == 0 {
        bail!("no device can run any variant of the bundle");
    }
    if failed > 0 {
        bail!("{failed} of {ran} variants are out of tolerance");
    }
    writeln!(out, "weights and kernels match their checksums")?;
    Ok(ExitCode::SUCCESS)
}

fn tolerance(variant: &Variant) -> f32 {
    if variant.features.contains(&Feature::ShaderF16) {
        TOLERANCE_F16
    } else {
        TOLERANCE_F32
    }
}

async fn check(
    bundle: &FolderBundle,
    device: Device,
    test: &SelfTest,
    verify_checksums: bool,
    cancel: &CancelToken,
) -> anyhow::Result<f32> {
    let model = open::load(bundle, device, verify_checksums, Trust::nothing(), cancel).await?;
    let mut session = Session::new(model, Some(test.ids.len() as u32)).await?;
    session.feed(&test.ids).await?;
    let logits = session.logits().await?;
    Ok(largest_error(test, &logits))
}

/// The largest difference, of the self-test's logits and of the norm, relative to the root mean square of all
/// logits; NaN where there is one among them or an id has no logit. Where all logits should be zero, anything else is
/// infinitely wrong.
fn largest_error(test: &SelfTest, logits: &[f32]) -> f32 {
    let size = (logits.len() as f32).sqrt();
    let scale = test.norm / size;
    let norm = logits.iter().map(|&logit| f64::from(logit).powi(2)).sum::<f64>().sqrt() as f32;
    let norm_error = (norm - test.norm).abs() / size;
    let differences = test.top_logits.iter().map(|&(id, expected)| {
        let found = logits.get(id as usize).copied().unwrap_or(f32::NAN);
        (found - expected).abs()
    });
    // `f32::max` would drop a NaN.
    let largest = differences.fold(norm_error, |a, b| if a >= b || a.is_nan() { a } else { b });
    if largest == 0.0 { 0.0 } else { largest / scale }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test() -> SelfTest {
        SelfTest {
            ids: vec![1],
            top_logits: vec![(2, 4.0), (0, 3.0)],
            norm: 5.0,
        }
    }

    #[test]
    fn error_is_relative_to_the_root_mean_square() {
        assert_eq!(largest_error(&test(), &[3.0, 0.0, 4.0, 0.0]), 0.0);
        let error = largest_error(&test(), &[3.0, 0.0, 4.5, 0.0]);
        assert!((error - 0.5 / 2.5).abs() < 1e-6, "{error}");
    }

    #[test]
    fn zeros_are_right_where_zeros_are_expected() {
        let test = SelfTest {
            ids: vec![1],
            top_logits: vec![(0, 0.0), (1, 0.0)],
            norm: 0.0,
        };
        assert_eq!(largest_error(&test, &[0.0; 4]), 0.0);
        for wrong in [[1e-20, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]] {
            assert_eq!(largest_error(&test, &wrong), f32::INFINITY, "{wrong:?}");
        }
        assert!(largest_error(&test, &[0.0, f32::NAN, 0.0, 0.0]).is_nan());
    }

    #[test]
    fn nan_and_missing_ids_never_pass() {
        for logits in [&[3.0, f32::NAN, 4.0, 0.0][..], &[f32::NAN, 0.0, 4.0, 0.0], &[3.0, 4.0]] {
            assert!(largest_error(&test(), logits).is_nan(), "{logits:?}");
        }
    }
}
