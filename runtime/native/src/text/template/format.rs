//! Python's two ways to fill values into a text: `'%s' % x` and `'{}'.format(x)`.
//!
//! minijinja has both, but writes values its own way where no format is asked for; so each field is taken alone, and only
//! numbers go to minijinja.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::limits::Growing;
use super::repr::{as_float, repr, str_of};

/// Wider fields are taken for an attack.
const WIDEST: usize = 1 << 20;

/// `template % arguments`: a tuple is several values, a dict gives values by name, all else is one value.
pub(super) fn percent(template: &str, arguments: &Value) -> Result<String, Error> {
    let several = arguments.is_tuple();
    let values: Vec<Value> = if several {
        arguments.try_iter()?.collect()
    } else {
        vec![arguments.clone()]
    };
    let mut values = values.into_iter();
    let mut next = || values.next().ok_or_else(|| fault("not enough values for the format"));
    let mut by_name = false;
    let mut out = Growing::default();
    let mut rest = template;
    while let Some(start) = rest.find('%') {
        out.push_str(&rest[..start])?;
        let mut field = Field::parse(&rest[start..])?;
        rest = &rest[start + field.length..];
        if field.conversion == '%' {
            out.push('%')?;
            continue;
        }
        for number in [&mut field.width, &mut field.precision] {
            if number.as_deref() == Some("*") {
                *number = Some(next()?.to_string());
            }
        }
        let value = match field.name {
            Some(name) if arguments.kind() == ValueKind::Map => {
                by_name = true;
                let value = arguments.get_item(&Value::from(name))?;
                if value.is_undefined() {
                    return Err(fault(&format!("the format names {name}, which is not given")));
                }
                value
            }
            Some(_) => return Err(fault("the format names its values, and they are not a dict")),
            None => next()?,
        };
        out.push_str(&field.write(&value)?)?;
    }
    out.push_str(rest)?;
    // Python lets a dict or a list pass that nothing asks for.
    let optional = by_name || (!several && matches!(arguments.kind(), ValueKind::Map | ValueKind::Seq));
    if !optional && next().is_ok() {
        return Err(fault("more values than the format has fields"));
    }
    Ok(out.finish())
}

/// `%(name)-05.2f`
struct Field<'a> {
    length: usize,
    name: Option<&'a str>,
    flags: &'a str,
    width: Option<String>,
    precision: Option<String>,
    conversion: char,
}

impl<'a> Field<'a> {
    fn parse(text: &'a str) -> Result<Self, Error> {
        let unfinished = || fault("the format ends within a field");
        let mut rest = &text[1..];
        let mut name = None;
        if let Some(named) = rest.strip_prefix('(') {
            let (inner, after) = named.split_once(')').ok_or_else(unfinished)?;
            (name, rest) = (Some(inner), after);
        }
        let mut take = |wanted: &str| {
            let end = rest.find(|c| !wanted.contains(c)).unwrap_or(rest.len());
            let (taken, after) = rest.split_at(end);
            rest = after;
            taken
        };
        let flags = take("-+ #0");
        let width = Some(take("*0123456789").to_string()).filter(|width| !width.is_empty());
        let precision = (!take(".").is_empty()).then(|| take("*0123456789").to_string());
        take("hlL");
        let conversion = rest.chars().next().ok_or_else(unfinished)?;
        if !"diouxXeEfFgGcrsa%".contains(conversion) {
            return Err(fault(&format!("the format has no conversion {conversion}")));
        }
        let length = text.len() - rest.len() + conversion.len_utf8();
        Ok(Field {
            length,
            name,
            flags,
            width,
            precision,
            conversion,
        })
    }

    fn write(&self, value: &Value) -> Result<String, Error> {
        let width = size(self.width.as_deref())?;
        let precision = size(self.precision.as_deref())?;
        let text = match self.conversion {
            's' => str_of(value)?,
            'r' | 'a' => repr(value)?,
            'c' if value.as_str().is_some() => str_of(value)?,
            conversion => {
                if !matches!(value.kind(), ValueKind::Number | ValueKind::Bool) {
                    return Err(fault(&format!("%{conversion} wants a number, not {}", value.kind())));
                }
                let width = width.map(|width| width.to_string()).unwrap_or_default();
                let precision = precision.map(|precision| format!(".{precision}")).unwrap_or_default();
                let is_whole = "diu".contains(conversion);
                let field = format!(
                    "%{}{width}{precision}{}",
                    self.flags,
                    if is_whole { 'd' } else { conversion }
                );
                let value = match as_float(value).filter(|_| is_whole) {
                    Some(float) => Value::from(float.trunc() as i128),
                    None => value.clone(),
                };
                return format(FormatStyle::Printf, &field, &[value]);
            }
        };
        let text: String = text.chars().take(precision.unwrap_or(usize::MAX)).collect();
        let missing = width.unwrap_or(0).saturating_sub(text.chars().count());
        let padding = " ".repeat(missing);
        Ok(if self.flags.contains('-') {
            text + &padding
        } else {
            padding + &text
        })
    }
}

