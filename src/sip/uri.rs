//! Name-addresses, header parameters and URIs as bytes. No copy, and only the validation needed to find the parts.

mod parts;
mod via;

pub use parts::{Param, params, split_values, unquoted};
pub use via::{Via, via};

use parts::{find_param, outside_quotes};
use std::borrow::Cow;
use std::net::Ipv6Addr;

/// The parts of a header value such as `"Bob" <sip:bob@example.org;lr>;tag=1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// The display name, trimmed, with its quotes, or empty.
    pub display: &'a [u8],
    /// The URI without angle brackets.
    pub uri: &'a [u8],
    /// Header parameters from the first `;` on, or empty.
    pub params: &'a [u8],
}

/// Splits a name-addr or addr-spec header value.
///
/// Without angle brackets, everything from the first `;` on belongs to the header (RFC 3261 section 20.10).
#[must_use]
pub fn name_addr(value: &[u8]) -> NameAddr<'_> {
    let value = value.trim_ascii();
    match opening(value) {
        Some(open) => {
            let inner = &value[open + 1..];
            let close = memchr::memchr(b'>', inner).unwrap_or(inner.len());
            let rest = inner.get(close + 1..).unwrap_or_default();
            let params = memchr::memchr(b';', rest).map_or(&rest[..0], |n| &rest[n..]);
            NameAddr { display: value[..open].trim_ascii(), uri: inner[..close].trim_ascii(), params }
        }
        None => {
            let (uri, params) = value.split_at(memchr::memchr(b';', value).unwrap_or(value.len()));
            NameAddr { display: &value[..0], uri: uri.trim_ascii(), params }
        }
    }
}

/// Offset of the angle bracket that opens the URI. `None` for an addr-spec.
fn opening(value: &[u8]) -> Option<usize> {
    let first = memchr::memchr(b'<', value)?;
    // Most values have neither a quote nor a semicolon here, so skip the slow scan.
    if memchr::memchr2(b'"', b';', &value[..first]).is_none() {
        return Some(first);
    }
    match outside_quotes(value, *b"<;;") {
        // Two stray quotes, one before and one behind the bracket, only seem to enclose it.
        None => Some(first),
        Some(at) if value[at] == b'<' => Some(at),
        // A `<` in a parameter opens no URI. If no URI can have ended yet, the `;` belongs to a display name that
        // should have been quoted.
        Some(at) if memchr::memchr(b':', &value[..at]).is_some() => None,
        Some(at) => outside_quotes(&value[at..], [b'<'; 3]).map(|n| at + n),
    }
}

/// The URI of a name-addr or addr-spec, without angle brackets.
#[must_use]
pub fn uri_of(value: &[u8]) -> &[u8] {
    name_addr(value).uri
}

/// The `tag` parameter of a From or To value. `None` if absent or empty.
#[must_use]
pub fn tag_of(value: &[u8]) -> Option<&[u8]> {
    param(value, "tag").filter(|t| !t.is_empty())
}

/// The header parameter `name` of a header value such as From, Contact, Via or Session-Expires. Empty if it has no
/// value. Parameters inside angle brackets belong to the URI: see [`uri_param`].
#[must_use]
pub fn param<'a>(value: &'a [u8], name: &str) -> Option<&'a [u8]> {
    find_param(name_addr(value).params, name)
}

/// The URI parameter `name` (such as `lr` or `transport`) of a URI without angle brackets. Empty if it has no value.
#[must_use]
pub fn uri_param<'a>(uri: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let rest = after_user(uri);
    let rest = &rest[..memchr::memchr(b'?', rest).unwrap_or(rest.len())];
    find_param(&rest[memchr::memchr(b';', rest)?..], name)
}

/// The header `name` behind the `?` of a URI, as in `sip:bob@example.org?Replaces=...`. Escapes stay as written (see
/// [`unescaped`]). Empty if it has no value.
#[must_use]
pub fn uri_header<'a>(uri: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let rest = after_user(uri);
    rest[memchr::memchr(b'?', rest)? + 1..].split(|b| *b == b'&').find_map(|one| {
        let (key, value) = one.split_at(memchr::memchr(b'=', one).unwrap_or(one.len()));
        key.eq_ignore_ascii_case(name.as_bytes()).then(|| value.get(1..).unwrap_or_default())
    })
}

/// A URI without the headers behind `?`, in the form allowed in a request line (RFC 3261 section 19.1.1, table 1).
#[must_use]
pub fn without_headers(uri: &[u8]) -> &[u8] {
    let rest = after_user(uri);
    let headers = memchr::memchr(b'?', rest).map_or(0, |n| rest.len() - n);
    &uri[..uri.len() - headers]
}

