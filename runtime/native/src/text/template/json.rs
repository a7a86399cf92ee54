//! The filter `tojson` of transformers: `json.dumps` with its options.

use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::limits::Growing;
use super::objects::is_list;
use super::repr::{as_float, float_repr};

/// `json.dumps(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`, options also by position.
pub(super) fn to_json(value: &Value, positional: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    const NAMES: [&str; 4] = ["ensure_ascii", "indent", "separators", "sort_keys"];
    if positional.len() > NAMES.len() {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let option = |at: usize| -> Result<Value, Error> {
        match positional.get(at) {
            Some(value) => Ok(value.clone()),
            None => Ok(named.get::<Option<Value>>(NAMES[at])?.unwrap_or_default()),
        }
    };
    let (ascii, indent, separators, sort_keys) = (option(0)?, option(1)?, option(2)?, option(3)?);
    named.assert_all_used()?;
    let indent = match indent.kind() {
        ValueKind::None | ValueKind::Undefined => None,
        ValueKind::String => indent.as_str().map(str::to_string),
        _ => Some(" ".repeat(usize::try_from(indent).unwrap_or(0).min(1000))),
    };
    let [item, key] = match separators.kind() {
        ValueKind::None | ValueKind::Undefined => [if indent.is_some() { "," } else { ", " }.into(), ": ".into()],
        _ => pair_of_texts(&separators)?,
    };
    let mut writer = Writer {
        out: Growing::default(),
        ascii: ascii.is_true(),
        indent,
        item,
        key,
        sort_keys: sort_keys.is_true(),
    };
    writer.write(value, 0)?;
    Ok(Value::from(writer.out.finish()))
}

fn pair_of_texts(separators: &Value) -> Result<[String; 2], Error> {
    let texts = separators.try_iter()?.map(|text| text.as_str().map(str::to_string));
    let texts: Option<Vec<String>> = texts.collect();
    texts
        .and_then(|texts| texts.try_into().ok())
        .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "tojson: separators must be two texts"))
}

struct Writer {
    out: Growing,
    ascii: bool,
    /// What each level puts before its lines; without, all is one line.
    indent: Option<String>,
    item: String,
    key: String,
    sort_keys: bool,
}

impl Writer {
    fn write(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => self.out.push_str("null")?,
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" })?,
            ValueKind::Number => self.number(value)?,
            ValueKind::String => self.string(value.as_str().unwrap_or_default())?,
            ValueKind::Map
                if value
                    .as_object()
                    .is_some_and(|object| object.enumerator_len().is_some()) =>
            {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    sort(&mut keys)?;
                }
                self.container('{', '}', &keys, depth, |writer, key| {
                    writer.object_key(key)?;
                    writer.out.push_str(&writer.key)?;
                    writer.write(&value.get_item(key)?, depth + 1)
                })?;
            }
            _ if is_list(value) => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.container('[', ']', &items, depth, |writer, item| writer.write(item, depth + 1))?;
            }
            kind => return Err(not_json(&format!("a value of type {kind}"))),
        }
        Ok(())
    }

    fn container(
        &mut self,
        open: char,
        close: char,
        parts: &[Value],
        depth: usize,
        write: impl Fn(&mut Self, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open)?;
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                self.out.push_str(&self.item)?;
            }
            self.line(depth + 1)?;
            write(self, part)?;
        }
        if !parts.is_empty() {
            self.line(depth)?;
        }
        self.out.push(close)
    }

    fn line(&mut self, depth: usize) -> Result<(), Error> {
        if let Some(indent) = &self.indent {
            self.out.push('\n')?;
            for _ in 0..depth {
                self.out.push_str(indent)?;
            }
        }
        Ok(())
    }

    fn number(&mut self, value: &Value) -> Result<(), Error> {
        match as_float(value) {
            Some(float) if float.is_nan() => self.out.push_str("NaN"),
            Some(float) if float.is_infinite() => self.out.push_str(if float > 0.0 { "Infinity" } else { "-Infinity" }),
            Some(float) => self.out.push_str(&float_repr(float)),
            None => self.out.push_str(&value.to_string()),
        }
    }

    /// Keys are texts, or what JSON can write as one.
    fn object_key(&mut self, key: &Value) -> Result<(), Error> {
        match key.kind() {
            ValueKind::String => self.string(key.as_str().unwrap_or_default())?,
            ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                self.out.push('"')?;
                self.write(key, 0)?;
                self.out.push('"')?;
            }
            kind => return Err(not_json(&format!("a key of type {kind}"))),
        }
        Ok(())
    }

    fn string(&mut self, text: &str) -> Result<(), Error> {
        self.out.push('"')?;
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\x08' => self.out.push_str("\\b"),
                '\x0c' => self.out.push_str("\\f"),
                c if c < ' ' || (self.ascii && c > '~') => {
                    let mut units = [0; 2];
                    let mut units = c.encode_utf16(&mut units).iter();
                    units.try_for_each(|unit| self.out.write(format_args!("\\u{unit:04x}")))
                }
                c => self.out.push(c),
            }?;
        }
        self.out.push('"')
    }
}

/// Sorts keys; Python cannot compare texts with other keys.
fn sort(keys: &mut [Value]) -> Result<(), Error> {
    let texts = keys.iter().filter(|key| key.as_str().is_some()).count();
    if texts != 0 && texts != keys.len() {
        return Err(not_json("keys of several types, sorted"));
    }
    keys.sort();
    Ok(())
}

fn not_json(what: &str) -> Error {
    Error::new(ErrorKind::BadSerialization, format!("tojson cannot write {what}"))
}
