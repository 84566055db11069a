//! The session description in a message's body.

use crate::sip::message::{Message, Name};
use crate::sip::uri;

/// Largest session description that is kept, in bytes. WebRTC offers have about 6 KiB; what is larger would let one datagram
/// a call cost far more than the memory that a call is planned with. Beyond it the leg counts as partial.
pub(super) const MAX_SDP: usize = 16 * 1024;

/// What a body says about the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::calls) enum Description<'a> {
    /// There is no session description.
    None,
    /// The session description.
    Sdp(&'a [u8]),
    /// There is one, but it is larger than [`MAX_SDP`] or coded (compressed, encrypted).
    Unreadable,
}

/// Finds the session description, also inside a multipart body (ISUP and location go with SDP in these).
pub(in crate::calls) fn description<'a>(m: &Message<'a>) -> Description<'a> {
    let body = m.body();
    if body.is_empty() {
        return Description::None;
    }
    let kind = m.header(Name::ContentType).unwrap_or_default();
    let found = if begins(kind, b"multipart/") {
        uri::param(kind, "boundary").and_then(|b| part(body, unquoted(b)))
    } else if begins(kind, b"application/sdp") || (kind.is_empty() && body.starts_with(b"v=")) {
        Some(body)
    } else {
        None
    };
    match found {
        None => Description::None,
        Some(sdp) if sdp.len() <= MAX_SDP && sdp.starts_with(b"v=") => Description::Sdp(sdp),
        Some(_) => Description::Unreadable,
    }
}

fn begins(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len()).is_some_and(|t| t.eq_ignore_ascii_case(prefix))
}

fn unquoted(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\"").and_then(|t| t.strip_suffix(b"\"")).unwrap_or(text)
}

/// The content of the first `application/sdp` part (RFC 2046 section 5.1).
fn part<'a>(body: &'a [u8], boundary: &[u8]) -> Option<&'a [u8]> {
    if boundary.is_empty() {
        return None;
    }
    let mark = [b"--", boundary].concat();
    let mut rest = &body[memchr::memmem::find(body, &mark)? + mark.len()..];
    while let Some(end) = memchr::memmem::find(rest, &mark) {
        let one = &rest[..end];
        let one = one.strip_prefix(b"\r\n").or_else(|| one.strip_prefix(b"\n")).unwrap_or(one);
        let (head, content) = match (memchr::memmem::find(one, b"\r\n\r\n"), memchr::memmem::find(one, b"\n\n")) {
            (Some(n), _) => (&one[..n], &one[n + 4..]),
            (None, Some(n)) => (&one[..n], &one[n + 2..]),
            (None, None) => (one, &one[one.len()..]),
        };
        if memchr::memmem::find(&head.to_ascii_lowercase(), b"application/sdp").is_some() {
            // RFC 2046: the line end before the boundary belongs to the boundary; every line of SDP ends with its own, and
            // what it was can't be told apart here, so one line end is kept.
            return Some(content);
        }
        rest = &rest[end + mark.len()..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: &str, body: &str) -> String {
        format!("INVITE sip:h SIP/2.0\r\ni: c\r\nf: <sip:a>;tag=1\r\nt: <sip:b>\r\nCSeq: 1 INVITE\r\n{kind}\r\n{body}")
    }

    fn of(text: &str) -> Option<String> {
        match description(&Message::parse(text.as_bytes()).unwrap()) {
            Description::Sdp(b) => Some(String::from_utf8_lossy(b).into_owned()),
            _ => None,
        }
    }

    #[test]
    fn finds_a_plain_and_a_multipart_description() {
        assert_eq!(of(&message("c: Application/SDP;x=y\r\n", "v=0\r\n")).as_deref(), Some("v=0\r\n"));
        assert_eq!(of(&message("", "v=0\r\n")).as_deref(), Some("v=0\r\n"));
        assert_eq!(of(&message("c: text/plain\r\n", "v=0\r\n")), None);
        let multi = "--xx\r\nContent-Type: application/isup\r\n\r\n\x01\r\n--xx\r\nContent-type: application/SDP\r\n\r\nv=0\r\n--xx--\r\n";
        assert_eq!(of(&message("Content-Type: multipart/mixed; boundary=\"xx\"\r\n", multi)).as_deref(), Some("v=0\r\n"));
        assert_eq!(of(&message("Content-Type: multipart/mixed\r\n", multi)), None);
    }

    #[test]
    fn a_huge_or_coded_description_is_unreadable() {
        for body in ["\x1f\u{8b}zip".to_owned(), format!("v={}", "0".repeat(MAX_SDP))] {
            let text = message("c: application/sdp\r\n", &body);
            assert_eq!(description(&Message::parse(text.as_bytes()).unwrap()), Description::Unreadable);
        }
    }
}
