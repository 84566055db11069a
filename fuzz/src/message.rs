//! SIP messages: parsed, and written again.

use super::{inside, show};
use keepcall::sip::body::{Description, MAX_SDP, description};
use keepcall::sip::build::{Builder, response_address};
use keepcall::sip::message::{MAX_HEADERS, Message, Name, Start};
use std::net::SocketAddr;

const NAMES: [Name; 16] = [
    Name::CallId,
    Name::From,
    Name::To,
    Name::CSeq,
    Name::Via,
    Name::Contact,
    Name::RecordRoute,
    Name::Route,
    Name::ContentLength,
    Name::ContentType,
    Name::Allow,
    Name::Require,
    Name::Reason,
    Name::Path,
    Name::Warning,
    Name::Other,
];

/// Reads `data` as a datagram.
pub fn message(data: &[u8]) {
    let Ok(m) = Message::parse(data) else { return };
    views(data, &m);
    typed(data, &m);
    match description(&m) {
        Description::Sdp(sdp) => {
            assert!(inside(m.body(), sdp) && sdp.starts_with(b"v=") && sdp.len() <= MAX_SDP);
            super::sdp(sdp);
        }
        Description::None | Description::Unreadable => {}
    }
    answer(&m);
    if let Start::Request { name, uri, .. } = m.start() {
        written_again(&m, name, uri);
    }
}

fn views(data: &[u8], m: &Message<'_>) {
    assert!(std::ptr::eq(m.bytes(), data), "the original bytes are kept");
    assert_eq!(m.header(Name::CallId), Some(m.call_id()));
    assert_eq!((m.header(Name::From), m.header(Name::To)), (Some(m.from()), Some(m.to())));
    assert!(!m.call_id().is_empty() && !m.from().is_empty() && !m.to().is_empty() && !m.cseq().1.is_empty());
    assert!(inside(data, m.body()));
    assert!(!m.is_whole() || inside(data, m.body()));
    match m.start() {
        Start::Request { name, uri, .. } => {
            assert!(m.is_request() && m.code().is_none() && m.request_uri() == Some(uri));
            assert!(!name.is_empty() && !uri.is_empty() && inside(data, name) && inside(data, uri));
        }
        Start::Response { code, reason } => {
            assert!(!m.is_request() && m.code() == Some(code) && (100..1000).contains(&code));
            assert!(inside(data, reason) && m.request_uri().is_none() && m.cseq_agrees());
        }
    }
    let all: Vec<_> = m.all().collect();
    assert!(all.len() >= 4 && all.len() <= MAX_HEADERS);
    for (name, value) in &all {
        assert!(inside(data, name) && inside(data, value) && value.trim_ascii() == *value);
        let known = Name::of(name);
        let same = |n: &[u8]| if known == Name::Other { n.eq_ignore_ascii_case(name) } else { Name::of(n) == known };
        let first = all.iter().find(|(n, _)| same(n)).unwrap().1;
        assert_eq!(m.named(std::str::from_utf8(name).unwrap()), Some(first), "the first one counts");
        super::uri(value);
    }
    for n in NAMES {
        let lines: Vec<_> = m.headers(n).collect();
        assert_eq!(lines, all.iter().filter(|(name, _)| Name::of(name) == n).map(|(_, v)| *v).collect::<Vec<_>>());
        assert_eq!(m.header(n), lines.first().copied());
        assert!(m.values(n).all(|v| !v.is_empty() && lines.iter().any(|l| inside(l, v))));
    }
}

fn typed(data: &[u8], m: &Message<'_>) {
    let tags = [m.from_tag(), m.to_tag(), m.branch(), m.contact_uri(), m.refer_to(), m.referred_by(), m.asserted()];
    assert!(tags.iter().flatten().all(|t| inside(data, t)));
    assert!([m.from_tag(), m.to_tag(), m.contact_uri()].iter().flatten().all(|t| !t.is_empty()));
    let _ = (
        m.session_expires(),
        m.min_se(),
        m.rseq(),
        m.rack(),
        m.event(),
        m.lists(Name::Require, "100rel"),
        m.cseq_method(),
    );
    assert!(m.subscription_state().is_none_or(|s| !s.state.is_empty()));
    assert!(m.session_id().is_none_or(|s| s.local.is_none_or(|l| inside(data, l))));
    assert!(m.replaces().is_none_or(|r| !r.call_id.is_empty() && !r.to_tag.is_empty() && !r.from_tag.is_empty()));
    assert!(m.reasons().all(|r| inside(data, r.text)));
    // Method and code, and nothing of the call. (A search for the Call-ID in it finds a Call-ID that reads like it.)
    let shown = format!("Message {{ method: {:?}, code: {:?}, .. }}", m.method(), m.code());
    assert_eq!(format!("{m:?}"), shown, "a debug print tells nothing of the call");
}

