//! How large a value may become. minijinja's fuel pays for what was made, so what is made of a few bytes is measured while it
//! grows: `'x' * 9999 | replace('x', 'y' * 9999)` must not take its 100 MB first.

use std::fmt;

use minijinja::value::Value;
use minijinja::{Error, ErrorKind};

/// Most bytes of one text, and of the items that one list holds: prompts are some hundred kilobytes.
const MOST: usize = 8 << 20;

fn too_large() -> Error {
    let message = format!("a value of more than {} MiB, which no prompt needs", MOST >> 20);
    Error::new(ErrorKind::InvalidOperation, message)
}

/// # Errors
/// A text of so many bytes is too large.
pub(super) fn check_bytes(bytes: usize) -> Result<(), Error> {
    if bytes <= MOST { Ok(()) } else { Err(too_large()) }
}

/// # Errors
/// A list of so many items is too large.
pub(super) fn check_items(items: usize) -> Result<(), Error> {
    check_bytes(items.saturating_mul(size_of::<Value>()))
}

/// A text that is put together.
#[derive(Default)]
pub(super) struct Growing(String);

impl Growing {
    /// # Errors
    /// The text would be too large; it stays what it was.
    pub(super) fn push_str(&mut self, text: &str) -> Result<(), Error> {
        check_bytes(self.0.len().saturating_add(text.len()))?;
        self.0.push_str(text);
        Ok(())
    }

    pub(super) fn push(&mut self, c: char) -> Result<(), Error> {
        self.push_str(c.encode_utf8(&mut [0; 4]))
    }

    /// Writes what may itself be large, and is not put together elsewhere first.
    pub(super) fn write(&mut self, text: fmt::Arguments<'_>) -> Result<(), Error> {
        fmt::write(self, text).map_err(|_| too_large())
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

impl fmt::Write for Growing {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_str(text).map_err(|_| fmt::Error)
    }
}

/// `separator.join(texts)`
pub(super) fn join(texts: impl IntoIterator<Item = Result<String, Error>>, separator: &str) -> Result<String, Error> {
    let mut out = Growing::default();
    for (index, text) in texts.into_iter().enumerate() {
        if index > 0 {
            out.push_str(separator)?;
        }
        out.push_str(&text?)?;
    }
    Ok(out.finish())
}
