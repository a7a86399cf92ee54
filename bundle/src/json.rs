//! A small JSON reader for manifests. A browser downloads it: serde_json's took a third of the runtime's size there.

use std::fmt;

/// A parsed text. Numbers stay text until a type asks for them.
#[derive(Debug)]
pub(crate) enum Json<'a> {
    Null,
    Bool,
    Number(&'a str),
    String(String),
    Array(Vec<Json<'a>>),
    Object(Vec<(String, Json<'a>)>),
}

/// Where in the manifest something is wrong, and what.
#[derive(Debug)]
pub(crate) struct Fault {
    /// E.g. `variants[0].kernels`; empty for the text itself.
    path: String,
    what: String,
}

impl Fault {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self {
            path: String::new(),
            what: what.into(),
        }
    }

    /// Below a field or an element.
    fn below(mut self, part: &str) -> Self {
        if !self.path.is_empty() && !self.path.starts_with('[') {
            self.path.insert(0, '.');
        }
        self.path.insert_str(0, part);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            f.write_str(&self.path)?;
            f.write_str(": ")?;
        }
        f.write_str(&self.what)
    }
}

/// What can be read from JSON.
pub(crate) trait FromJson: Sized {
    fn from_json(json: &Json<'_>) -> Result<Self, Fault>;

    /// The value of a field that is not there.
    fn absent() -> Option<Self> {
        None
    }
}

impl Json<'_> {
    /// A field of an object.
    pub(crate) fn field<T: FromJson>(&self, name: &str) -> Result<T, Fault> {
        let Json::Object(fields) = self else {
            return Err(Fault::new("expected an object"));
        };
        match fields.iter().find(|(found, _)| found == name) {
            Some((_, value)) => T::from_json(value).map_err(|fault| fault.below(name)),
            None => T::absent().ok_or_else(|| Fault::new("it is missing").below(name)),
        }
    }

    pub(crate) fn as_str(&self) -> Result<&str, Fault> {
        match self {
            Json::String(text) => Ok(text),
            _ => Err(Fault::new("expected a text")),
        }
    }

    /// Elements of an array.
    pub(crate) fn elements<T: FromJson>(&self) -> Result<Vec<T>, Fault> {
        let Json::Array(elements) = self else {
            return Err(Fault::new("expected a list"));
        };
        let mut values = Vec::with_capacity(elements.len());
        for (index, element) in elements.iter().enumerate() {
            values.push(T::from_json(element).map_err(|fault| fault.below(&format!("[{index}]")))?);
        }
        Ok(values)
    }
}

/// Deeper texts are no manifest.
const MAX_DEPTH: u32 = 32;

/// Parses a whole text.
pub(crate) fn parse(text: &[u8]) -> Result<Json<'_>, Fault> {
    let text = std::str::from_utf8(text).map_err(|_| Fault::new("not UTF-8"))?;
    let mut parser = Parser { text, at: 0 };
    let value = parser.value(0)?;
    parser.skip_space();
    match parser.peek() {
        None => Ok(value),
        Some(_) => Err(parser.unexpected()),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// The next byte that is no space.
    fn next(&mut self) -> Option<u8> {
        self.skip_space();
        let byte = self.peek();
        self.at += 1;
        byte
    }

    fn unexpected(&self) -> Fault {
        Fault::new(format!("not JSON at byte {}", self.at))
    }

    fn value(&mut self, depth: u32) -> Result<Json<'a>, Fault> {
        self.skip_space();
        if depth > MAX_DEPTH {
            return Err(Fault::new("nested too deeply"));
        }
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => Ok(Json::String(self.string()?)),
            Some(b'-' | b'0'..=b'9') => Ok(self.number()),
            _ => self.word(),
        }
    }

    fn word(&mut self) -> Result<Json<'a>, Fault> {
        for (word, value) in [("null", Json::Null), ("true", Json::Bool), ("false", Json::Bool)] {
            if self.text[self.at..].starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.unexpected())
    }

    fn object(&mut self, depth: u32) -> Result<Json<'a>, Fault> {
        let mut fields = Vec::new();
        self.list(b'}', |parser| {
            parser.skip_space();
            let name = parser.string()?;
            match parser.next() {
                Some(b':') => fields.push((name, parser.value(depth + 1)?)),
                _ => return Err(parser.unexpected()),
            }
            Ok(())
        })?;
        Ok(Json::Object(fields))
    }

    fn array(&mut self, depth: u32) -> Result<Json<'a>, Fault> {
        let mut elements = Vec::new();
        self.list(b']', |parser| {
            elements.push(parser.value(depth + 1)?);
            Ok(())
        })?;
        Ok(Json::Array(elements))
    }

    /// Items between commas, from the opening bracket to the closing one.
    fn list(&mut self, end: u8, mut item: impl FnMut(&mut Self) -> Result<(), Fault>) -> Result<(), Fault> {
        self.at += 1;
        self.skip_space();
        if self.peek() == Some(end) {
            self.at += 1;
            return Ok(());
        }
        loop {
            item(self)?;
            match self.next() {
                Some(b',') => {}
                Some(byte) if byte == end => return Ok(()),
                _ => return Err(self.unexpected()),
            }
        }
    }

    /// All that a number may be made of; the type that it becomes is strict.
    fn number(&mut self) -> Json<'a> {
        let start = self.at;
        while matches!(self.peek(), Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')) {
            self.at += 1;
        }
        Json::Number(&self.text[start..self.at])
    }

    fn string(&mut self) -> Result<String, Fault> {
        if self.peek() != Some(b'"') {
            return Err(self.unexpected());
        }
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let length = rest.find(['"', '\\']).ok_or_else(|| Fault::new("a text without end"))?;
            out.push_str(&rest[..length]);
            self.at += length + 1;
            if rest.as_bytes()[length] == b'"' {
                return Ok(out);
            }
            let escaped = self.escape()?;
            out.push(escaped);
        }
    }

    /// After a backslash.
    fn escape(&mut self) -> Result<char, Fault> {
        let byte = self.peek();
        self.at += 1;
        Ok(match byte {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => self.unicode()?,
            _ => return Err(self.unexpected()),
        })
    }

    /// Four digits, or a pair of surrogates.
    fn unicode(&mut self) -> Result<char, Fault> {
        let mut code = self.digits()?;
        if (0xD800..0xDC00).contains(&code) && self.text[self.at..].starts_with("\\u") {
            self.at += 2;
            // What is no low surrogate makes no character.
            let low = self.digits()?.wrapping_sub(0xDC00);
            code = if low < 0x400 {
                0x10000 + ((code - 0xD800) << 10) + low
            } else {
                code
            };
        }
        char::from_u32(code).ok_or_else(|| self.unexpected())
    }

    fn digits(&mut self) -> Result<u32, Fault> {
        let digits = self.text.get(self.at..self.at + 4);
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        self.at += 4;
        code.ok_or_else(|| self.unexpected())
    }
}