fn size(number: Option<&str>) -> Result<Option<usize>, Error> {
    let Some(number) = number else { return Ok(None) };
    let size = if number.is_empty() {
        Some(0)
    } else {
        number.parse().ok()
    };
    size.filter(|&size| size <= WIDEST)
        .map(Some)
        .ok_or_else(|| fault("a field of the format is too wide"))
}

/// `template.format(*arguments)`
pub(super) fn str_format(template: &str, arguments: &[Value]) -> Result<String, Error> {
    let (arguments, named) = match arguments.split_last() {
        Some((last, others)) if last.is_kwargs() => (others, Kwargs::try_from(last.clone())?),
        _ => (arguments, Kwargs::from_iter::<[(String, Value); 0]>([])),
    };
    Filler {
        arguments,
        named,
        next: 0,
    }
    .fill(template, 0)
}

struct Filler<'a> {
    arguments: &'a [Value],
    named: Kwargs,
    /// The value that the next field without a name takes.
    next: usize,
}

impl Filler<'_> {
    fn fill(&mut self, template: &str, depth: usize) -> Result<String, Error> {
        let mut out = Growing::default();
        let mut rest = template;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at])?;
            let brace = &rest[at..at + 1];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                out.push_str(brace)?;
                rest = after;
            } else if brace == "{" && depth < 2 {
                let end = closing_brace(rest).ok_or_else(|| fault("the format has a { without }"))?;
                out.push_str(&self.field(&rest[..end], depth)?)?;
                rest = &rest[end + 1..];
            } else {
                return Err(fault("the format has a brace of its own; {{ or }} stands for one"));
            }
        }
        out.push_str(rest)?;
        Ok(out.finish())
    }

    /// `name!conversion:spec`
    fn field(&mut self, field: &str, depth: usize) -> Result<String, Error> {
        let (target, spec) = field.split_once(':').unwrap_or((field, ""));
        let (name, conversion) = match target.split_once('!') {
            Some((name, conversion)) => (name, Some(conversion)),
            None => (target, None),
        };
        let mut value = self.value(name)?;
        match conversion {
            None => {}
            Some("s") => value = Value::from(str_of(&value)?),
            Some("r" | "a") => value = Value::from(repr(&value)?),
            Some(other) => return Err(fault(&format!("the format has no conversion !{other}"))),
        }
        let spec = self.fill(spec, depth + 1)?;
        if spec.is_empty() {
            return str_of(&value);
        }
        if value.is_none() || matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable) {
            return Err(fault(&format!("a value of type {} takes no format", value.kind())));
        }
        format(FormatStyle::StrFormat, &format!("{{:{spec}}}"), &[value])
    }

    fn value(&mut self, name: &str) -> Result<Value, Error> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (base, mut path) = name.split_at(end);
        let at = if base.is_empty() {
            self.next += 1;
            Some(self.next - 1)
        } else {
            base.parse().ok()
        };
        let mut value = match at {
            Some(at) => self.arguments.get(at).cloned(),
            None => self.named.get::<Option<Value>>(base)?,
        }
        .ok_or_else(|| fault(&format!("the format asks for a value {{{name}}} that is not given")))?;
        while !path.is_empty() {
            let key;
            if let Some(rest) = path.strip_prefix('[') {
                let (inner, after) = rest
                    .split_once(']')
                    .ok_or_else(|| fault("the format has a [ without ]"))?;
                key = inner.parse::<usize>().map_or_else(|_| Value::from(inner), Value::from);
                path = after;
            } else {
                let rest = &path[1..];
                let end = rest.find(['.', '[']).unwrap_or(rest.len());
                key = Value::from(&rest[..end]);
                path = &rest[end..];
            }
            value = value.get_item(&key)?;
        }
        if value.is_undefined() {
            return Err(fault(&format!(
                "the format asks for a value {{{name}}} that is not there"
            )));
        }
        Ok(value)
    }
}

/// Where the brace that is open before this text closes.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 1;
    text.char_indices().find_map(|(at, c)| {
        match c {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        (open == 0).then_some(at)
    })
}

fn fault(message: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.to_string())
}
