//! What a build script tells Cargo: lines on standard output.

use std::path::Path;

/// Run again when the file changes, or any file in the folder.
pub fn rerun_if_changed(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}

/// Shown while the build goes on.
pub fn warn(text: &str) {
    say("warning", text);
}

/// Shown, and the build fails.
pub fn error(text: &str) {
    say("error", text);
}

/// A message to Cargo is a line.
fn say(level: &str, text: &str) {
    for line in text.lines() {
        println!("cargo::{level}={line}");
    }
}
