//! A small JSON reader for manifests. A browser downloads it: serde_json's took a third of the runtime's size there.

use std::fmt;

/// A parsed text. Numbers stay text until a type asks for them.
#[derive(Debug)]
pub(crate) enum Json<'a> {
    /// In place of a field that is not there.
    Absent,
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
    fn new(what: impl Into<String>) -> Self {
        Self {
            path: String::new(),
            what: what.into(),
        }
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

/// Where reading is, and the first fault so far. Reading goes on after a fault, with values that mean nothing: to end at each
/// of a hundred fields, freeing what was read, would double what a browser downloads of it.
#[derive(Default)]
pub(crate) struct Faults {
    path: Vec<Part>,
    first: Option<Fault>,
}

enum Part {
    Field(&'static str),
    Element(usize),
}

impl Faults {
    /// What is read here is none of what it has to be.
    pub(crate) fn note(&mut self, what: String) {
        if self.first.is_some() {
            return;
        }
        let mut path = String::new();
        for part in &self.path {
            match part {
                Part::Field(name) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(name);
                }
                Part::Element(index) => path.push_str(&format!("[{index}]")),
            }
        }
        self.first = Some(Fault { path, what });
    }

    /// `json` is no `wanted`.
    pub(crate) fn expected(&mut self, wanted: &str, json: &Json<'_>) {
        self.note(match json {
            Json::Absent => "it is missing".to_string(),
            _ => format!("expected {wanted}"),
        });
    }

    /// What was read, if nothing was wrong with it.
    pub(crate) fn check<T>(self, value: T) -> Result<T, Fault> {
        match self.first {
            None => Ok(value),
            Some(fault) => Err(fault),
        }
    }
}

/// What can be read from JSON.
pub(crate) trait FromJson: Sized {
    /// The value; if it is none, that is noted.
    fn from_json(json: &Json<'_>, faults: &mut Faults) -> Self;
}

impl<'a> Json<'a> {
    /// A field of an object.
    pub(crate) fn field<T: FromJson>(&self, name: &'static str, faults: &mut Faults) -> T {
        let json = self.find(name, faults);
        faults.path.push(Part::Field(name));
        let value = T::from_json(json, faults);
        faults.path.pop();
        value
    }

    #[inline(never)]
    fn find(&self, name: &str, faults: &mut Faults) -> &Json<'a> {
        let Json::Object(fields) = self else {
            faults.expected("an object", self);
            return &Json::Absent;
        };
        let field = fields.iter().find(|(found, _)| found == name);
        field.map_or(&Json::Absent, |(_, json)| json)
    }

    /// Empty where it is no text.
    pub(crate) fn text(&self, faults: &mut Faults) -> &str {
        match self {
            Json::String(text) => text,
            _ => {
                faults.expected("a text", self);
                ""
            }
        }
    }

    /// A number as it is written; `0` where it is none.
    pub(crate) fn number(&self, faults: &mut Faults) -> &'a str {
        match self {
            Json::Number(text) => text,
            _ => {
                faults.expected("a number", self);
                "0"
            }
        }
    }

    /// Elements of an array.
    pub(crate) fn elements<T: FromJson>(&self, faults: &mut Faults) -> Vec<T> {
        let Json::Array(elements) = self else {
            faults.expected("a list", self);
            return Vec::new();
        };
        let elements = elements.iter().enumerate();
        let values = elements.map(|(index, element)| {
            faults.path.push(Part::Element(index));
            let value = T::from_json(element, faults);
            faults.path.pop();
            value
        });
        values.collect()
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
            if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
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
