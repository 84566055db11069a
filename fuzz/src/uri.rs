//! Header values and URIs.

use super::{inside, show};
use keepcall::sip::uri;

/// Reads `data` as a header value, and its parts as URIs.
pub fn uri(data: &[u8]) {
    value(data);
    let mut last = data.as_ptr();
    let mut left = Vec::new();
    for v in uri::split_values(data) {
        assert!(inside(data, v) && !v.is_empty() && v.trim_ascii() == v, "{}", show(v));
        assert!(v.as_ptr() >= last, "values in order");
        left.extend_from_slice(between(data, last, v.as_ptr()));
        last = v.as_ptr_range().end;
        value(v);
    }
    left.extend_from_slice(between(data, last, data.as_ptr_range().end));
    assert!(left.iter().all(|b| *b == b',' || b.is_ascii_whitespace()), "splitting lost {}", show(&left));
}

fn between(data: &[u8], from: *const u8, to: *const u8) -> &[u8] {
    let at = |p: *const u8| p as usize - data.as_ptr() as usize;
    &data[at(from)..at(to)]
}

fn value(v: &[u8]) {
    let n = uri::name_addr(v);
    for part in [n.display, n.uri, n.params] {
        assert!(inside(v, part));
    }
    assert!(n.params.is_empty() || n.params.starts_with(b";"));
    assert!(!n.uri.contains(&b'>') || !n.display.is_empty() || !v.contains(&b'<') || !v.trim_ascii().starts_with(b"<"));
    let mut again = Vec::new();
    for p in uri::params(n.params) {
        assert!(inside(v, p.whole) && inside(p.whole, p.name) && p.value.is_none_or(|v| inside(p.whole, v)));
        again.push(b';');
        again.extend_from_slice(p.whole);
        if let Ok(name) = std::str::from_utf8(p.name) {
            let first = uri::params(n.params).find(|q| q.name.eq_ignore_ascii_case(p.name)).unwrap();
            assert_eq!(uri::param(v, name), Some(first.value.unwrap_or_default()));
        }
    }
    assert_eq!(again, n.params, "cutting parameters is lossless");
    assert_eq!(uri::uri_of(v), n.uri);
    assert!(uri::tag_of(v).is_none_or(|t| !t.is_empty() && uri::param(v, "tag") == Some(t)));
    if let Some(via) = uri::via(v) {
        assert!([via.transport, via.host, via.params].iter().all(|p| inside(v, p)) && !via.host.is_empty());
    }
    address(n.uri);
    address(v);
}

fn address(u: &[u8]) {
    let known = uri::host_port(u);
    if let Some((host, _)) = known {
        assert!(inside(u, host) && !host.is_empty());
    }
    if let Some(user) = uri::user(u) {
        assert!(inside(u, user) && !user.is_empty() && !user.contains(&b';'));
    }
    if let Some(scheme) = uri::scheme(u) {
        assert!(u.starts_with(scheme) && u[scheme.len()] == b':');
    }
    let bare = uri::without_headers(u);
    assert!(u.starts_with(bare));
    assert_eq!(uri::host_port(bare).map(|h| h.0), known.map(|h| h.0), "headers are behind the host: {}", show(u));
    assert_eq!(uri::user(bare).is_some(), uri::user(u).is_some(), "{}", show(u));
    for name in ["lr", "transport", "Replaces"] {
        assert!(uri::uri_param(u, name).is_none_or(|v| inside(u, v)));
        assert!(uri::uri_header(u, name).is_none_or(|v| inside(u, v)));
        assert_eq!(uri::uri_header(bare, name), None);
    }
    let plain = uri::unescaped(u);
    assert!(plain.len() <= u.len() && (u.len() - plain.len()).is_multiple_of(2));
    assert!(u.contains(&b'%') || *plain == *u);
}
