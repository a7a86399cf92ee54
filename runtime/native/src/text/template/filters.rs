//! Jinja2's filters, where minijinja's write values otherwise than Python, take other arguments, or are missing.

use minijinja::value::{Kwargs, Rest, Tuple, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, filters};

use super::format::percent;
use super::limits::{self, Growing};
use super::operators::escape;
use super::python_text::{capitalize, center, is_space, split_lines, strip};
use super::repr::{as_float, str_of};

pub(super) fn add(environment: &mut Environment<'_>) {
    environment.add_filter("string", |value: &Value| str_of(value));
    environment.add_filter("upper", |value: &Value| Ok::<_, Error>(str_of(value)?.to_uppercase()));
    environment.add_filter("lower", |value: &Value| Ok::<_, Error>(str_of(value)?.to_lowercase()));
    environment.add_filter("capitalize", |value: &Value| {
        Ok::<_, Error>(capitalize(&str_of(value)?))
    });
    environment.add_filter("title", title);
    environment.add_filter("trim", |value: &Value, chars: Option<String>| {
        Ok::<_, Error>(strip(&str_of(value)?, chars.as_deref(), true, true).to_string())
    });
    environment.add_filter("center", |value: &Value, width: Option<i64>| {
        center(&str_of(value)?, width.unwrap_or(80))
    });
    environment.add_filter("forceescape", |value: &Value| {
        escape(&str_of(value)?).map(Value::from_safe_string)
    });
    environment.add_filter("wordcount", wordcount);
    environment.add_filter("format", format);
    environment.add_filter("join", join);
    environment.add_filter("indent", indent);
    environment.add_filter("truncate", truncate);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("abs", abs);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("sort", sort);
    environment.add_filter("dictsort", dictsort);
    // These print otherwise than Jinja2's, or Jinja2 has none.
    for name in ["pprint", "attr", "split", "lines", "bool", "chain", "zip"] {
        environment.remove_filter(name);
    }
}

/// `'%s' | format(values)`
fn format(template: &str, positional: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let names: Vec<&str> = named.args().collect();
    if names.is_empty() {
        return percent(template, &Value::from(Tuple::from(positional.0)));
    }
    if !positional.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "format takes values by position or by name, not both",
        ));
    }
    let mut values = Vec::new();
    for name in names {
        values.push((name.to_string(), named.get::<Value>(name)?));
    }
    percent(template, &Value::from_pairs(values))
}

/// Words begin large after a space, a hyphen or an opening bracket, and go on small.
fn title(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    let mut is_inside = false;
    for c in str_of(value)?.chars() {
        if is_inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        is_inside = !(is_space(c) || "-({[<".contains(c));
    }
    Ok(out)
}

fn wordcount(value: &Value) -> Result<usize, Error> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let text = str_of(value)?;
    let words = text.split(|c| !is_word(c)).filter(|word| !word.is_empty());
    Ok(words.count())
}

/// An argument by position or by name, undefined if it is not given.
fn option(positional: &[Value], at: usize, named: &Kwargs, name: &str) -> Result<Value, Error> {
    match positional.get(at) {
        Some(value) => Ok(value.clone()),
        None => Ok(named.get::<Option<Value>>(name)?.unwrap_or_default()),
    }
}

/// The arguments of a filter by these names.
fn options<const N: usize>(positional: &[Value], named: &Kwargs, names: [&str; N]) -> Result<[Value; N], Error> {
    if positional.len() > N {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let mut values = [const { Value::UNDEFINED }; N];
    for (at, name) in names.into_iter().enumerate() {
        values[at] = option(positional, at, named, name)?;
    }
    named.assert_all_used()?;
    Ok(values)
}

fn join(value: &Value, positional: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let [separator, attribute] = options(&positional, &named, ["d", "attribute"])?;
    let texts = value.try_iter()?.map(|item| {
        if attribute.is_undefined() {
            str_of(&item)
        } else {
            str_of(&path(item, &attribute)?)
        }
    });
    limits::join(texts, &str_of(&separator)?)
}

/// What `attribute` names: a position, or names with dots between them.
fn path(item: Value, attribute: &Value) -> Result<Value, Error> {
    match attribute.as_str() {
        Some(names) => names
            .split('.')
            .try_fold(item, |item, name| match name.parse::<usize>() {
                Ok(at) => item.get_item_by_index(at),
                Err(_) => item.get_attr(name),
            }),
        None => item.get_item(attribute),
    }
}

fn indent(value: &Value, positional: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let [width, first, blank] = options(&positional, &named, ["width", "first", "blank"])?;
    let indentation = match width.kind() {
        ValueKind::Undefined => " ".repeat(4),
        ValueKind::String => str_of(&width)?,
        _ => " ".repeat(usize::try_from(width)?.min(1000)),
    };
    let lines = split_lines(&(str_of(value)? + "\n"), false)?;
    let mut out = Growing::default();
    if first.is_true() {
        out.push_str(&indentation)?;
    }
    for (at, line) in lines.iter().enumerate() {
        if at > 0 {
            out.push('\n')?;
            if blank.is_true() || !line.is_empty() {
                out.push_str(&indentation)?;
            }
        }
        out.push_str(line)?;
    }
    Ok(out.finish())
}

/// Cuts a text that is longer than `length` by more than `leeway`, at a word's end unless `killwords`.
fn truncate(value: &Value, positional: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let [length, kill, end, leeway] = options(&positional, &named, ["length", "killwords", "end", "leeway"])?;
    let number = |value: Value, default: usize| {
        if value.is_undefined() {
            Ok(default)
        } else {
            usize::try_from(value)
        }
    };
    let (length, leeway) = (number(length, 255)?, number(leeway, 5)?);
    let end = if end.is_undefined() {
        "...".to_string()
    } else {
        str_of(&end)?
    };
    let (text, end_length) = (str_of(value)?, end.chars().count());
    if length < end_length {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "truncate: the length is less than the end's",
        ));
    }
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text);
    }
    let cut: String = text.chars().take(length - end_length).collect();
    let kept = if kill.is_true() {
        &cut
    } else {
        cut.rsplit_once(' ').map_or(cut.as_str(), |(words, _)| words)
    };
    limits::join([kept.to_string(), end].map(Ok), "")
}