/// Written messages are strict: CRLF only, tokens for names, and one correct Content-Length.
fn strict(out: &[u8]) -> Message<'_> {
    let end = out.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let (head, body) = (&out[..end], &out[end + 4..]);
    let mut lengths = 0;
    for (i, line) in head.split(|b| *b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(!line.is_empty() && !line.contains(&b'\r'), "{}", show(out));
        if i == 0 {
            continue;
        }
        let colon = line.iter().position(|b| *b == b':').unwrap();
        assert!(line[..colon].iter().all(|b| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(b)), "{}", show(line));
        assert_eq!(line[colon + 1], b' ');
        if Name::of(&line[..colon]) == Name::ContentLength {
            lengths += 1;
            assert_eq!(std::str::from_utf8(&line[colon + 2..]).unwrap().parse::<usize>().unwrap(), body.len());
        }
    }
    assert_eq!(lengths, 1);
    let m = Message::parse(out).unwrap_or_else(|e| panic!("{e}: {}", show(out)));
    assert!(m.is_whole() && m.body() == body);
    m
}

/// A value in its written form: folds become spaces.
fn flat(value: &[u8]) -> Vec<u8> {
    value.iter().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { *b }).collect()
}

fn answer(m: &Message<'_>) {
    let source: SocketAddr = "192.0.2.99:6000".parse().unwrap();
    let via = m.values(Name::Via).next();
    let to = response_address(via.unwrap_or_default(), source);
    assert_eq!(to.ip(), source.ip(), "an answer goes to nobody but the sender");
    // The copies may need more room than a datagram has.
    if m.bytes().len() > 60_000 || m.values(Name::Via).count() + m.headers(Name::RecordRoute).count() > 200 {
        return;
    }
    let out =
        Builder::response_to(m, 200, "OK", Some(b"own-tag"), Some(source)).body("application/sdp", b"v=0\r\n").build();
    let r = strict(&out);
    assert_eq!((r.code(), r.cseq().0, r.body()), (Some(200), m.cseq().0, &b"v=0\r\n"[..]));
    assert_eq!((r.call_id(), r.cseq().1), (&*flat(m.call_id()), &*flat(m.cseq().1)));
    assert_eq!(r.from(), flat(m.from()));
    assert_eq!(r.from_tag().map(<[u8]>::to_vec), m.from_tag().map(flat));
    assert_eq!(r.to_tag().map(<[u8]>::to_vec), Some(m.to_tag().map_or(b"own-tag".to_vec(), flat)), "{}", show(m.to()));
    assert_eq!(r.values(Name::Via).count(), m.values(Name::Via).count(), "{}", show(&out));
}

fn written_again(m: &Message<'_>, name: &[u8], uri: &[u8]) {
    if m.bytes().len() > 60_000 || m.all().count() > MAX_HEADERS - 2 {
        return;
    }
    let mut b = Builder::request(std::str::from_utf8(name).unwrap(), uri);
    let kept = |n: &[u8]| !matches!(Name::of(n), Name::ContentLength | Name::ContentType);
    for (name, value) in m.all().filter(|(n, _)| kept(n)) {
        b = b.header(std::str::from_utf8(name).unwrap(), value);
    }
    let out = b.body("x/y", m.body()).build();
    let again = strict(&out);
    let Start::Request { name: again_name, uri: again_uri, .. } = again.start() else { panic!("{}", show(&out)) };
    assert_eq!(again_name, name);
    let clean = |b: &u8| *b > b' ' && !matches!(b, b'"' | b'<' | b'>' | 0x7f);
    assert!(again_uri.iter().all(clean) && (again_uri == uri || !uri.iter().all(clean)));
    let before: Vec<_> = m.all().filter(|(n, _)| kept(n)).map(|(n, v)| (n.to_vec(), flat(v))).collect();
    let after: Vec<_> = again.all().filter(|(n, _)| kept(n)).map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
    assert_eq!(before, after, "parse after write is the same");
    assert_eq!(again.body(), m.body());
}
