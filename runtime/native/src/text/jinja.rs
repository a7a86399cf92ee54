//! What templates of transformers may use and minijinja does not know, written otherwise.

/// Rewrites, within tags:
/// - `{% generation %}`, which marks the assistant's words for training: it renders its body, so a block that is always
///   taken stands for it;
/// - a backslash at the end of a line within a string, which as in Python joins the lines.
pub(super) fn without_python_extensions(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%").into_iter().chain(rest.find("{{")).min() {
        let (before, tag) = rest.split_at(start + 2);
        out.push_str(before);
        rest = copy_generation(tag, &mut out);
        rest = copy_to_end_of_tag(rest, &mut out);
    }
    out.push_str(rest);
    out
}

/// Copies a tag's first word if it is one of the two that have another name, and gives what follows.
fn copy_generation<'a>(tag: &'a str, out: &mut String) -> &'a str {
    let word = tag.trim_start_matches(|c: char| matches!(c, '-' | '+') || c.is_whitespace());
    for (from, to) in [("generation", "if true"), ("endgeneration", "endif")] {
        if let Some(after) = word.strip_prefix(from)
            && after.trim_start().trim_start_matches(['-', '+']).starts_with("%}")
        {
            out.push_str(&tag[..tag.len() - word.len()]);
            out.push_str(to);
            return after;
        }
    }
    tag
}

/// Copies up to the end of the tag, strings with their lines joined, and gives what follows.
fn copy_to_end_of_tag<'a>(tag: &'a str, out: &mut String) -> &'a str {
    let mut quote = None;
    let mut chars = tag.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (Some(_), '\\') => {
                let escaped = chars.next().map(|(_, escaped)| escaped);
                if escaped != Some('\n') {
                    out.push(c);
                    out.extend(escaped);
                }
                continue;
            }
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '%' | '}') if tag[at + 1..].starts_with('}') => return &tag[at..],
            _ => {}
        }
        out.push(c);
    }
    ""
}
