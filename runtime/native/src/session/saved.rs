//! A session as bytes of the host: what `docs/bundle-format.md` calls a saved session.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use thiserror::Error;

const VERSION: u32 = 1;
/// Longer headers are none.
const MAX_HEADER_BYTES: u64 = 256 << 20;

/// The tokens and states of a session, to be taken up by another of the same model and variant, now or in another
/// run of the program.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedSession {
    pub(super) header: Header,
    pub(super) tokens: Vec<u32>,
    /// What is in use of each state.
    pub(super) states: Vec<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) version: u32,
    /// Name of the model, for people.
    pub(super) model: String,
    /// SHA-256 of the bundle's manifest.
    pub(super) fingerprint: String,
    pub(super) variant: String,
    /// Positions of the session that was saved. Another may have more, or fewer if the tokens fit.
    pub(super) context: u32,
    pub(super) tokens: u32,
    pub(super) states: Vec<StateHeader>,
    pub(super) note: serde_json::Value,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct StateHeader {
    pub(super) name: String,
    pub(super) bytes: u64,
    /// Rings: entries of earlier positions are lost.
    #[serde(default)]
    pub(super) intact_from: u64,
}

/// Why a saved session cannot be written, read or taken up. Each message names the way out.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SavedSessionError {
    #[error("cannot write the session to {file}: {cause}")]
    Write { file: String, cause: io::Error },
    #[error("cannot read the session in {file}: {cause}")]
    Read { file: String, cause: io::Error },
    #[error("{file} is not a saved session; give another file name")]
    NotASession { file: String },
    #[error("{file} is a saved session of version {found}, this program reads {VERSION}; start a new one")]
    Version { file: String, found: u32 },
    /// Cut short, or otherwise not what was written.
    #[error("the session in {file} is damaged: {what}; delete it and start a new one")]
    Damaged { file: String, what: String },
    #[error(
        "the session was saved with another model or another compilation of it ({saved}), this is {model}; \
         run it with the bundle that it was saved with"
    )]
    OtherModel { saved: String, model: String },
    #[error("the session was saved with variant {saved}, this is {running}; run it with --variant {saved}")]
    OtherVariant { saved: String, running: String },
    #[error(
        "the saved session has {tokens} tokens, the context only {context} positions; ask for a --context of at least {tokens}"
    )]
    Context { tokens: u32, context: u32 },
    /// Its states or tokens are not of the form that this model's have.
    #[error("the saved session does not fit the model: {what}; delete it and start a new one")]
    Mismatch { what: String },
}

impl SavedSession {
    /// How it begins.
    pub(crate) const MAGIC: [u8; 8] = *b"kilnsess";

    /// The tokens that it has in its states.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Anything that the program wants to keep with the session; null unless set.
    pub fn note(&self) -> &serde_json::Value {
        &self.header.note
    }

    pub fn set_note(&mut self, note: serde_json::Value) {
        self.header.note = note;
    }

    /// Writes it in the format of `docs/bundle-format.md`.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let header = serde_json::to_vec(&self.header)?;
        to.write_all(&SavedSession::MAGIC)?;
        to.write_all(&(header.len() as u64).to_le_bytes())?;
        to.write_all(&header)?;
        for id in &self.tokens {
            to.write_all(&id.to_le_bytes())?;
        }
        self.states.iter().try_for_each(|state| to.write_all(state))
    }

    /// Reads what [`SavedSession::write`] wrote; `file` only names it in errors.
    ///
    /// # Errors
    /// Not a saved session, of another version, damaged, or unreadable.
    pub fn read(from: &mut impl Read, file: &str) -> Result<Self, SavedSessionError> {
        let mut reader = Reader { from, file };
        let is_session = |magic: Result<_, SavedSessionError>| match magic {
            Ok(magic) => Ok(magic == SavedSession::MAGIC),
            Err(SavedSessionError::Damaged { .. }) => Ok(false),
            Err(error) => Err(error),
        };
        if !is_session(reader.bytes(8))? {
            return Err(SavedSessionError::NotASession { file: file.to_string() });
        }
        let length = reader.bytes(8)?;
        let length = u64::from_le_bytes(length.try_into().unwrap_or_default());
        if length > MAX_HEADER_BYTES {
            return Err(reader.damaged("its header is too long"));
        }
        let header = reader.bytes(length)?;
        let header: Header = reader.parse_header(&header)?;
        let tokens = reader.bytes(u64::from(header.tokens) * 4)?;
        let tokens = bytemuck::pod_collect_to_vec(&tokens);
        let states = header.states.iter().map(|state| reader.bytes(state.bytes));
        let states = states.collect::<Result<_, _>>()?;
        if reader.from.read(&mut [0]).map_err(|cause| reader.refused(cause))? > 0 {
            return Err(reader.damaged("something follows it"));
        }
        Ok(Self { header, tokens, states })
    }

    /// Writes a file: aside first, so that a file of this name is whole, or still the one before. Links stay links.
    ///
    /// # Errors
    /// [`SavedSessionError::Write`].
    pub fn write_file(&self, path: &std::path::Path) -> Result<(), SavedSessionError> {
        let write = || {
            let mut file = crate::output::OutputFile::create(path)?;
            self.write(&mut file)?;
            file.finish()
        };
        write().map_err(|cause| SavedSessionError::Write {
            file: path.display().to_string(),
            cause,
        })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// As [`SavedSession::read`].
    pub fn read_file(path: &std::path::Path) -> Result<Self, SavedSessionError> {
        let name = path.display().to_string();
        let file = std::fs::File::open(path).map_err(|cause| SavedSessionError::Read {
            file: name.clone(),
            cause,
        })?;
        Self::read(&mut io::BufReader::new(file), &name)
    }
}

