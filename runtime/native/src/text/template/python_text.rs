//! What Python's `str` does to a text, on plain texts.

use minijinja::{Error, ErrorKind};

use super::limits::{self, Growing};
use super::repr::is_printable;

/// `islower` and `isupper`: all letters that have a case have this one, and there are some.
pub(super) fn is_cased(text: &str, is_case: fn(char) -> bool) -> bool {
    let mut cased = text.chars().filter(|c| c.is_lowercase() || c.is_uppercase()).peekable();
    cased.peek().is_some() && cased.all(is_case)
}

/// What Python takes as space.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

pub(super) fn strip<'a>(text: &'a str, chars: Option<&str>, left: bool, right: bool) -> &'a str {
    let goes = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if left { text.trim_start_matches(goes) } else { text };
    if right { text.trim_end_matches(goes) } else { text }
}

/// Words between runs of space, at most `limit` of them split off.
pub(super) fn split_at_space(text: &str, limit: usize) -> Result<Vec<String>, Error> {
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        if words.len() == limit {
            words.push(rest.to_string());
            break;
        }
        let (word, after) = rest.split_at(rest.find(is_space).unwrap_or(rest.len()));
        words.push(word.to_string());
        limits::check_items(words.len())?;
        rest = after.trim_start_matches(is_space);
    }
    Ok(words)
}

pub(super) fn split_lines(text: &str, keep_ends: bool) -> Result<Vec<String>, Error> {
    let is_end = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some((at, end)) = rest.char_indices().find(|&(_, c)| is_end(c)) {
        let length = if rest[at..].starts_with("\r\n") {
            2
        } else {
            end.len_utf8()
        };
        lines.push(rest[..if keep_ends { at + length } else { at }].to_string());
        limits::check_items(lines.len())?;
        rest = &rest[at + length..];
    }
    if !rest.is_empty() {
        lines.push(rest.to_string());
    }
    Ok(lines)
}

pub(super) fn reversed(mut parts: Vec<String>) -> Vec<String> {
    parts.reverse();
    parts
}

pub(super) fn pad(text: &str, method: &str, width: i64, fill: &str) -> Result<String, Error> {
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(text.chars().count());
    limits::check_bytes(missing.saturating_mul(fill.len()).saturating_add(text.len()))?;
    // Where both sides get some and the number is odd, Python gives the left one more if the width is odd, too.
    let left = match method {
        "ljust" => 0,
        "rjust" => missing,
        _ => missing / 2 + (missing & usize::try_from(width).unwrap_or(0) & 1),
    };
    Ok(fill.repeat(left) + text + &fill.repeat(missing - left))
}

pub(super) fn center(text: &str, width: i64) -> Result<String, Error> {
    pad(text, "center", width, " ")
}

/// `text.replace(old, new, count)`
pub(super) fn replace(text: &str, old: &str, new: &str, count: usize) -> Result<String, Error> {
    let found = text.matches(old).take(count).count();
    limits::check_bytes(found.saturating_mul(new.len()).saturating_add(text.len()))?;
    Ok(text.replacen(old, new, count))
}

pub(super) fn expand_tabs(text: &str, size: usize) -> Result<String, Error> {
    let mut out = Growing::default();
    let mut column = 0;
    for c in text.chars() {
        match c {
            '\t' => {
                let width = if size == 0 { 0 } else { size - column % size };
                out.push_str(&" ".repeat(width))?;
                column += width;
            }
            _ => {
                out.push(c)?;
                column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    Ok(out.finish())
}

pub(super) fn is_in_case(c: char) -> bool {
    c.is_lowercase() || c.is_uppercase()
}

pub(super) fn is_printable_text(text: &str) -> bool {
    text.chars().all(|c| c == ' ' || is_printable(c))
}

/// Every run of letters with a case begins large and goes on small.
pub(super) fn title(text: &str) -> String {
    let mut out = String::new();
    let mut is_inside = false;
    for c in text.chars() {
        if is_inside {
            out.extend(c.to_lowercase());
        } else {
            push_title_case(&mut out, c);
        }
        is_inside = is_in_case(c);
    }
    out
}

pub(super) fn capitalize(text: &str) -> String {
    let mut out = String::new();
    if let Some(first) = text.chars().next() {
        push_title_case(&mut out, first);
        out.push_str(&text[first.len_utf8()..].to_lowercase());
    }
    out
}

/// The large form of a letter at the beginning of a word; of letters that become several, only the first is large.
pub(super) fn push_title_case(out: &mut String, c: char) {
    let digraph = match c {
        'Ǆ'..='ǆ' => Some('ǅ'),
        'Ǉ'..='ǉ' => Some('ǈ'),
        'Ǌ'..='ǌ' => Some('ǋ'),
        'Ǳ'..='ǳ' => Some('ǲ'),
        _ => None,
    };
    if let Some(digraph) = digraph {
        out.push(digraph);
        return;
    }
    let mut large = c.to_uppercase();
    out.extend(large.next());
    out.extend(large.flat_map(char::to_lowercase));
}

/// `isdigit` and its like. Python tells digits of other scripts, powers and fractions apart by tables that Rust has not.
pub(super) fn is_number(text: &str, method: &str) -> Result<bool, Error> {
    let is_unknown = |c: char| !c.is_ascii() && (c.is_numeric() || (method == "isnumeric" && c >= '\u{2e80}'));
    if let Some(unknown) = text.chars().find(|&c| is_unknown(c)) {
        return Err(fault(&format!("{method} is not known of {unknown:?}")));
    }
    Ok(!text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()))
}

fn fault(message: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.to_string())
}
