//! What templates of transformers may use and minijinja does not know, written otherwise.

use std::fmt::Write;

/// Rewrites, as Jinja2 does, every end of a line to `\n`. Within tags:
/// - `{% generation %}`, which marks the assistant's words for training: it renders its body, so a block with
///   variables of its own stands for it;
/// - in strings, what Python escapes with a backslash and minijinja does not;
/// - floats, as what a filter gives: minijinja computes with constants before its operators are replaced.
pub(super) fn for_minijinja(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(start) = ["{%", "{{", "{#"].iter().filter_map(|open| rest.find(open)).min() {
        let (before, tag) = rest.split_at(start + 2);
        out.push_str(before);
        rest = if before.ends_with("{#") {
            copy_through("#}", tag, &mut out)
        } else if let Some(body) = after_word(tag, "raw") {
            copy_raw(&tag[..tag.len() - body.len()], body, &mut out)
        } else {
            copy_to_end_of_tag(copy_generation(tag, &mut out), &mut out)
        };
    }
    out.push_str(rest);
    out
}

/// Copies up to and with `end`, and gives what follows.
fn copy_through<'a>(end: &str, text: &'a str, out: &mut String) -> &'a str {
    let (copied, rest) = text.split_at(text.find(end).map_or(text.len(), |at| at + end.len()));
    out.push_str(copied);
    rest
}

/// What follows a block of this one word, if the tag is one: `tag` begins after its `{%`.
fn after_word<'a>(tag: &'a str, word: &str) -> Option<&'a str> {
    let after = tag.trim_start_matches(['-', '+']).trim_start().strip_prefix(word)?;
    after.trim_start().trim_start_matches(['-', '+']).strip_prefix("%}")
}

/// Copies a block whose body is no template. Jinja2 keeps the end of the line after its tag, which minijinja drops.
fn copy_raw<'a>(tag: &str, body: &'a str, out: &mut String) -> &'a str {
    out.push_str(tag);
    if body.starts_with('\n') && !tag.ends_with("-%}") {
        out.push('\n');
    }
    let end = body
        .match_indices("{%")
        .find(|(at, _)| after_word(&body[at + 2..], "endraw").is_some());
    let (raw, rest) = body.split_at(end.map_or(body.len(), |(at, open)| at + open.len()));
    out.push_str(raw);
    copy_through("%}", rest, out)
}

/// Copies a tag's first word if it is one of the two that have another name, and gives what follows.
fn copy_generation<'a>(tag: &'a str, out: &mut String) -> &'a str {
    for (from, to) in [("generation", "with"), ("endgeneration", "endwith")] {
        if after_word(tag, from).is_some()
            && let Some((before, after)) = tag.split_once(from)
        {
            out.push_str(before);
            out.push_str(to);
            return after;
        }
    }
    tag
}

/// Copies up to the end of the tag and gives what follows.
fn copy_to_end_of_tag<'a>(tag: &'a str, out: &mut String) -> &'a str {
    let mut rest = tag;
    let mut open_braces = 0;
    while let Some(c) = rest.chars().next() {
        match c {
            '\'' | '"' => {
                rest = copy_string(rest, out);
                continue;
            }
            '0'..='9' if !out.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.') => {
                rest = copy_number(rest, out);
                continue;
            }
            '{' => open_braces += 1,
            '}' if open_braces > 0 => open_braces -= 1,
            '%' | '}' if rest[1..].starts_with('}') => return rest,
            _ => {}
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    rest
}

/// Copies a number and gives what follows.
fn copy_number<'a>(text: &'a str, out: &mut String) -> &'a str {
    let digits = |text: &str| {
        text.find(|c: char| !c.is_ascii_digit() && c != '_')
            .unwrap_or(text.len())
    };
    let whole = digits(text);
    let mut length = whole;
    if let Some(fraction) = text[length..].strip_prefix('.')
        && fraction.starts_with(|c: char| c.is_ascii_digit())
    {
        length += 1 + digits(fraction);
    }
    if let Some(exponent) = text[length..].strip_prefix(['e', 'E']) {
        let sign = usize::from(exponent.starts_with(['+', '-']));
        if exponent[sign..].starts_with(|c: char| c.is_ascii_digit()) {
            length += 1 + sign + digits(&exponent[sign..]);
        }
    }
    let (number, rest) = text.split_at(length);
    if length > whole {
        let _ = write!(out, "({number}|float)");
    } else {
        out.push_str(number);
    }
    rest
}

/// Copies a string, its escapes as minijinja knows them, and gives what follows.
fn copy_string<'a>(text: &'a str, out: &mut String) -> &'a str {
    let quote = &text[..1];
    out.push_str(quote);
    let mut rest = &text[1..];
    while let Some(at) = rest.find(['\\', '\'', '"']) {
        out.push_str(&rest[..at]);
        let found = &rest[at..];
        rest = &found[1..];
        if let Some(escaped) = found.strip_prefix('\\') {
            rest = copy_escape(escaped, out);
        } else {
            out.push_str(&found[..1]);
            if found.starts_with(quote) {
                return rest;
            }
        }
    }
    out.push_str(rest);
    ""
}

/// Copies what a backslash before this text escapes, and gives what follows.
fn copy_escape<'a>(text: &'a str, out: &mut String) -> &'a str {
    let digits = |start: usize, radix: u32, count: usize| {
        let digits = text[start..]
            .chars()
            .take(count)
            .take_while(|c| c.is_digit(radix))
            .count();
        (
            u32::from_str_radix(&text[start..start + digits], radix).unwrap_or(0),
            start + digits,
        )
    };
    let (code, length) = match text.chars().next() {
        // The line goes on.
        Some('\n') => return &text[1..],
        Some('a') => (7, 1),
        Some('v') => (11, 1),
        Some('0'..='7') => digits(0, 8, 3),
        Some('x') => digits(1, 16, 2),
        Some('U') => digits(1, 16, 8),
        // As minijinja has it, or no escape at all; then the backslash stays.
        Some(c) => {
            let is_known = "ntrbfu'\"\\/".contains(c);
            out.push_str(if is_known && c != '/' { "\\" } else { "\\\\" });
            out.push(c);
            return &text[c.len_utf8()..];
        }
        None => return text,
    };
    match char::from_u32(code) {
        Some(c) if c.is_ascii() => {
            let _ = write!(out, "\\u{code:04x}");
        }
        Some(c) => out.push(c),
        None => out.push('\u{fffd}'),
    }
    &text[length..]
}
