//! How long work reports and is stopped.

/// Receives the progress of a compilation. Calls may come from several threads.
pub trait Progress: Sync {
    /// A stage of `total` bytes begins.
    fn begin(&self, stage: &str, total: u64);
    /// So many more bytes are done.
    fn advance(&self, bytes: u64);
    /// The stage is over.
    fn end(&self);
    /// Whether the user asked to stop.
    fn interrupted(&self) -> bool;
}

/// Tells nobody.
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _stage: &str, _total: u64) {}
    fn advance(&self, _bytes: u64) {}
    fn end(&self) {}
    fn interrupted(&self) -> bool {
        false
    }
}