struct Reader<'a, R> {
    from: &'a mut R,
    file: &'a str,
}

impl<R: Read> Reader<'_, R> {
    /// So many bytes; memory is taken for what is there, not for what a header claims.
    fn bytes(&mut self, count: u64) -> Result<Vec<u8>, SavedSessionError> {
        let mut bytes = Vec::new();
        let read = self.from.take(count).read_to_end(&mut bytes);
        read.map_err(|cause| self.refused(cause))?;
        if (bytes.len() as u64) < count {
            return Err(self.damaged("it is cut short"));
        }
        Ok(bytes)
    }

    fn parse_header(&self, text: &[u8]) -> Result<Header, SavedSessionError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let damaged = |error: serde_json::Error| self.damaged(&format!("its header: {error}"));
        let Version { version } = serde_json::from_slice(text).map_err(damaged)?;
        if version != VERSION {
            return Err(SavedSessionError::Version {
                file: self.file.to_string(),
                found: version,
            });
        }
        serde_json::from_slice(text).map_err(damaged)
    }

    fn refused(&self, cause: io::Error) -> SavedSessionError {
        SavedSessionError::Read {
            file: self.file.to_string(),
            cause,
        }
    }

    fn damaged(&self, what: &str) -> SavedSessionError {
        SavedSessionError::Damaged {
            file: self.file.to_string(),
            what: what.to_string(),
        }
    }
}

impl Header {
    pub(super) fn new(model: &crate::Model, context: u32, tokens: u32, states: Vec<StateHeader>) -> Self {
        Self {
            version: VERSION,
            model: model.manifest().model.name.clone(),
            fingerprint: model.fingerprint(),
            variant: model.variant().name.clone(),
            context,
            tokens,
            states,
            note: serde_json::Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// Read by the tests of the JavaScript package as well.
    #[derive(Deserialize)]
    struct Cases {
        tokens: Vec<u32>,
        states: Vec<Vec<u8>>,
        note: serde_json::Value,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        what: String,
        hex: String,
        fault: Option<String>,
    }

    fn decode(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    #[test]
    fn saved_sessions_are_read_and_what_is_none_is_refused() {
        let cases: Cases = serde_json::from_str(include_str!("../../../cases/saved.json")).unwrap();
        assert!(cases.cases.len() > 15);
        for case in cases.cases {
            let bytes = decode(&case.hex);
            let fault = match SavedSession::read(&mut bytes.as_slice(), "file") {
                Ok(saved) => {
                    let read = (&saved.tokens, &saved.states, saved.note());
                    assert_eq!(read, (&cases.tokens, &cases.states, &cases.note), "{}", case.what);
                    None
                }
                Err(SavedSessionError::NotASession { .. }) => Some("not-a-session"),
                Err(SavedSessionError::Version { .. }) => Some("version"),
                Err(SavedSessionError::Damaged { .. }) => Some("damaged"),
                Err(error) => panic!("{}: {error}", case.what),
            };
            assert_eq!(fault, case.fault.as_deref(), "{}", case.what);
        }
    }
}
