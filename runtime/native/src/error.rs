use kiln_bundle::BundleError;
use thiserror::Error as ThisError;

use crate::device::Missing;
#[cfg(not(target_arch = "wasm32"))]
use crate::session::SavedSessionError;

/// All that can go wrong between a bundle and its tokens. Each message names the way out, and is the whole story: what a
/// field `cause` says is part of it, so `source()` does not give that again.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum Error {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A file of the bundle could not be read.
    #[error("{file}: {cause}; is this a complete bundle made by compile-model?")]
    Read { file: String, cause: std::io::Error },
    /// The manifest names a file outside the bundle's folder.
    #[error("{path:?} in the manifest leaves the bundle's folder; do not trust this bundle")]
    UnsafePath { path: String },
    /// A file has another size than the manifest says.
    #[error("{file}: {found} bytes, the manifest says {expected}; copy or compile the bundle again")]
    FileSize { file: String, expected: u64, found: u64 },
    /// A file is not what the compiler wrote.
    #[error("{file}: SHA-256 is {found}, the manifest says {expected}; copy or compile the bundle again")]
    Checksum {
        file: String,
        expected: String,
        found: String,
    },
    /// Compiled with `--no-weights`.
    #[error("the bundle of {model} has no weights; compile it without --no-weights to run it")]
    NoWeights { model: String },
    /// No adapter (with the wanted name).
    #[error("{}", no_adapter(wanted.as_deref(), available))]
    NoAdapter {
        wanted: Option<String>,
        available: Vec<String>,
    },
    /// The bundle has no variant of this name.
    #[error("the bundle has no variant {name:?}; it has {}", available.join(", "))]
    UnknownVariant { name: String, available: Vec<String> },
    /// The adapter lacks what the variants need: (variant, what is missing).
    #[error(
        "{adapter} cannot run this bundle: {}; `run-model devices` lists other devices",
        list_missing(missing)
    )]
    Unsupported {
        adapter: String,
        missing: Vec<(String, Vec<Missing>)>,
    },
    /// The adapter refused to open.
    #[error("{adapter} does not open: {cause}")]
    Open {
        adapter: String,
        cause: wgpu::RequestDeviceError,
    },
    /// The device's compiler refused a kernel.
    #[error(
        "{file}: kernel {kernel} does not compile on this device: {message}; try another --variant, and report this"
    )]
    Kernel {
        file: String,
        kernel: String,
        message: String,
    },
    /// Device memory is exhausted.
    #[error(
        "out of device memory for {what} ({bytes} bytes); use a shorter --context, a smaller quantization or another device"
    )]
    OutOfMemory { what: String, bytes: u64 },
    /// No positions, or more than the model was trained for.
    #[error("a context of {asked} positions is not between 1 and the model's {max}; ask for one that is")]
    ContextLength { asked: u32, max: u32 },
    /// The state of such a context does not fit one buffer of this device.
    #[error(
        "a context of {asked} positions needs a buffer of {bytes} bytes, this device allows {limit}; ask for at most {longest}"
    )]
    StateTooLarge {
        asked: u32,
        bytes: u64,
        limit: u64,
        longest: u64,
    },
    /// The tokens do not fit the session's context. Nothing was run.
    #[error(
        "{tokens} tokens at position {position} do not fit the context of {context}; shorten the prompt, reset the session, or open it with a longer context"
    )]
    ContextOverflow { position: u32, tokens: usize, context: u32 },
    /// A token id that the model does not have. Nothing was run.
    #[error("token id {id} is outside the vocabulary of {vocab}")]
    TokenOutOfRange { id: u32, vocab: u32 },
    /// Logits or tokens were asked for before a token was fed.
    #[error("nothing was fed to the session yet; feed at least one token first")]
    NothingFed,
    /// A number among the settings of [`crate::Sampling`] means nothing. Nothing was run.
    #[error("{name} must be {expected}")]
    Sampling { name: &'static str, expected: &'static str },
    /// The rules of [`crate::Sampling`] take more memory than the bundle has for them. Nothing was run.
    #[error("the rules about tokens take {bytes} bytes, the bundle has room for {most}; give fewer or shorter ones")]
    TooManyRules { bytes: u64, most: u64 },
    /// The model's numbers are not finite: what it says means nothing. `instead`: a variant that may do better, where this
    /// one keeps numbers of 16 bits.
    #[error("{}", not_finite(variant, instead.as_deref()))]
    LogitsNotFinite { variant: String, instead: Option<String> },
    /// The settings rule out every token of the vocabulary.
    #[error("all tokens are ruled out, so there is none to go on with; loosen the rules about tokens")]
    AllTokensRuledOut,
    /// A step of no tokens was asked for.
    #[error("there is no token to run; give at least one")]
    NoTokens,
    /// A position beyond the session's.
    #[error("cannot rewind to {position}: the session is at {current}")]
    Rewind { position: u32, current: u32 },
    #[cfg(not(target_arch = "wasm32"))]
    #[error(transparent)]
    SavedSession(#[from] SavedSessionError),
    #[cfg(feature = "text")]
    #[error(transparent)]
    Text(#[from] crate::text::TextError),
    /// Canceled by its [`crate::CancelToken`].
    #[error("canceled")]
    Canceled,
    /// The device is gone; sessions and models on it are too.
    #[error("the device was lost ({reason}); load the model again")]
    DeviceLost { reason: String },
    /// The device refused an operation. It is a mistake in Kiln or in the driver.
    #[error("the device refused an operation: {message}; please report this")]
    Device { message: String },
    /// GPU times were asked for on a device that cannot take them.
    #[error("{adapter} has no timestamp queries, so kernels cannot be timed")]
    NoTimestamps { adapter: String },
}

fn no_adapter(wanted: Option<&str>, available: &[String]) -> String {
    match (wanted, available) {
        (_, []) => "no GPU and no software device found; install a Vulkan, Metal or DirectX 12 driver \
                    (on Debian: apt install mesa-vulkan-drivers)"
            .to_string(),
        (Some(wanted), available) => {
            format!("no device is named like {wanted:?}; found: {}", available.join(", "))
        }
        (None, available) => format!("no device is usable; found: {}", available.join(", ")),
    }
}

fn not_finite(variant: &str, instead: Option<&str>) -> String {
    let fault = format!("the model's logits are not finite in variant {variant}");
    match instead {
        Some(instead) => {
            format!("{fault}, whose caches hold numbers of 16 bits, up to 65504; use variant {instead}, which has 32")
        }
        None => format!("{fault}; check the weights with `run-model verify`, and compile the checkpoint again"),
    }
}

fn list_missing(missing: &[(String, Vec<Missing>)]) -> String {
    let variants = missing.iter().map(|(variant, missing)| {
        let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
        format!("variant {variant} needs {}", missing.join(", "))
    });
    variants.collect::<Vec<_>>().join("; ")
}

/// A manifest that contradicts itself in what only the runtime checks.
pub(crate) fn inconsistent(what: impl Into<String>) -> Error {
    Error::Bundle(BundleError::Inconsistent {
        file: kiln_bundle::MANIFEST_FILE.to_string(),
        what: what.into(),
    })
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::io;

    use super::*;

    fn io() -> io::Error {
        io::Error::other("the cause")
    }

    /// One of each variant. The match only makes the compiler ask for new ones.
    fn all() -> Vec<Error> {
        let text = String::new;
        let bundle = BundleError::Syntax {
            file: text(),
            what: text(),
        };
        let saved = SavedSessionError::Read {
            file: text(),
            cause: io(),
        };
        let written = SavedSessionError::Write {
            file: text(),
            cause: io(),
        };
        let all = vec![
            Error::Bundle(bundle),
            Error::Read {
                file: text(),
                cause: io(),
            },
            Error::UnsafePath { path: text() },
            Error::FileSize {
                file: text(),
                expected: 0,
                found: 0,
            },
            Error::Checksum {
                file: text(),
                expected: text(),
                found: text(),
            },
            Error::NoWeights { model: text() },
            Error::NoAdapter {
                wanted: None,
                available: Vec::new(),
            },
            Error::UnknownVariant {
                name: text(),
                available: Vec::new(),
            },
            Error::Unsupported {
                adapter: text(),
                missing: Vec::new(),
            },
            Error::Kernel {
                file: text(),
                kernel: text(),
                message: text(),
            },
            Error::OutOfMemory { what: text(), bytes: 0 },
            Error::ContextLength { asked: 0, max: 0 },
            Error::StateTooLarge {
                asked: 0,
                bytes: 0,
                limit: 0,
                longest: 0,
            },
            Error::ContextOverflow {
                position: 0,
                tokens: 0,
                context: 0,
            },
            Error::TokenOutOfRange { id: 0, vocab: 0 },
            Error::NothingFed,
            Error::NoTokens,
            Error::Sampling {
                name: "temperature",
                expected: "0 or more",
            },
            Error::TooManyRules { bytes: 0, most: 0 },
            Error::LogitsNotFinite {
                variant: text(),
                instead: None,
            },
            Error::AllTokensRuledOut,
            Error::Rewind {
                position: 0,
                current: 0,
            },
            Error::SavedSession(saved),
            Error::SavedSession(written),
            #[cfg(feature = "text")]
            Error::Text(crate::text::TextError::NoChatTemplate),
            Error::Canceled,
            Error::DeviceLost { reason: text() },
            Error::Device { message: text() },
            Error::NoTimestamps { adapter: text() },
        ];
        for error in &all {
            match error {
                Error::Bundle(_)
                | Error::Read { .. }
                | Error::UnsafePath { .. }
                | Error::FileSize { .. }
                | Error::Checksum { .. }
                | Error::NoWeights { .. }
                | Error::NoAdapter { .. }
                | Error::UnknownVariant { .. }
                | Error::Unsupported { .. }
                | Error::Kernel { .. }
                | Error::OutOfMemory { .. }
                | Error::ContextLength { .. }
                | Error::StateTooLarge { .. }
                | Error::ContextOverflow { .. }
                | Error::TokenOutOfRange { .. }
                | Error::NothingFed
                | Error::NoTokens
                | Error::Sampling { .. }
                | Error::TooManyRules { .. }
                | Error::LogitsNotFinite { .. }
                | Error::AllTokensRuledOut
                | Error::Rewind { .. }
                | Error::SavedSession(_)
                | Error::Canceled
                | Error::DeviceLost { .. }
                | Error::Device { .. }
                | Error::NoTimestamps { .. } => {}
                #[cfg(feature = "text")]
                Error::Text(_) => {}
                // wgpu lets nobody make one.
                Error::Open { .. } => {}
            }
        }
        all
    }

    #[test]
    fn no_cause_is_told_twice() {
        for error in all() {
            let text = error.to_string();
            let mut cause = error.source();
            while let Some(told) = cause {
                assert!(!text.contains(&told.to_string()), "{text}, and again: {told}");
                cause = told.source();
            }
        }
        let read = &all()[1];
        assert!(read.to_string().contains("the cause"), "{read}");
    }
}
