//! Writes SIP messages: strict output (CRLF, one value a line, Content-Length always right) from verbatim values.

#[cfg(test)]
mod tests;

use super::message::{Message, Name, is_token};
use super::uri;
use std::net::{IpAddr, SocketAddr};

/// A message under construction. Headers appear in the order of the calls.
///
/// Values are copied verbatim, except that CR and LF become spaces, so a folded value or an attacker's value cannot
/// begin a new line. In the request line a space would end the URI, so bytes that a URI cannot contain are escaped. In
/// a method or header name, a byte outside the token characters becomes `-`.
#[derive(Clone, Debug)]
pub struct Builder {
    out: Vec<u8>,
    body: Vec<u8>,
}

impl Builder {
    /// Begins a request with its request line. The caller adds all headers.
    #[must_use]
    pub fn request(method: &str, uri: &[u8]) -> Self {
        let mut b = Self { out: Vec::with_capacity(1024), body: Vec::new() };
        b.push_name(method);
        b.out.push(b' ');
        for &byte in uri {
            match byte {
                // RFC 3261 section 25.1 allows none of these in a URI. Bytes beyond ASCII are not allowed either, but a
                // phone that put them into its Contact expects them back.
                0..=b' ' | b'"' | b'<' | b'>' | 0x7f => b.out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
                _ => b.out.push(byte),
            }
        }
        b.out.extend_from_slice(b" SIP/2.0\r\n");
        b
    }

    /// Begins a response with the headers that RFC 3261 section 8.2.6.2 copies from the request: every Via, From, To
    /// (with `to_tag` if it has no tag yet), Call-ID, CSeq, and Record-Route in a 2xx (section 12.1.1).
    ///
    /// With `source`, the topmost Via gets `received` and a filled-in `rport` (RFC 3261 section 18.2.1, RFC 3581
    /// section 4).
    #[must_use]
    pub fn response_to(
        request: &Message<'_>,
        code: u16,
        reason: &str,
        to_tag: Option<&[u8]>,
        source: Option<SocketAddr>,
    ) -> Self {
        let mut b = Self { out: Vec::with_capacity(1024), body: Vec::new() };
        b.out.extend_from_slice(format!("SIP/2.0 {code} ").as_bytes());
        b.push(reason.as_bytes());
        b.out.extend_from_slice(b"\r\n");
        for (i, via) in request.values(Name::Via).enumerate() {
            b = match source.filter(|_| i == 0) {
                Some(source) => b.header("Via", received_from(via, source)),
                None => b.header("Via", via),
            };
        }
        if (200..300).contains(&code) {
            for route in request.headers(Name::RecordRoute) {
                b = b.header("Record-Route", route);
            }
        }
        b = b.header("From", request.from());
        let to = match to_tag.filter(|_| request.to_tag().is_none()) {
            Some(tag) => tagged(request.to(), tag),
            None => request.to().to_vec(),
        };
        let (number, method) = request.cseq();
        b.header("To", to)
            .header("Call-ID", request.call_id())
            .header("CSeq", [number.to_string().as_bytes(), b" ", method].concat())
    }

    /// Adds a header line.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.push_name(name);
        self.out.extend_from_slice(b": ");
        self.push(value.as_ref());
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// Adds Content-Type and the body. An empty body adds neither.
    #[must_use]
    pub fn body(mut self, content_type: &str, bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return self;
        }
        self.body = bytes.to_vec();
        self.header("Content-Type", content_type)
    }

    /// Finishes the message.
    #[must_use]
    pub fn build(mut self) -> Vec<u8> {
        self.out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", self.body.len()).as_bytes());
        self.out.append(&mut self.body);
        self.out
    }

    fn push_name(&mut self, name: &str) {
        self.out.extend(name.bytes().map(|b| if is_token(b) { b } else { b'-' }));
    }

    fn push(&mut self, value: &[u8]) {
        self.out.extend(value.iter().map(|&b| if matches!(b, b'\r' | b'\n') { b' ' } else { b }));
    }
}

/// Destination of a response to a request with this topmost Via (RFC 3261 section 18.2.2, RFC 3581 section 4): the
/// source address, at the source port if `rport` is present, otherwise at the sent-by port.
///
/// A sender behind a NAT (its sent-by differs from its source address) is answered at its source port even without
/// `rport`. Nothing else would pass the NAT.
#[must_use]
pub fn response_address(top_via: &[u8], source: SocketAddr) -> SocketAddr {
    if uri::param(top_via, "rport").is_some() {
        return source;
    }
    match sent_by(top_via) {
        Some((host, port)) if host == source.ip() => SocketAddr::new(source.ip(), port.unwrap_or(5060)),
        _ => source,
    }
}

fn sent_by(via: &[u8]) -> Option<(IpAddr, Option<u16>)> {
    let via = uri::via(via)?;
    Some((std::str::from_utf8(via.host).ok()?.parse().ok()?, via.port))
}

/// A To value with `tag`, which replaces an empty tag.
fn tagged(to: &[u8], tag: &[u8]) -> Vec<u8> {
    let params = uri::name_addr(to).params;
    // Parameters come last in the value.
    let mut out = to[..to.len() - params.len()].to_vec();
    for p in uri::params(params).filter(|p| !p.name.eq_ignore_ascii_case(b"tag")) {
        out.push(b';');
        out.extend_from_slice(p.whole);
    }
    let bare = out.len();
    out.extend_from_slice(b";tag=");
    out.extend_from_slice(tag);
    if uri::tag_of(&out).is_none() {
        // The angle bracket was never closed, so the tag would be part of the URI.
        out.insert(bare, b'>');
    }
    out
}

fn received_from(via: &[u8], source: SocketAddr) -> Vec<u8> {
    let rport = uri::param(via, "rport").is_some();
    if !rport && sent_by(via).is_some_and(|(host, _)| host == source.ip()) {
        return via.to_vec();
    }
    let (head, params) = via.split_at(memchr::memchr(b';', via).unwrap_or(via.len()));
    let mut out = head.to_vec();
    for p in uri::params(params) {
        if p.name.eq_ignore_ascii_case(b"received") {
            continue;
        }
        out.push(b';');
        if p.name.eq_ignore_ascii_case(b"rport") {
            out.extend_from_slice(format!("rport={}", source.port()).as_bytes());
        } else {
            out.extend_from_slice(p.whole);
        }
    }
    // An IPv6 address has no brackets here (RFC 3261 section 25.1, via-received).
    out.extend_from_slice(format!(";received={}", source.ip()).as_bytes());
    out
}
