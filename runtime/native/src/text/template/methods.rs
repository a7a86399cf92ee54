//! Methods of Python's texts, lists, dicts and numbers.

use minijinja::value::{Kwargs, Tuple, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat;

use super::format::str_format;
use super::limits;
use super::objects::DictView;
use super::python_text::{
    capitalize, expand_tabs, is_cased, is_in_case, is_number, is_printable_text, is_space, pad, replace, reversed,
    split_at_space, split_lines, strip, title,
};
use super::repr::as_float;

/// A method that minijinja's values do not have themselves.
pub(super) fn call(state: &mut State, value: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    let own = match value.kind() {
        ValueKind::String => text_method(value.as_str().unwrap_or_default(), method, arguments)?,
        ValueKind::Seq => list_method(value, method, arguments)?,
        ValueKind::Map => dict_method(value, method, arguments)?,
        ValueKind::Number => number_method(value, method),
        _ => None,
    };
    match own {
        Some(result) => Ok(result),
        None => pycompat::unknown_method_callback(state, value, method, arguments),
    }
}

fn text_method(text: &str, method: &str, values: &[Value]) -> Result<Option<Value>, Error> {
    let arguments = |names: &[&'static str]| Arguments::new(method, values, names);
    let words = |words: Vec<String>| Value::from_iter(words);
    Ok(Some(match method {
        "strip" | "lstrip" | "rstrip" => {
            let arguments = arguments(&["chars"])?;
            let chars = arguments.text("chars")?;
            Value::from(strip(text, chars.as_deref(), method != "rstrip", method != "lstrip"))
        }
        "split" | "rsplit" => {
            let arguments = arguments(&["sep", "maxsplit"])?;
            let (separator, limit) = (arguments.text("sep")?, arguments.integer("maxsplit")?);
            let limit = usize::try_from(limit.unwrap_or(-1)).unwrap_or(usize::MAX);
            match (separator.as_deref(), method) {
                (Some(""), _) => return Err(fault("split: the separator is empty")),
                (Some(separator), _) => {
                    limits::check_items(text.matches(separator).take(limit).count())?;
                    let most = limit.saturating_add(1);
                    words(if method == "split" {
                        text.splitn(most, separator).map(str::to_string).collect()
                    } else {
                        reversed(text.rsplitn(most, separator).map(str::to_string).collect())
                    })
                }
                (None, "split") => words(split_at_space(text, limit)?),
                (None, _) => {
                    let backwards: String = text.chars().rev().collect();
                    let parts = split_at_space(&backwards, limit)?.into_iter();
                    words(reversed(parts.map(|part| part.chars().rev().collect()).collect()))
                }
            }
        }
        "partition" | "rpartition" => {
            let separator = arguments(&["sep"])?.required_text("sep")?;
            let is_first = method == "partition";
            let found = if is_first {
                text.split_once(&separator)
            } else {
                text.rsplit_once(&separator)
            };
            let parts = match found {
                Some((before, after)) => [before, &separator, after],
                None if is_first => [text, "", ""],
                None => ["", "", text],
            };
            Value::from(Tuple::from(parts.map(Value::from).to_vec()))
        }
        "splitlines" => {
            let arguments = arguments(&["keepends"])?;
            words(split_lines(text, arguments.get("keepends").is_true())?)
        }
        "startswith" | "endswith" => {
            let arguments = arguments(&["prefix", "start", "end"])?;
            let part = arguments.part_of(text)?;
            let wanted = arguments.get("prefix");
            let is_there = |wanted: &str| match (&part, method) {
                (None, _) => false,
                (Some((_, part)), "startswith") => part.starts_with(wanted),
                (Some((_, part)), _) => part.ends_with(wanted),
            };
            match wanted.as_str() {
                Some(wanted) => Value::from(is_there(wanted)),
                None if wanted.is_tuple() => {
                    let any = wanted.try_iter()?.any(|wanted| wanted.as_str().is_some_and(is_there));
                    Value::from(any)
                }
                None => return Err(fault(&format!("{method} wants a text or a tuple of texts"))),
            }
        }
        "find" | "rfind" | "index" | "rindex" => {
            let arguments = arguments(&["sub", "start", "end"])?;
            let part = arguments.part_of(text)?;
            let wanted = arguments.required_text("sub")?;
            let found = part.and_then(|(start, part)| {
                let at = if method.starts_with('r') {
                    part.rfind(&wanted)
                } else {
                    part.find(&wanted)
                };
                at.map(|at| start + part[..at].chars().count())
            });
            match found {
                Some(at) => Value::from(at),
                None if method.ends_with("find") => Value::from(-1),
                None => return Err(fault(&format!("{method}: {wanted:?} is not in the text"))),
            }
        }
        "count" => {
            let arguments = arguments(&["sub", "start", "end"])?;
            let part = arguments.part_of(text)?;
            let wanted = arguments.required_text("sub")?;
            Value::from(part.map_or(0, |(_, part)| part.matches(&wanted).count()))
        }
        "replace" => {
            let arguments = arguments(&["old", "new", "count"])?;
            let (old, new) = (arguments.required_text("old")?, arguments.required_text("new")?);
            let count = usize::try_from(arguments.integer("count")?.unwrap_or(-1)).unwrap_or(usize::MAX);
            Value::from(replace(text, &old, &new, count)?)
        }
        "removeprefix" => {
            let prefix = arguments(&["prefix"])?.required_text("prefix")?;
            Value::from(text.strip_prefix(&prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let suffix = arguments(&["suffix"])?.required_text("suffix")?;
            Value::from(text.strip_suffix(&suffix).unwrap_or(text))
        }
        "ljust" | "rjust" | "center" => {
            let arguments = arguments(&["width", "fillchar"])?;
            let width = arguments
                .integer("width")?
                .ok_or_else(|| fault(&format!("{method} wants a width")))?;
            let fill = arguments.text("fillchar")?.unwrap_or_else(|| " ".to_string());
            if fill.chars().count() != 1 {
                return Err(fault(&format!("{method} fills with one character")));
            }
            Value::from(pad(text, method, width, &fill)?)
        }
        "zfill" => {
            let width = arguments(&["width"])?.integer("width")?.unwrap_or(0);
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
            let width = width - sign.len() as i64;
            Value::from(sign.to_string() + &pad(digits, "rjust", width, "0")?)
        }
        "expandtabs" => {
            let size = arguments(&["tabsize"])?.integer("tabsize")?.unwrap_or(8);
            Value::from(expand_tabs(text, usize::try_from(size).unwrap_or(0).min(1000))?)
        }
        "join" => {
            let items = arguments(&["iterable"])?.get("iterable").try_iter()?;
            let texts = items.map(|item| {
                let text = item.as_str().map(str::to_string);
                text.ok_or_else(|| fault(&format!("join wants texts, not {}", item.kind())))
            });
            Value::from(limits::join(texts, text)?)
        }
        "title" => Value::from(title(text)),
        "capitalize" => Value::from(capitalize(text)),
        "swapcase" => {
            let swapped = text.chars().flat_map(|c| -> Vec<char> {
                if c.is_uppercase() {
                    c.to_lowercase().collect()
                } else {
                    c.to_uppercase().collect()
                }
            });
            Value::from(swapped.collect::<String>())
        }
        "islower" => Value::from(is_cased(text, char::is_lowercase)),
        "isupper" => Value::from(is_cased(text, char::is_uppercase)),
        "istitle" => Value::from(text.chars().any(is_in_case) && title(text) == text),
        "isspace" => Value::from(!text.is_empty() && text.chars().all(is_space)),
        "isprintable" => Value::from(is_printable_text(text)),
        "isdigit" | "isdecimal" | "isnumeric" => Value::from(is_number(text, method)?),
        "isidentifier" if text.is_ascii() => {
            let is_word = text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
            Value::from(!text.is_empty() && is_word && !text.starts_with(|c: char| c.is_ascii_digit()))
        }
        "format" => Value::from(str_format(text, values)?),
        _ => return Ok(None),
    }))
}

fn list_method(list: &Value, method: &str, values: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "index" => {
            let wanted = Arguments::new(method, values, &["value"])?.get("value");
            let at = list.try_iter()?.position(|item| item == wanted);
            Value::from(at.ok_or_else(|| fault("index: the value is not in the list"))?)
        }
        "copy" => list.clone(),
        _ => return changes(method),
    }))
}

fn dict_method(dict: &Value, method: &str, values: &[Value]) -> Result<Option<Value>, Error> {
    match method {
        "get" => {
            let arguments = Arguments::new(method, values, &["key", "default"])?;
            let (key, default) = (arguments.get("key"), arguments.get("default"));
            let found = dict.as_object().and_then(|object| object.get_value(&key));
            let default = if default.is_undefined() && values.len() < 2 {
                Value::from(())
            } else {
                default
            };
            Ok(Some(found.unwrap_or(default)))
        }
        "copy" => Ok(Some(dict.clone())),
        _ => match DictView::of(dict, method) {
            Some(view) => Ok(Some(view)),
            None => changes(method),
        },
    }
}

/// The sandbox of transformers lets no template change a value.
fn changes(method: &str) -> Result<Option<Value>, Error> {
    const CHANGING: [&str; 12] = [
        "append",
        "clear",
        "extend",
        "insert",
        "pop",
        "popitem",
        "remove",
        "reverse",
        "setdefault",
        "sort",
        "update",
        "add",
    ];
    if CHANGING.contains(&method) {
        return Err(fault(&format!(
            "{method} would change a value, which templates may not"
        )));
    }
    Ok(None)
}

fn number_method(number: &Value, method: &str) -> Option<Value> {
    match (method, as_float(number)) {
        ("is_integer", Some(float)) => Some(Value::from(float.fract() == 0.0)),
        ("is_integer", None) => Some(Value::from(true)),
        ("bit_length", None) => {
            let bits = |number: i128| u128::BITS - number.unsigned_abs().leading_zeros();
            i128::try_from(number.clone())
                .ok()
                .map(|number| Value::from(bits(number)))
        }
        _ => None,
    }
}

/// The arguments of a call by name, as Python binds them.
struct Arguments {
    method: String,
    values: Vec<(&'static str, Value)>,
}

impl Arguments {
    fn new(method: &str, values: &[Value], names: &[&'static str]) -> Result<Self, Error> {
        let (positional, named) = match values.split_last() {
            Some((last, others)) if last.is_kwargs() => (others, Kwargs::try_from(last.clone())?),
            _ => (values, Kwargs::from_iter::<[(String, Value); 0]>([])),
        };
        if positional.len() > names.len() {
            return Err(Error::from(ErrorKind::TooManyArguments));
        }
        let mut values: Vec<(&'static str, Value)> = names.iter().copied().zip(positional.iter().cloned()).collect();
        for name in &names[positional.len()..] {
            if let Some(value) = named.get::<Option<Value>>(name)? {
                values.push((name, value));
            }
        }
        named.assert_all_used()?;
        Ok(Arguments {
            method: method.to_string(),
            values,
        })
    }

    /// An argument, undefined if it is not given.
    fn get(&self, name: &str) -> Value {
        let given = self.values.iter().find(|(known, _)| *known == name);
        given.map(|(_, value)| value.clone()).unwrap_or_default()
    }

    fn text(&self, name: &str) -> Result<Option<String>, Error> {
        let value = self.get(name);
        if value.is_none() || value.is_undefined() {
            return Ok(None);
        }
        let text = value.as_str().map(str::to_string);
        text.map(Some)
            .ok_or_else(|| fault(&format!("{} wants a text, not {}", self.method, value.kind())))
    }

    fn required_text(&self, name: &str) -> Result<String, Error> {
        self.text(name)?
            .ok_or_else(|| fault(&format!("{} wants a text", self.method)))
    }

    fn integer(&self, name: &str) -> Result<Option<i64>, Error> {
        let value = self.get(name);
        if value.is_none() || value.is_undefined() {
            return Ok(None);
        }
        i64::try_from(value).map(Some)
    }

    /// The part of a text from `start` to `end` in characters, and where it begins; `None` where there is no such part.
    fn part_of<'a>(&self, text: &'a str) -> Result<Option<(usize, &'a str)>, Error> {
        let length = text.chars().count() as i64;
        let bound = |bound: i64| if bound < 0 { (bound + length).max(0) } else { bound };
        let start = bound(self.integer("start")?.unwrap_or(0));
        let end = bound(self.integer("end")?.unwrap_or(length)).min(length);
        if start > end {
            return Ok(None);
        }
        let offset = |at: i64| text.char_indices().nth(at as usize).map_or(text.len(), |(at, _)| at);
        Ok(Some((start as usize, &text[offset(start)..offset(end)])))
    }
}

fn fault(message: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.to_string())
}
