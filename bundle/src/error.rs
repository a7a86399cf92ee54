use thiserror::Error;

/// What can be wrong with a manifest before any device is involved.
#[derive(Debug, Error)]
pub enum BundleError {
    /// The text is no manifest.
    #[error("{file}: not a Kiln manifest: {what}")]
    Syntax { file: String, what: String },
    /// Written by another version of the format.
    #[error(
        "{file}: bundle format {found}, this program reads {supported}; {}",
        if found > supported { "update Kiln" } else { "compile the model again" }
    )]
    Version { file: String, found: u32, supported: u32 },
    /// The manifest contradicts itself (an index or a range out of bounds).
    #[error("{file}: {what}; the bundle is damaged, compile the model again")]
    Inconsistent { file: String, what: String },
}
