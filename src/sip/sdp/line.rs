//! Splits a description into lines.

/// A line without its ending, and the whole line as written.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    pub(super) text: &'a [u8],
    pub(super) whole: &'a [u8],
}

impl<'a> Line<'a> {
    /// The line ending: CR LF, LF, CR, or nothing at the end of the body.
    pub(super) fn ending(&self) -> &'a [u8] {
        self.whole.get(self.text.len()..).unwrap_or_default()
    }

    pub(super) fn value(&self, kind: u8) -> Option<&'a [u8]> {
        match self.text {
            [k, b'=', value @ ..] if *k == kind => Some(value),
            _ => None,
        }
    }

    /// The value of `a=name:value`, empty for `a=name`. Names are case-sensitive by the standard, but some senders use
    /// another case.
    pub(super) fn attribute(&self, name: &[u8]) -> Option<&'a [u8]> {
        let (head, rest) = self.value(b'a')?.split_at_checked(name.len())?;
        if !head.eq_ignore_ascii_case(name) {
            return None;
        }
        if trimmed(rest).is_empty() { Some(&rest[..0]) } else { rest.strip_prefix(b":") }
    }
}

/// The lines of a body. A CR without LF also ends a line: some senders write only CR, and no field can contain one.
pub(super) fn lines(body: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        let after = match rest.get(end..) {
            Some([b'\r', b'\n', ..]) => end + 2,
            Some([_, ..]) => end + 1,
            _ => end,
        };
        let (whole, more) = rest.split_at(after);
        rest = more;
        Some(Line { text: &whole[..end], whole })
    })
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// The value without surrounding blanks. A blank is a space or a tab for every function that reads lines. If one of
/// them also skipped other control characters, two functions could read different formats from the same line.
pub(super) fn trimmed(value: &[u8]) -> &[u8] {
    trimmed_start(trimmed_end(value))
}

pub(super) fn trimmed_start(value: &[u8]) -> &[u8] {
    &value[value.iter().position(|b| !is_blank(*b)).unwrap_or(value.len())..]
}

pub(super) fn trimmed_end(value: &[u8]) -> &[u8] {
    &value[..value.iter().rposition(|b| !is_blank(*b)).map_or(0, |last| last + 1)]
}

pub(super) fn fields(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| is_blank(*b)).filter(|f| !f.is_empty())
}
