//! Errors as JavaScript sees them: `code`, `message`, and the facts that a program may act on.

use kiln_bundle::BundleError;
use kiln_runtime::Error;
use wasm_bindgen::JsValue;

use crate::object::{number, object, set};

/// `{ code, message, ... }`; the JavaScript package has a class for each code.
pub(crate) fn to_js(error: Error) -> JsValue {
    let value = object([
        ("code", code(&error).into()),
        ("message", error.to_string().as_str().into()),
    ]);
    let field = |name: &str, field: JsValue| set(&value, name, field);
    match &error {
        Error::Read { file, .. } => field("file", file.as_str().into()),
        Error::FileSize { file, expected, found } => {
            field("file", file.as_str().into());
            field("expected", number(*expected));
            field("found", number(*found));
        }
        Error::Checksum { file, expected, found } => {
            field("file", file.as_str().into());
            field("expected", expected.as_str().into());
            field("found", found.as_str().into());
        }
        Error::Kernel { file, kernel, .. } => {
            field("file", file.as_str().into());
            field("kernel", kernel.as_str().into());
        }
        Error::OutOfMemory { bytes, .. } => field("bytes", number(*bytes)),
        Error::ContextLength { max, .. } => field("longest", (*max).into()),
        Error::StateTooLarge {
            asked, bytes, longest, ..
        } => {
            field("context", (*asked).into());
            field("bytes", number(*bytes));
            field("longest", number(*longest));
        }
        Error::ContextOverflow {
            position,
            tokens,
            context,
        } => {
            field("position", (*position).into());
            field("tokens", number(*tokens as u64));
            field("context", (*context).into());
        }
        _ => {}
    }
    value
}

fn code(error: &Error) -> &'static str {
    match error {
        Error::Bundle(BundleError::Version { .. }) => "bundle-version",
        Error::Bundle(_) | Error::UnsafePath { .. } | Error::NoWeights { .. } => "bundle",
        Error::Read { .. } => "read",
        Error::FileSize { .. } => "file-size",
        Error::Checksum { .. } => "checksum",
        Error::NoAdapter { .. } => "no-adapter",
        Error::UnknownVariant { .. } => "unknown-variant",
        Error::Unsupported { .. } | Error::Open { .. } => "unsupported",
        Error::Kernel { .. } => "kernel",
        Error::OutOfMemory { .. } => "out-of-memory",
        Error::ContextLength { .. } | Error::StateTooLarge { .. } => "context-length",
        Error::ContextOverflow { .. } => "context-overflow",
        Error::TokenOutOfRange { .. }
        | Error::NothingFed
        | Error::Sampling { .. }
        | Error::TooManyRules { .. }
        | Error::AllTokensRuledOut
        | Error::Rewind { .. } => "usage",
        Error::LogitsNotFinite { .. } => "not-finite",
        Error::Canceled => "canceled",
        Error::DeviceLost { .. } => "device-lost",
        _ => "internal",
    }
}
