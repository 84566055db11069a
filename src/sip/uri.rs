//! Name-addresses, header parameters and URIs as bytes: no copy, no validation beyond what is needed to find the parts.

/// The parts of a header value such as `"Bob" <sip:bob@example.org;lr>;tag=1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// The display name, trimmed, quotes included; empty if there is none.
    pub display: &'a [u8],
    /// The URI without angle brackets.
    pub uri: &'a [u8],
    /// Header parameters from the first `;` on; empty if there are none.
    pub params: &'a [u8],
}

/// Offset of the first of the bytes `a`, `b`, `c` that is outside of quoted text. A quote that is never closed hides nothing,
/// so that one stray quote does not hide a tag.
fn outside_quotes(text: &[u8], a: u8, b: u8, c: u8) -> Option<usize> {
    let mut at = 0;
    while at < text.len() {
        let byte = text[at];
        if byte == b'"'
            && let Some(end) = quoted_end(&text[at..])
        {
            at += end;
            continue;
        }
        if byte == a || byte == b || byte == c {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// Length of the quoted string that `text` begins with, both quotes included (RFC 3261 section 25.1: `\` escapes one byte).
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

/// Takes a name-addr or addr-spec header value apart.
///
/// Without angle brackets everything from the first `;` on belongs to the header, not to the URI (RFC 3261 section 20.10).
#[must_use]
pub fn name_addr(value: &[u8]) -> NameAddr<'_> {
    let value = value.trim_ascii();
    // Most values have a quote-free display name; a `"` is worth the slow walk only if it is there.
    let open =
        if memchr::memchr(b'"', value).is_some() { outside_quotes(value, b'<', b'<', b'<') } else { memchr::memchr(b'<', value) };
    // A `<` in a parameter does not open a URI.
    let semicolon = match open {
        Some(open) => memchr::memchr(b';', &value[..open]).filter(|_| memchr::memchr(b'"', &value[..open]).is_none()),
        None => None,
    };
    match open {
        Some(open) if semicolon.is_none() => {
            let inner = &value[open + 1..];
            let close = memchr::memchr(b'>', inner).unwrap_or(inner.len());
            let rest = inner.get(close + 1..).unwrap_or_default();
            let params = memchr::memchr(b';', rest).map_or(&rest[..0], |n| &rest[n..]);
            NameAddr { display: value[..open].trim_ascii(), uri: inner[..close].trim_ascii(), params }
        }
        _ => {
            let (uri, params) = value.split_at(memchr::memchr(b';', value).unwrap_or(value.len()));
            NameAddr { display: &value[..0], uri: uri.trim_ascii(), params }
        }
    }
}

/// The URI of a name-addr or addr-spec, without angle brackets.
#[must_use]
pub fn uri_of(value: &[u8]) -> &[u8] {
    name_addr(value).uri
}

/// The `tag` parameter of a From or To value; `None` if it is absent or empty.
#[must_use]
pub fn tag_of(value: &[u8]) -> Option<&[u8]> {
    param(value, "tag").filter(|t| !t.is_empty())
}

/// The header parameter `name` of a header value such as From, Contact, Via or Session-Expires; empty for one without a value.
/// Parameters inside angle brackets belong to the URI: see [`uri_param`].
#[must_use]
pub fn param<'a>(value: &'a [u8], name: &str) -> Option<&'a [u8]> {
    find_param(name_addr(value).params, name)
}

/// The URI parameter `name` (such as `lr` or `transport`) of a URI without angle brackets; empty for one without a value.
#[must_use]
pub fn uri_param<'a>(uri: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let rest = after_user(uri);
    let rest = &rest[..memchr::memchr(b'?', rest).unwrap_or(rest.len())];
    find_param(&rest[memchr::memchr(b';', rest)?..], name)
}

fn find_param<'a>(mut params: &'a [u8], name: &str) -> Option<&'a [u8]> {
    while let Some(rest) = params.strip_prefix(b";") {
        let end = if memchr::memchr(b'"', rest).is_some() {
            outside_quotes(rest, b';', b';', b';').unwrap_or(rest.len())
        } else {
            memchr::memchr(b';', rest).unwrap_or(rest.len())
        };
        let one = &rest[..end];
        let (key, value) = match memchr::memchr(b'=', one) {
            Some(n) => (&one[..n], &one[n + 1..]),
            None => (one, &one[one.len()..]),
        };
        if key.trim_ascii().eq_ignore_ascii_case(name.as_bytes()) {
            return Some(value.trim_ascii());
        }
        params = &rest[end..];
    }
    None
}

/// What follows the scheme and the user part of a `sip:` or `sips:` URI: host, port, parameters, headers.
fn after_user(uri: &[u8]) -> &[u8] {
    let rest = sip_rest(uri).unwrap_or(uri);
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

/// Host (an IPv6 address without its brackets) and port of a `sip:` or `sips:` URI; `None` for other schemes or no host.
#[must_use]
pub fn host_port(uri: &[u8]) -> Option<(&[u8], Option<u16>)> {
    sip_rest(uri)?;
    sent_by(after_user(uri))
}

/// Host and port at the start of `host[:port][;...]`, as in a URI behind the user part or in Via's sent-by.
#[must_use]
pub fn sent_by(text: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let text = text.trim_ascii_start();
    let (host, rest) = if let Some(inner) = text.strip_prefix(b"[") {
        let close = memchr::memchr(b']', inner)?;
        (&inner[..close], &inner[close + 1..])
    } else {
        let end = text.iter().position(|b| matches!(b, b':' | b';' | b'?' | b'>' | b' ' | b'\t' | b',')).unwrap_or(text.len());
        text.split_at(end)
    };
    if host.is_empty() {
        return None;
    }
    let port = rest.strip_prefix(b":").and_then(|p| {
        let digits = p.iter().take_while(|b| b.is_ascii_digit()).count();
        std::str::from_utf8(&p[..digits]).ok()?.parse().ok()
    });
    Some((host, port))
}

/// The user of a `sip:`, `sips:` (without password) or `tel:` URI (without parameters); `None` if there is none.
#[must_use]
pub fn user(uri: &[u8]) -> Option<&[u8]> {
    let user = if let Some(rest) = sip_rest(uri) {
        let user = &rest[..memchr::memchr(b'@', rest)?];
        // `;` begins user parameters such as `phone-context` (RFC 3261 section 19.1.6), not a part of the number.
        &user[..memchr::memchr2(b':', b';', user).unwrap_or(user.len())]
    } else {
        let rest = strip_scheme(uri, b"tel:")?;
        &rest[..memchr::memchr2(b';', b'?', rest).unwrap_or(rest.len())]
    };
    Some(user).filter(|u| !u.is_empty())
}

/// The comma-separated values in one header line, each trimmed; empty ones are left out. Commas within quotes or angle brackets
/// do not separate.
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
    while let Some(n) = outside_quotes(&text[at..], b',', b'<', b'<') {
        at += n;
        if text[at] == b',' {
            return at;
        }
        // Inside angle brackets quotes mean nothing; a bracket that is never closed hides nothing.
        at += memchr::memchr(b'>', &text[at..]).unwrap_or(0) + 1;
    }
    text.len()
}

#[cfg(test)]
mod tests;
