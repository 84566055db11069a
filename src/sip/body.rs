//! The session description in a message's body, also inside a multipart body (ISUP and location go with SDP in these).

use super::message::{Message, Name};
use super::uri;
use memchr::memmem;

/// Largest session description that is kept, in bytes. WebRTC offers have about 6 KiB; what is larger would let one datagram
/// a call cost far more than the memory that a call is planned with. Beyond it the leg counts as partial.
pub const MAX_SDP: usize = 16 * 1024;
/// How deep multipart bodies are looked into: an alternative within a mixed body is the most that is plausible.
const MAX_DEPTH: u8 = 3;

/// What a body says about the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Description<'a> {
    /// There is no session description.
    None,
    /// The session description.
    Sdp(&'a [u8]),
    /// There is one, but it is larger than [`MAX_SDP`] or coded (compressed, encrypted).
    Unreadable,
}

/// Finds the session description of a message.
///
/// One that is meant for an early session (RFC 3959) is left aside: it describes another session.
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
    // Some senders put an empty line too many before it.
    let body = leading(body);
    if body.len() <= MAX_SDP && body.starts_with(b"v=") { Description::Sdp(body) } else { Description::Unreadable }
}

fn leading(body: &[u8]) -> &[u8] {
    &body[body.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count()..]
}

fn is_early(disposition: &[u8]) -> bool {
    disposition.split(|b| *b == b';').next().unwrap_or_default().trim_ascii().eq_ignore_ascii_case(b"early-session")
}

/// Type and subtype; white space may stand around the slash (RFC 3261 section 25.1).
fn media_type(value: &[u8]) -> (&[u8], &[u8]) {
    let value = &value[..memchr::memchr(b';', value).unwrap_or(value.len())];
    let (main, sub) = value.split_at(memchr::memchr(b'/', value).unwrap_or(value.len()));
    (main.trim_ascii(), sub.get(1..).unwrap_or_default().trim_ascii())
}

/// The parts between the boundaries (RFC 2046 section 5.1). The last one may lack its closing boundary.
fn parts<'a>(body: &'a [u8], boundary: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    let mark = [b"--", boundary].concat();
    // Where the next boundary begins and ends: at the start of a line, and not within a longer word.
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

/// Content-Type of a part, whether it is meant for an early session, and its content.
fn head(part: &[u8]) -> (&[u8], bool, &[u8]) {
    let (mut kind, mut early) = (&part[..0], false);
    // The first line is what is left of the boundary's.
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
    // The line end before a boundary belongs to the boundary. But where a sender has only one, it is that of the last line as
    // well, so one is kept.
    let twice = content.strip_suffix(b"\r\n").filter(|c| c.ends_with(b"\n"));
    let twice = twice.or_else(|| content.strip_suffix(b"\n").filter(|c| c.ends_with(b"\n")));
    (kind, early, twice.unwrap_or(content))
}

fn line_end(text: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', &text[at..]).map_or(text.len(), |n| at + n + 1)
}

#[cfg(test)]
mod tests;