/// `int(value)`, or the default where that is not possible.
fn int(value: &Value, positional: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let [default, base] = options(&positional, &named, ["default", "base"])?;
    let default = if default.is_undefined() {
        Value::from(0)
    } else {
        default
    };
    if value.is_undefined() {
        return Err(Error::new(
            ErrorKind::UndefinedError,
            "int of a value that is not there",
        ));
    }
    let base = if base.is_undefined() { 10 } else { u32::try_from(base)? };
    let whole = match value.as_str() {
        Some(text) => parse_int(text, base).or_else(|| parse_float(text).and_then(whole)),
        None => match as_float(value) {
            Some(float) => whole(float),
            None if matches!(value.kind(), ValueKind::Number | ValueKind::Bool) => i128::try_from(value.clone()).ok(),
            None => None,
        },
    };
    Ok(whole.map_or(default, Value::from))
}

fn whole(float: f64) -> Option<i128> {
    float.is_finite().then_some(float.trunc() as i128)
}

/// `int(text, base)`: with space around it, underscores between digits, and perhaps a prefix of the base.
fn parse_int(text: &str, base: u32) -> Option<i128> {
    let text = strip(text, None, true, true);
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let prefix = match base {
        2 => "0b",
        8 => "0o",
        16 => "0x",
        _ => "",
    };
    let has_prefix = !prefix.is_empty() && digits.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    let digits = without_underscores(if has_prefix { &digits[2..] } else { digits })?;
    let starts_well = digits.starts_with(|c: char| c.is_ascii_alphanumeric()) && (2..=36).contains(&base);
    starts_well.then(|| i128::from_str_radix(&(sign.to_string() + &digits), base).ok())?
}

/// `float(text)`
fn parse_float(text: &str) -> Option<f64> {
    without_underscores(strip(text, None, true, true))?.parse().ok()
}

fn without_underscores(digits: &str) -> Option<String> {
    let is_between = !digits.starts_with('_') && !digits.ends_with('_') && !digits.contains("__");
    is_between.then(|| digits.replace('_', ""))
}

/// `float(value)`, or the default where that is not possible.
fn float(value: &Value, positional: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let [default] = options(&positional, &named, ["default"])?;
    let default = if default.is_undefined() {
        Value::from(0.0)
    } else {
        default
    };
    if value.is_undefined() {
        return Err(Error::new(
            ErrorKind::UndefinedError,
            "float of a value that is not there",
        ));
    }
    let float = match value.as_str() {
        Some(text) => parse_float(text),
        None if value.kind() == ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        None => f64::try_from(value.clone()).ok(),
    };
    Ok(float.map_or(default, Value::from))
}

fn abs(value: &Value) -> Result<Value, Error> {
    match as_float(value) {
        Some(float) => Ok(Value::from(float.abs())),
        None if value.kind() == ValueKind::Bool => Ok(Value::from(u8::from(value.is_true()))),
        None => filters::abs(value.clone()),
    }
}

fn default(value: &Value, positional: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let [default, boolean] = options(&positional, &named, ["default_value", "boolean"])?;
    let is_missing = value.is_undefined() || (boolean.is_true() && !value.is_true());
    let default = if default.is_undefined() && positional.is_empty() {
        Value::from("")
    } else {
        default
    };
    Ok(if is_missing { default } else { value.clone() })
}

/// minijinja's filters take options by name only.
fn by_name<const N: usize>(positional: &[Value], named: &Kwargs, names: [&'static str; N]) -> Result<Kwargs, Error> {
    let values = options(positional, named, names)?;
    let given = names.into_iter().zip(values).filter(|(_, value)| !value.is_undefined());
    Ok(Kwargs::from_iter(given))
}

fn sort(state: &State, value: Value, positional: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    filters::sort(
        state,
        value,
        by_name(&positional, &named, ["reverse", "case_sensitive", "attribute"])?,
    )
}

fn dictsort(value: &Value, positional: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    filters::dictsort(
        value,
        by_name(&positional, &named, ["case_sensitive", "by", "reverse"])?,
    )
}
