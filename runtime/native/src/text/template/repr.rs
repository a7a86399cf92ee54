//! Values as Python writes them: `str` for what is printed, `repr` for what stands in a list or a dict.

use minijinja::Error;
use minijinja::value::{Value, ValueKind};

use super::limits::Growing;
use super::objects::is_list;

/// `str(value)`.
pub(super) fn str_of(value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_string()),
        None if value.is_undefined() => Ok(String::new()),
        None => repr(value),
    }
}

/// `repr(value)`.
pub(super) fn repr(value: &Value) -> Result<String, Error> {
    let mut out = Growing::default();
    write_repr(&mut out, value)?;
    Ok(out.finish())
}

fn write_repr(out: &mut Growing, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => match as_float(value) {
            Some(float) => out.push_str(&float_repr(float)),
            None => out.write(format_args!("{value}")),
        },
        ValueKind::String => write_string(out, value.as_str().unwrap_or_default(), value.is_safe()),
        _ if is_list(value) => write_items(out, value),
        ValueKind::Map => {
            out.push('{')?;
            for (index, key) in value.try_iter().into_iter().flatten().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " })?;
                write_repr(out, &key)?;
                out.push_str(": ")?;
                write_repr(out, &value.get_item(&key).unwrap_or_default())?;
            }
            out.push('}')
        }
        _ => out.write(format_args!("{value}")),
    }
}

fn write_items(out: &mut Growing, value: &Value) -> Result<(), Error> {
    let (open, close) = if value.is_tuple() { ('(', ')') } else { ('[', ']') };
    out.push(open)?;
    let mut count = 0;
    for item in value.try_iter().into_iter().flatten() {
        out.push_str(if count == 0 { "" } else { ", " })?;
        write_repr(out, &item)?;
        count += 1;
    }
    if count == 1 && value.is_tuple() {
        out.push(',')?;
    }
    out.push(close)
}

/// The value as `float`, if it is one: integers and booleans are none.
pub(super) fn as_float(value: &Value) -> Option<f64> {
    (value.kind() == ValueKind::Number && !value.is_integer()).then(|| f64::try_from(value.clone()).ok())?
}

/// The shortest digits that mean this float, with an exponent below 1e-4 and from 1e16 on.
pub(super) fn float_repr(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_string();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_string();
    }
    // The standard library takes another of two digits that are as near.
    let shortest = serde_json::json!(value.abs()).to_string();
    let (mantissa, power) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let leading = digits.len() - digits.trim_start_matches('0').len();
    let digits = digits.trim_matches('0');
    let exponent = power.parse::<i32>().unwrap_or(0) + whole.len() as i32 - 1 - leading as i32;
    let sign = if value.is_sign_negative() { "-" } else { "" };
    match exponent {
        _ if digits.is_empty() => format!("{sign}0.0"),
        -4..0 => format!("{sign}0.{}{digits}", "0".repeat((-exponent - 1) as usize)),
        0..16 => {
            let point = exponent as usize + 1;
            let padded = format!("{digits:0<width$}", width = point + 1);
            format!("{sign}{}.{}", &padded[..point], &padded[point..])
        }
        _ => {
            let (first, rest) = digits.split_at(1);
            let point = if rest.is_empty() { "" } else { "." };
            let mark = if exponent < 0 { '-' } else { '+' };
            format!("{sign}{first}{point}{rest}e{mark}{:02}", exponent.abs())
        }
    }
}

fn write_string(out: &mut Growing, text: &str, is_safe: bool) -> Result<(), Error> {
    if is_safe {
        out.push_str("Markup(")?;
    }
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote)?;
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.push('\\').and_then(|()| out.push(c)),
            c if is_printable(c) => out.push(c),
            c => {
                let code = u32::from(c);
                match code {
                    0..0x100 => out.write(format_args!("\\x{code:02x}")),
                    0x100..0x1_0000 => out.write(format_args!("\\u{code:04x}")),
                    _ => out.write(format_args!("\\U{code:08x}")),
                }
            }
        }?;
    }
    out.push(quote)?;
    if is_safe {
        out.push(')')?;
    }
    Ok(())
}

/// `str.isprintable`, as Rust's own quoting has it; after a letter, since marks that combine are only quoted where they stand first.
pub(super) fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~') || ['a', c].iter().collect::<String>().escape_debug().count() == 2
}
