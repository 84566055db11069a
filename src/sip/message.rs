//! A zero-copy, lenient SIP parser for captured messages.
//!
//! The parser accepts what phones and servers really send, beyond what RFC 3261 allows: compact header names, folded
//! headers, bare LF, blank space before the colon, bytes that are not UTF-8, a missing or wrong Content-Length. It
//! requires only a start line and Call-ID, From, To and CSeq. Everything else is a view computed on demand. The parser
//! never panics, and allocates nothing for a message of up to 32 headers. It decodes and changes nothing: values return
//! into a dialog verbatim.
//!
//! If a single-value header occurs twice, the first one counts. Later ones were added on the way, and the common
//! servers use the first as well. With another choice the tracker would learn a different dialog than the server has.

mod name;
#[cfg(test)]
mod torture;
mod typed;

pub use name::{Method, Name};
pub use typed::{Event, RAck, Reason, Refresher, Replaces, SessionExpires, SessionId, SubscriptionState};

use super::uri;
use smallvec::SmallVec;

/// Largest message, in bytes: the limit of a UDP datagram and of the 16-bit offsets.
pub const MAX_BYTES: usize = 65_535;
/// Most header lines in a message. Real messages have under 50. A message with more than the limit is refused, which
/// bounds its cost. A header's index must fit a byte, with one value left for "none".
pub const MAX_HEADERS: usize = 250;
/// Header lines stored without an allocation. Nearly all real messages have fewer.
const INLINE: usize = 32;
/// Index that stands for "no such header".
const NONE: u8 = u8::MAX;

/// Reasons why bytes are no usable SIP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A NAT keep-alive (RFC 5626 section 3.5.1, or a datagram of at most four bytes), or an empty datagram.
    #[error("not SIP: a keep-alive datagram")]
    KeepAlive,
    /// The first line is neither a SIP/2.0 request line nor a status line.
    #[error("not SIP: the first line is neither a request line nor a status line of SIP/2.0")]
    NotSip,
    /// More than [`MAX_BYTES`].
    #[error("the SIP message is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// More than [`MAX_HEADERS`] header lines.
    #[error("the SIP message has more than {MAX_HEADERS} headers")]
    TooManyHeaders,
    /// A header is missing without which a message belongs to no dialog or transaction.
    #[error("the SIP message has no usable {0} header")]
    Missing(&'static str),
}

/// The first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start<'a> {
    /// A request line.
    Request {
        /// The method, or [`Method::Other`] for an unknown one.
        method: Method,
        /// The method's name as written.
        name: &'a [u8],
        /// The request URI.
        uri: &'a [u8],
    },
    /// A status line.
    Response {
        /// The status code, 100 to 999.
        code: u16,
        /// The reason phrase, possibly empty.
        reason: &'a [u8],
    },
}

/// One header line, as offsets into the message.
#[derive(Clone, Copy)]
struct Header {
    name: Name,
    name_start: u16,
    name_len: u16,
    start: u16,
    len: u16,
}

/// A parsed message: a view of its datagram.
#[derive(Clone)]
pub struct Message<'a> {
    bytes: &'a [u8],
    start: Start<'a>,
    method: Method,
    call_id: &'a [u8],
    from: &'a [u8],
    to: &'a [u8],
    cseq: (u32, &'a [u8]),
    body: &'a [u8],
    whole: bool,
    headers: SmallVec<[Header; INLINE]>,
    /// For each name, the index of its first line in `headers`, or [`NONE`].
    first: [u8; Name::COUNT],
}

impl std::fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Header values hold phone numbers and bodies hold keys. Neither belongs in debug output.
        f.debug_struct("Message").field("method", &self.method).field("code", &self.code()).finish_non_exhaustive()
    }
}

impl<'a> Message<'a> {
    /// Parses one datagram.
    ///
    /// # Errors
    /// See [`ParseError`]. Trailing bytes beyond Content-Length are dropped (RFC 3261 section 18.3).
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        if bytes.len() > MAX_BYTES {
            return Err(ParseError::TooLarge);
        }
        // RFC 3261 section 7.5: ignore empty lines before the start line.
        let skip = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        if bytes.len() - skip <= 4 {
            return Err(ParseError::KeepAlive);
        }
        let (first, mut at) = line(bytes, skip);
        let start = start_line(first)?;

