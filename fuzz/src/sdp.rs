//! Session descriptions and their edits.

use super::{choices, inside, show};
use keepcall::sip::sdp::{
    Direction, Media, Place, Sdp, continue_origin, end_hold, keep_formats, set_media_address, with_origin,
};
use std::net::{IpAddr, SocketAddr};

/// Reads `data` as a session description. The data itself chooses the m-lines to edit.
pub fn sdp(data: &[u8]) {
    let Ok(sdp) = Sdp::parse(data) else {
        assert!(
            continue_origin(data).is_err() && set_media_address(data, &[]).is_err() && keep_formats(data, &[]).is_err()
        );
        return;
    };
    views(data, &sdp);
    origin(data, &sdp);
    addresses(data, &sdp);
    formats(data, &sdp);
    holds(data, &sdp);
}

/// The lines with their ends: an independent reading to measure the edits by.
fn lines(data: &[u8]) -> Vec<&[u8]> {
    let mut out = Vec::new();
    let mut start = 0;
    for (i, b) in data.iter().enumerate() {
        if *b == b'\n' || (*b == b'\r' && data.get(i + 1) != Some(&b'\n')) {
            out.push(&data[start..=i]);
            start = i + 1;
        }
    }
    if start < data.len() {
        out.push(&data[start..]);
    }
    out
}

/// A line as an edit must leave it. The end of an empty line does not count: a lone LF behind a line that ends with a
/// lone CR would become that line's end once the text between them is gone.
fn kept(line: &[u8]) -> &[u8] {
    if text(line).is_empty() { b"" } else { line }
}