/// `text` with each `%` and two hexadecimal digits decoded to one byte (RFC 3261 section 19.1.2). Any other `%` stays.
#[must_use]
pub fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut out: Vec<u8> = Vec::new();
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'%', rest) {
        let code = match rest.get(at + 1..at + 3) {
            Some([high, low]) => digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        out.extend_from_slice(&rest[..at]);
        out.push(code.unwrap_or(b'%'));
        rest = &rest[at + if code.is_some() { 3 } else { 1 }..];
    }
    if rest.len() == text.len() {
        return Cow::Borrowed(text);
    }
    out.extend_from_slice(rest);
    Cow::Owned(out)
}

/// The scheme of a URI, without its colon (RFC 3986 section 3.1). `None` if there is no valid scheme.
#[must_use]
pub fn scheme(uri: &[u8]) -> Option<&[u8]> {
    let scheme = &uri[..memchr::memchr(b':', uri)?];
    let (first, rest) = scheme.split_first()?;
    let valid = first.is_ascii_alphabetic() && rest.iter().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b));
    valid.then_some(scheme)
}

/// The rest of a `sip:` or `sips:` URI behind the scheme and the user part: host, port, parameters, headers.
fn after_user(uri: &[u8]) -> &[u8] {
    let rest = sip_rest(uri).unwrap_or(uri);
    // `@` must be escaped everywhere else, but a user part may contain `;` and `?` (RFC 3261 section 25.1).
    match memchr::memchr(b'@', rest) {
        Some(n) => &rest[n + 1..],
        None => rest,
    }
}

fn sip_rest(uri: &[u8]) -> Option<&[u8]> {
    strip_scheme(uri, b"sip:").or_else(|| strip_scheme(uri, b"sips:"))
}

fn strip_scheme<'a>(uri: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = uri.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// Host (an IPv6 address without its brackets) and port of a `sip:` or `sips:` URI. `None` for other schemes or without
/// a host.
#[must_use]
pub fn host_port(uri: &[u8]) -> Option<(&[u8], Option<u16>)> {
    sip_rest(uri)?;
    sent_by(after_user(uri))
}

/// Host and port at the start of `host[:port][;...]`, as in a URI behind the user part or in Via's sent-by.
///
/// White space around the colon is skipped (RFC 3261 section 25.1, COLON). An IPv6 address without brackets is taken
/// whole, without a port, because a port would look like part of the address.
#[must_use]
pub fn sent_by(text: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let text = text.trim_ascii_start();
    let (host, rest) = if let Some(inner) = text.strip_prefix(b"[") {
        let close = memchr::memchr(b']', inner)?;
        // An address, perhaps with a zone (RFC 6874), and no character that ends a host elsewhere.
        inner[..close].iter().all(|b| b.is_ascii_alphanumeric() || b":.%-_~".contains(b)).then_some(())?;
        (&inner[..close], &inner[close + 1..])
    } else {
        if let Some(address) = bare_ipv6(text) {
            return Some((address, None));
        }
        let end = text.iter().position(|b| b":;?>, \t\r\n".contains(b)).unwrap_or(text.len());
        text.split_at(end)
    };
    if host.is_empty() {
        return None;
    }
    let port = rest.trim_ascii_start().strip_prefix(b":").and_then(|p| {
        let p = p.trim_ascii_start();
        let digits = p.iter().take_while(|b| b.is_ascii_digit()).count();
        std::str::from_utf8(&p[..digits]).ok()?.parse().ok()
    });
    Some((host, port))
}

fn bare_ipv6(text: &[u8]) -> Option<&[u8]> {
    let mut colons = memchr::memchr_iter(b':', text);
    // A single colon separates a port, so the common case needs no parsing.
    colons.next().and(colons.next())?;
    let end = text.iter().position(|b| !b.is_ascii_hexdigit() && !b":.".contains(b)).unwrap_or(text.len());
    std::str::from_utf8(&text[..end]).ok()?.parse::<Ipv6Addr>().ok()?;
    Some(&text[..end])
}

/// The user of a `sip:`, `sips:` (without password) or `tel:` URI (without parameters). `None` if there is none.
/// Escapes stay as written: see [`unescaped`].
#[must_use]
pub fn user(uri: &[u8]) -> Option<&[u8]> {
    let user = if let Some(rest) = sip_rest(uri) {
        let user = &rest[..memchr::memchr(b'@', rest)?];
        // `;` begins user parameters such as `phone-context` (RFC 3261 section 19.1.6), so the number ends before it.
        &user[..memchr::memchr2(b':', b';', user).unwrap_or(user.len())]
    } else {
        let rest = strip_scheme(uri, b"tel:")?;
        &rest[..memchr::memchr2(b';', b'?', rest).unwrap_or(rest.len())]
    };
    Some(user).filter(|u| !u.is_empty())
}

#[cfg(test)]
mod tests;