        let mut headers: SmallVec<[Header; INLINE]> = SmallVec::new();
        let mut places = [NONE; Name::COUNT];
        let (mut body_at, mut closed) = (bytes.len(), false);
        while at < bytes.len() {
            let (text, next) = line(bytes, at);
            if text.is_empty() {
                (body_at, closed) = (next, true);
                break;
            }
            let mut end = at + text.len();
            let mut after = next;
            // Folding (RFC 3261 section 7.3.1): a line that begins with white space continues the line before it.
            while matches!(bytes.get(after), Some(b' ' | b'\t')) {
                let (more, next) = line(bytes, after);
                end = after + more.len();
                after = next;
            }
            if let Some(header) = header(bytes, at, end) {
                if headers.len() == MAX_HEADERS {
                    return Err(ParseError::TooManyHeaders);
                }
                let place = &mut places[header.name as usize];
                if *place == NONE {
                    // MAX_HEADERS keeps the index below NONE.
                    *place = u8::try_from(headers.len()).unwrap_or(NONE);
                }
                headers.push(header);
            } else if text == b"v=0" {
                // Every session description begins with this line, and no header looks like it: the empty line is
                // missing.
                body_at = at;
                break;
            }
            at = after;
        }

        let first = |n: Name| headers.get(usize::from(places[n as usize])).map(|h| slice(bytes, h.start, h.len));
        let some = |n: Name, what: &'static str| first(n).filter(|v| !v.is_empty()).ok_or(ParseError::Missing(what));
        let call_id = some(Name::CallId, "Call-ID")?;
        let from = some(Name::From, "From")?;
        let to = some(Name::To, "To")?;
        let cseq = cseq(some(Name::CSeq, "CSeq")?).ok_or(ParseError::Missing("CSeq"))?;
        let rest = &bytes[body_at..];
        // A length beyond the datagram means a truncated or wrong message. Take the available bytes.
        let length = first(Name::ContentLength).and_then(number).map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let body = &rest[..length.unwrap_or(rest.len()).min(rest.len())];
        let whole = closed && length.is_none_or(|n| n <= rest.len());
        let method = match start {
            Start::Request { method, .. } => method,
            Start::Response { .. } => Method::of(cseq.1),
        };
        Ok(Self { bytes, start, method, call_id, from, to, cseq, body, whole, headers, first: places })
    }

    /// The whole datagram of the message.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether the message looks complete: an empty line closes its headers, and its body has all the bytes that
    /// Content-Length claims, if present. A truncated message may end within a value.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// The first line.
    #[must_use]
    pub fn start(&self) -> Start<'a> {
        self.start
    }

    /// Whether this is a request.
    #[must_use]
    pub fn is_request(&self) -> bool {
        matches!(self.start, Start::Request { .. })
    }

    /// The method, from the request line or from a response's CSeq.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// The status code of a response.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self.start {
            Start::Response { code, .. } => Some(code),
            Start::Request { .. } => None,
        }
    }

    /// The request URI of a request.
    #[must_use]
    pub fn request_uri(&self) -> Option<&'a [u8]> {
        match self.start {
            Start::Request { uri, .. } => Some(uri),
            Start::Response { .. } => None,
        }
    }

    /// The value of the first header `n`, trimmed. Folds are kept verbatim.
    #[must_use]
    pub fn header(&self, n: Name) -> Option<&'a [u8]> {
        self.headers.get(usize::from(self.first[n as usize])).map(|h| slice(self.bytes, h.start, h.len))
    }

    /// The value of each header line `n`, in order.
    pub fn headers(&self, n: Name) -> impl Iterator<Item = &'a [u8]> + '_ {
        let first = usize::from(self.first[n as usize]);
        let lines = self.headers.get(first..).unwrap_or_default();
        lines.iter().filter(move |h| h.name == n).map(|h| slice(self.bytes, h.start, h.len))
    }

    /// The comma-separated values of all header lines `n`, in order. Commas within quotes or angle brackets do not
    /// separate.
    pub fn values(&self, n: Name) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.headers(n).flat_map(uri::split_values)
    }

    /// The value of the first header with this name (long form, any case).
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&'a [u8]> {
        match Name::of(name.as_bytes()) {
            Name::Other => self.all().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| v),
            known => self.header(known),
        }
    }

    /// Every header line as (name as written, trimmed value), in order.
    pub fn all(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + '_ {
        self.headers.iter().map(|h| (slice(self.bytes, h.name_start, h.name_len), slice(self.bytes, h.start, h.len)))
    }

    /// Call-ID.
    #[must_use]
    pub fn call_id(&self) -> &'a [u8] {
        self.call_id
    }

    /// The whole value of From.
    #[must_use]
    pub fn from(&self) -> &'a [u8] {
        self.from
    }

    /// The whole value of To.
    #[must_use]
    pub fn to(&self) -> &'a [u8] {
        self.to
    }

    /// Number and method name of CSeq.
    #[must_use]
    pub fn cseq(&self) -> (u32, &'a [u8]) {
        self.cseq
    }

    /// The tag of From.
    #[must_use]
    pub fn from_tag(&self) -> Option<&'a [u8]> {
        uri::tag_of(self.from)
    }

    /// The tag of To.
    #[must_use]
    pub fn to_tag(&self) -> Option<&'a [u8]> {
        uri::tag_of(self.to)
    }

    /// The branch of the topmost Via. It may be the bare magic cookie, or the branch of an RFC 2543 client, which
    /// identifies no transaction on its own.
    #[must_use]
    pub fn branch(&self) -> Option<&'a [u8]> {
        let top = self.values(Name::Via).next()?;
        // Neither the protocol nor sent-by can contain a semicolon.
        uri::params(&top[memchr::memchr(b';', top)?..]).find(|p| p.name.eq_ignore_ascii_case(b"branch"))?.value
    }

    /// The body: the rest of the datagram, cut at a smaller Content-Length.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The URI of the first Contact, without angle brackets. `None` without a Contact or for `*`.
    #[must_use]
    pub fn contact_uri(&self) -> Option<&'a [u8]> {
        self.values(Name::Contact).next().map(uri::uri_of).filter(|u| !u.is_empty() && *u != b"*")
    }
}

