//! Splits header values: at commas into values, at semicolons into parameters, never inside quotes.

/// One parameter of a header or URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param<'a> {
    /// The whole text between two semicolons, as written.
    pub whole: &'a [u8],
    /// The name, trimmed.
    pub name: &'a [u8],
    /// The text behind `=`, trimmed, with its quotes. `None` without `=`.
    pub value: Option<&'a [u8]>,
}

/// The parameters of `text`, which begins with a semicolon (or is empty). A semicolon within quotes does not separate.
pub fn params(text: &[u8]) -> impl Iterator<Item = Param<'_>> {
    // Most parameters have no quotes, and then no parameter needs the slow scan.
    let quotes = memchr::memchr(b'"', text).is_some();
    let mut rest = text;
    std::iter::from_fn(move || {
        let from = rest.strip_prefix(b";")?;
        let end = if quotes { outside_quotes(from, [b';'; 3]) } else { memchr::memchr(b';', from) };
        let (whole, more) = from.split_at(end.unwrap_or(from.len()));
        rest = more;
        Some(match memchr::memchr(b'=', whole) {
            Some(n) => Param { whole, name: whole[..n].trim_ascii(), value: Some(whole[n + 1..].trim_ascii()) },
            None => Param { whole, name: whole.trim_ascii(), value: None },
        })
    })
}

/// The value of the first parameter called `name`, empty if it has no value. `text` begins with a semicolon.
pub(super) fn find_param<'a>(text: &'a [u8], name: &str) -> Option<&'a [u8]> {
    params(text).find(|p| p.name.eq_ignore_ascii_case(name.as_bytes())).map(|p| p.value.unwrap_or_default())
}

/// Offset of the first byte from `any` outside quoted text. An unclosed quote hides nothing, so one stray quote cannot
/// hide a tag.
pub(super) fn outside_quotes(text: &[u8], any: [u8; 3]) -> Option<usize> {
    let mut at = 0;
    while at < text.len() {
        let byte = text[at];
        if byte == b'"'
            && let Some(end) = quoted_end(&text[at..])
        {
            at += end;
            continue;
        }
        if any.contains(&byte) {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// Length of the quoted string at the start of `text`, both quotes included (RFC 3261 section 25.1: `\` escapes one
/// byte).
fn quoted_end(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The comma-separated values in one header line, each trimmed, without empty ones. Commas within quotes or angle
/// brackets do not separate.
pub fn split_values(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let end = value_end(rest);
            let value = rest[..end].trim_ascii();
            rest = rest.get(end + 1..).unwrap_or_default();
            if !value.is_empty() {
                return Some(value);
            }
        }
        None
    })
}

fn value_end(text: &[u8]) -> usize {
    // The common case has no comma at all.
    if memchr::memchr(b',', text).is_none() {
        return text.len();
    }
    let mut at = 0;
    while let Some(n) = outside_quotes(&text[at..], *b",<<") {
        at += n;
        if text[at] == b',' {
            return at;
        }
        // Quotes inside angle brackets mean nothing, and an unclosed bracket hides nothing.
        at += memchr::memchr(b'>', &text[at..]).unwrap_or(0) + 1;
    }
    text.len()
}

/// The content of a quoted string without its quotes, escapes as written. Other text is returned unchanged.
#[must_use]
pub fn unquoted(text: &[u8]) -> &[u8] {
    match text {
        [b'"', inner @ .., b'"'] => inner,
        _ => text,
    }
}
