//! Finds the session description in a message's body, also inside a multipart body (ISUP and location travel with SDP
//! this way).

use super::message::{Message, Name};
use super::uri;
use memchr::memmem;

/// Largest session description to keep, in bytes. WebRTC offers have about 6 KiB. With larger ones, one datagram a call
/// would cost far more than the memory planned for a call. Beyond the limit the leg counts as partial.
pub const MAX_SDP: usize = 16 * 1024;
/// Most levels of nested multipart bodies. An alternative within a mixed body is the deepest plausible nesting.
const MAX_DEPTH: u8 = 3;

/// The session description in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Description<'a> {
    /// No session description.
    None,
    /// The session description.
    Sdp(&'a [u8]),
    /// A session description larger than [`MAX_SDP`] or encoded (compressed, encrypted).
    Unreadable,
}

/// Finds the session description of a message.
///
/// A description for an early session (RFC 3959) is ignored, because it describes another session.
#[must_use]
pub fn description<'a>(m: &Message<'a>) -> Description<'a> {
    let body = m.body();
    if body.is_empty() {
        return Description::None;
    }
    let kind = m.header(Name::ContentType).unwrap_or_default();
    if kind.is_empty() {
        return if leading(body).starts_with(b"v=") { sdp(body) } else { Description::None };
    }
    if m.header(Name::ContentDisposition).is_some_and(is_early) {
        return Description::None;
    }
    find(kind, body, MAX_DEPTH)
}

fn find<'a>(kind: &[u8], body: &'a [u8], depth: u8) -> Description<'a> {
    let (main, sub) = media_type(kind);
    if main.eq_ignore_ascii_case(b"application") && sub.eq_ignore_ascii_case(b"sdp") {
        return sdp(body);
    }
    if depth == 0 || !main.eq_ignore_ascii_case(b"multipart") {
        return Description::None;
    }
    let Some(boundary) = uri::param(kind, "boundary").map(uri::unquoted).filter(|b| !b.is_empty()) else {
        return Description::None;
    };
    parts(body, boundary)
        .map(|part| {
            let (kind, early, content) = head(part);
            if early { Description::None } else { find(kind, content, depth - 1) }
        })
        .find(|d| *d != Description::None)
        .unwrap_or(Description::None)
}

fn sdp(body: &[u8]) -> Description<'_> {
    // Some senders put an extra empty line before the description.
    let body = leading(body);
    if body.len() <= MAX_SDP && body.starts_with(b"v=") { Description::Sdp(body) } else { Description::Unreadable }
}

fn leading(body: &[u8]) -> &[u8] {
    &body[body.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count()..]
}

fn is_early(disposition: &[u8]) -> bool {
    disposition.split(|b| *b == b';').next().unwrap_or_default().trim_ascii().eq_ignore_ascii_case(b"early-session")
}

/// Type and subtype. White space around the slash is allowed (RFC 3261 section 25.1).
fn media_type(value: &[u8]) -> (&[u8], &[u8]) {
    let value = &value[..memchr::memchr(b';', value).unwrap_or(value.len())];
    let (main, sub) = value.split_at(memchr::memchr(b'/', value).unwrap_or(value.len()));
    (main.trim_ascii(), sub.get(1..).unwrap_or_default().trim_ascii())
}

/// The parts between the boundaries (RFC 2046 section 5.1). The last part may lack its closing boundary.
fn parts<'a>(body: &'a [u8], boundary: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    let mark = [b"--", boundary].concat();
    // Start and end of the next boundary: at the start of a line, and not part of a longer word.
    let next = move |from: usize| {
        let mut at = from;
        loop {
            at += memmem::find(body.get(at..)?, &mark)?;
            let end = at + mark.len();
            let starts = at == 0 || matches!(body[at - 1], b'\n' | b'\r');
            let ends = body.get(end).is_none_or(|b| b.is_ascii_whitespace() || *b == b'-');
            if starts && ends {
                return Some((at, end));
            }
            at = end;
        }
    };
    let mut open = next(0).map(|(_, end)| end);
    std::iter::from_fn(move || {
        let start = open?;
        if body[start..].starts_with(b"--") {
            return None;
        }
        let (end, after) = next(start).map_or((body.len(), None), |(at, end)| (at, Some(end)));
        open = after;
        Some(&body[start..end])
    })
}

/// The Content-Type of a part, whether the part is for an early session, and its content.
fn head(part: &[u8]) -> (&[u8], bool, &[u8]) {
    let (mut kind, mut early) = (&part[..0], false);
    // The first line is the rest of the boundary's line.
    let mut at = line_end(part, 0);
    while at < part.len() {
        let next = line_end(part, at);
        let line = part[at..next].trim_ascii();
        at = next;
        if line.is_empty() {
            break;
        }
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let value = line[colon + 1..].trim_ascii();
        match Name::of(line[..colon].trim_ascii_end()) {
            Name::ContentType => kind = value,
            Name::ContentDisposition => early = is_early(value),
            _ => {}
        }
    }
    let content = &part[at..];
    // The line end before a boundary belongs to the boundary. Some senders write only one, and it also ends the last
    // line of the content. So remove a line end only if another one remains.
    let twice = content.strip_suffix(b"\r\n").filter(|c| c.ends_with(b"\n"));
    let twice = twice.or_else(|| content.strip_suffix(b"\n").filter(|c| c.ends_with(b"\n")));
    (kind, early, twice.unwrap_or(content))
}

fn line_end(text: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', &text[at..]).map_or(text.len(), |n| at + n + 1)
}

#[cfg(test)]
mod tests;