fn text(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn views(data: &[u8], sdp: &Sdp<'_>) {
    let mut blocks = 0;
    for (i, m) in sdp.media().iter().enumerate() {
        assert!(inside(data, m.block()) && m.block().starts_with(b"m="));
        blocks += m.block().len();
        assert!([m.kind, m.proto].iter().chain(&m.formats).chain(&m.keys).all(|p| inside(data, p)));
        assert!(m.connection.is_none() || m.host.is_some());
        assert_eq!(
            m.crypto,
            !m.keys.is_empty() || m.attribute("crypto").is_some() || m.attribute("fingerprint").is_some()
        );
        assert!(
            m.cryptos().count() <= m.attributes("crypto").count()
                && m.candidates().count() <= m.attributes("candidate").count()
        );
        assert!(
            m.formats
                .iter()
                .all(|f| m.fmtp(f).is_none_or(|v| inside(data, v)) && m.encoding(f).is_none_or(|e| !e.is_empty()))
        );
        assert!(m.fingerprints().count() <= m.keys.len());
        let _ = (
            m.setup(),
            m.tls_id(),
            m.ice(),
            m.ptime(),
            m.bandwidths().count(),
            m.is_hold(),
            m.is_t38(),
            m.is_rtp(),
            m.rtcp_port(),
        );
        assert!(!m.is_disabled() || m.port == 0);
        assert!(sdp.bundled_with(i).is_none_or(|j| j < sdp.media().len()));
    }
    // Lines outside every m-line belong to the session.
    let first = lines(data).iter().take_while(|l| !l.starts_with(b"m=")).map(|l| l.len()).sum::<usize>();
    assert_eq!(first + blocks, data.len());
    let _ = (sdp.is_ice_lite(), sdp.groups().count(), sdp.attributes("x").count());
}

fn origin(data: &[u8], sdp: &Sdp<'_>) {
    let Some(o) = sdp.origin() else {
        assert!(continue_origin(data).is_err());
        return;
    };
    let Ok(next) = continue_origin(data) else {
        assert_eq!(o.version, u64::MAX);
        return;
    };
    let again = Sdp::parse(&next).unwrap();
    let n = again.origin().unwrap_or_else(|| panic!("{}", show(&next)));
    assert_eq!((n.username, n.id, n.version, n.rest), (o.username, o.id, o.version + 1, o.rest));
    let (before, after) = (lines(data), lines(&next));
    assert_eq!(before.len(), after.len());
    let changed: Vec<_> = before.iter().zip(&after).filter(|(a, b)| a != b).collect();
    assert!(matches!(changed.as_slice(), [(a, b)] if a.starts_with(b"o=") && b.starts_with(b"o=")), "{}", show(&next));
    let back = with_origin(&next, &o).unwrap();
    assert_eq!(Sdp::parse(&back).unwrap().origin(), Some(o), "and back");
}

fn is_ice(line: &[u8]) -> bool {
    let lower = line.to_ascii_lowercase();
    let name = lower.split(|b| *b == b':').next().unwrap().trim_ascii_end();
    [&b"a=candidate"[..], b"a=remote-candidates", b"a=end-of-candidates"].contains(&name)
        || lower.starts_with(b"a=ice-")
}

/// The lines that a change of addresses must not touch, without the end of the last one: a line added behind it may
/// need one.
fn untouched(data: &[u8]) -> Vec<String> {
    let rtcp = |l: &[u8]| l.len() >= 6 && l[..6].eq_ignore_ascii_case(b"a=rtcp") && !l[6..].starts_with(b"-");
    let mut all = lines(data);
    all.retain(|l| ![&b"c="[..], b"m="].iter().any(|p| l.starts_with(p)) && !rtcp(l) && !is_ice(l));
    if let Some(last) = all.last_mut() {
        *last = text(last);
    }
    all.into_iter().map(|l| show(kept(l))).collect()
}

fn addresses(data: &[u8], sdp: &Sdp<'_>) {
    let n = sdp.media().len();
    assert_eq!(set_media_address(data, &vec![None; n]).as_deref(), Ok(data), "no change, no change");
    let mut choice = choices(data);
    let mut to: Vec<Option<Place>> = Vec::new();
    for i in 0..n {
        let at: SocketAddr =
            if choice & 2 == 0 { "192.0.2.7:20000".parse().unwrap() } else { "[2001:db8::7]:30000".parse().unwrap() };
        let at = SocketAddr::new(at.ip(), at.port() + 2 * u16::try_from(i).unwrap());
        to.push((choice & 1 == 0).then_some((at, (choice & 4 == 0).then_some(9))));
        choice = choice.rotate_right(3);
    }
    let out = set_media_address(data, &to).unwrap();
    let again = Sdp::parse(&out).unwrap();
    assert_eq!(again.media().len(), n);
    for ((old, new), to) in sdp.media().iter().zip(again.media()).zip(&to) {
        assert_eq!(
            (new.kind, new.proto, &new.formats, new.direction, &new.keys),
            (old.kind, old.proto, &old.formats, old.direction, &old.keys)
        );
        assert_eq!((&new.rtpmap, new.rtcp_mux, new.mid()), (&old.rtpmap, old.rtcp_mux, old.mid()));
        match to {
            Some((at, rtcp)) => moved(old, new, *at, *rtcp),
            None => {
                assert_eq!(
                    (new.port, new.port_count, new.connection, new.host, new.rtcp),
                    (old.port, old.port_count, old.connection, old.host, old.rtcp),
                    "{}",
                    show(&out)
                );
                assert!(new.ice() == old.ice() || old.port == 0, "{}", show(&out));
            }
        }
    }
    assert_eq!(untouched(&out), untouched(data), "untouched lines are byte-identical");
    assert_eq!(set_media_address(&out, &to).map(|b| show(&b)), Ok(show(&out)), "once more changes nothing");
}

fn moved(old: &Media<'_>, new: &Media<'_>, at: SocketAddr, rtcp: Option<u16>) {
    let hold = old.connection.is_some_and(|ip| ip.is_unspecified());
    if old.port == 0 {
        assert_eq!(new.port, 0, "a refused m-line stays refused");
    } else {
        assert_eq!((new.port, new.port_count), (at.port(), 1));
    }
    if hold {
        assert_eq!(new.connection, old.connection, "a hold stays a hold");
    } else {
        assert_eq!(new.connection, Some(at.ip()));
    }
    assert!(new.ice().is_none() && new.attributes("candidate").next().is_none());
    if let Some((port, ip)) = new.rtcp {
        assert_eq!(port, rtcp.unwrap_or(at.port() + 1));
        assert!(ip.is_none_or(|ip| ip == at.ip()));
    }
}

fn formats(data: &[u8], sdp: &Sdp<'_>) {
    let n = sdp.media().len();
    assert_eq!(keep_formats(data, &vec![None; n]).as_deref(), Ok(data));
    let mut choice = choices(data) >> 7;
    let mut pick = || {
        choice = choice.rotate_right(1);
        choice & 1 == 0
    };
    let keep: Vec<Option<Vec<Vec<u8>>>> = sdp
        .media()
        .iter()
        .map(|m| pick().then(|| m.formats.iter().filter(|_| pick()).map(|f| f.to_vec()).collect()))
        .collect();
    let out = keep_formats(data, &keep).unwrap();
    let again = Sdp::parse(&out).unwrap();
    assert_eq!(again.media().len(), n);
    for ((old, new), keep) in sdp.media().iter().zip(again.media()).zip(&keep) {
        let want: Vec<&[u8]> = match keep {
            Some(keep) => old.formats.iter().copied().filter(|f| keep.iter().any(|k| k == f)).collect(),
            None => Vec::new(),
        };
        // An m-line that would lose all its formats stays as it is.
        if want.is_empty() || want.len() == old.formats.len() {
            assert_eq!(new.block(), old.block());
        } else {
            assert_eq!(new.formats, want);
            assert!(want.iter().all(|f| new.encoding(f) == old.encoding(f) && new.fmtp(f) == old.fmtp(f)));
        }
        assert_eq!(
            (new.kind, new.port, new.proto, new.connection, new.direction),
            (old.kind, old.port, old.proto, old.connection, old.direction)
        );
        assert_eq!((&new.keys, new.ice(), new.candidates().count()), (&old.keys, old.ice(), old.candidates().count()));
    }
    let subject =
        |l: &[u8]| [&b"a=rtpmap"[..], b"a=fmtp", b"a=rtcp-fb"].iter().any(|p| l.to_ascii_lowercase().starts_with(p));
    let rest = |d| {
        lines(d).into_iter().filter(|l| !l.starts_with(b"m=") && !subject(l)).map(kept).map(show).collect::<Vec<_>>()
    };
    assert_eq!(rest(&out), rest(data), "lines that do not speak of formats are byte-identical");
}

/// Without a hold everything is active, and everything else is as before.
fn holds(data: &[u8], sdp: &Sdp<'_>) {
    let (n, ip) = (sdp.media().len(), IpAddr::from([192, 0, 2, 7]));
    assert_eq!(end_hold(data, &vec![None; n]).as_deref(), Ok(data), "no change, no change");
    let out = end_hold(data, &vec![Some(ip); n]).unwrap();
    // The added lines may be too many.
    let Ok(again) = Sdp::parse(&out) else { return };
    assert_eq!(again.media().len(), n);
    assert_eq!(again.origin(), sdp.origin());
    for (a, b) in sdp.media().iter().zip(again.media()) {
        assert_eq!((a.kind, a.port, a.proto, &a.formats), (b.kind, b.port, b.proto, &b.formats));
        assert_eq!(b.direction, Direction::SendRecv, "{}", show(&out));
        let zero = a.connection.is_some_and(|ip| ip.is_unspecified());
        assert_eq!(b.connection, if zero { Some(ip) } else { a.connection }, "{}", show(&out));
    }
}