/// The line that begins at `at`, without its end, and the offset of the next line. A CR without LF does not end a line.
/// Several CRs before an LF do.
fn line(bytes: &[u8], at: usize) -> (&[u8], usize) {
    let rest = &bytes[at..];
    let (mut text, next) = match memchr::memchr(b'\n', rest) {
        Some(n) => (&rest[..n], at + n + 1),
        None => (rest, bytes.len()),
    };
    while let Some(shorter) = text.strip_suffix(b"\r") {
        text = shorter;
    }
    (text, next)
}

fn slice(bytes: &[u8], start: u16, len: u16) -> &[u8] {
    &bytes[usize::from(start)..usize::from(start) + usize::from(len)]
}

pub(super) fn start_line(text: &[u8]) -> Result<Start<'_>, ParseError> {
    const VERSION: &[u8] = b"SIP/2.0";
    let text = text.trim_ascii();
    if text.len() > VERSION.len() && text[..VERSION.len()].eq_ignore_ascii_case(VERSION) {
        let rest = text[VERSION.len()..].trim_ascii_start();
        let (code, reason) = rest.split_at(memchr::memchr2(b' ', b'\t', rest).unwrap_or(rest.len()));
        let code = number(code).filter(|c| (100..1000).contains(c)).ok_or(ParseError::NotSip)?;
        // The range check above keeps the code within u16.
        return Ok(Start::Response { code: u16::try_from(code).unwrap_or(999), reason: reason.trim_ascii() });
    }
    let (name, rest) = text.split_at(memchr::memchr2(b' ', b'\t', text).ok_or(ParseError::NotSip)?);
    let last = memchr::memrchr2(b' ', b'\t', rest).ok_or(ParseError::NotSip)?;
    let (uri, version) = (rest[..last].trim_ascii(), &rest[last + 1..]);
    if uri.is_empty() || !version.eq_ignore_ascii_case(VERSION) || !name.iter().all(|b| is_token(*b)) {
        return Err(ParseError::NotSip);
    }
    Ok(Start::Request { method: Method::of(name), name, uri })
}

/// The header in `bytes[at..end]`. `None` for any other line, which is skipped.
fn header(bytes: &[u8], at: usize, end: usize) -> Option<Header> {
    let text = &bytes[at..end];
    // Names are short, so a byte-by-byte search is faster than a vectorised call.
    let colon = text.iter().position(|b| *b == b':')?;
    let written = text[..colon].trim_ascii_end();
    let name = Name::of(written);
    // A known name consists of token characters.
    if name == Name::Other && (written.is_empty() || !written.iter().all(|b| is_token(*b))) {
        return None;
    }
    let value = &text[colon + 1..];
    let lead = value.len() - value.trim_ascii_start().len();
    let start = at + colon + 1 + lead;
    Some(Header {
        name,
        name_start: u16::try_from(at).ok()?,
        name_len: u16::try_from(written.len()).ok()?,
        start: u16::try_from(start).ok()?,
        len: u16::try_from(value[lead..].trim_ascii_end().len()).ok()?,
    })
}

/// Token characters of RFC 3261 section 25.1.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 256 {
        #[allow(clippy::cast_possible_truncation, reason = "the loop ends before 256")]
        let byte = b as u8;
        table[b] = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~');
        b += 1;
    }
    table
};

pub(super) fn is_token(b: u8) -> bool {
    TOKEN[usize::from(b)]
}

fn cseq(value: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = value.split_at(value.iter().position(|b| !b.is_ascii_digit())?);
    let method = rest.trim_ascii();
    if method.is_empty() {
        return None;
    }
    Some((number(digits)?, method))
}

/// A decimal number. `None` if the text is empty, no number, or beyond 32 bits.
fn number(text: &[u8]) -> Option<u32> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u32, |n, b| {
        b.is_ascii_digit().then_some(())?;
        n.checked_mul(10)?.checked_add(u32::from(b - b'0'))
    })
}

#[cfg(test)]
mod tests;
