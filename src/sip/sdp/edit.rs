//! Edits of a session description. Each edit changes only its target and copies every other byte.

use super::line::{Line, fields, lines};
use super::{Direction, Media, Origin, Place, Sdp, SdpError};
use std::net::IpAddr;

/// The description with its session version raised by one, as RFC 3264 section 8 requires for a changed offer.
///
/// # Errors
/// The body has no usable `o=` line, or its version is already the maximum.
pub fn continue_origin(body: &[u8]) -> Result<Vec<u8>, SdpError> {
    let origin = Sdp::parse(body)?.origin().ok_or(SdpError::Origin)?;
    let version = origin.version.checked_add(1).ok_or(SdpError::Origin)?;
    with_origin(body, &Origin { version, ..origin })
}

/// The description with `origin` in place of its `o=` line.
///
/// # Errors
/// The body has no `o=` line before its first m-line, or is not SDP.
pub fn with_origin(body: &[u8], origin: &Origin<'_>) -> Result<Vec<u8>, SdpError> {
    Sdp::parse(body)?;
    let mut out = Vec::with_capacity(body.len() + 16);
    let (mut done, mut in_media) = (false, false);
    for line in lines(body) {
        in_media |= line.value(b'm').is_some();
        if done || in_media || line.value(b'o').is_none() {
            push(&mut out, &line);
            continue;
        }
        out.extend_from_slice(b"o=");
        out.extend_from_slice(origin.username);
        out.push(b' ');
        out.extend_from_slice(origin.id);
        out.extend_from_slice(format!(" {} ", origin.version).as_bytes());
        out.extend_from_slice(origin.rest);
        out.extend_from_slice(line.ending());
        done = true;
    }
    if done { Ok(out) } else { Err(SdpError::Origin) }
}

/// Rewrites the media address of each m-line with an entry in `to`: address and RTP port, and the RTCP port if it is
/// not the next port.
///
/// A disabled m-line (port 0) stays disabled, and `c=` of all zeros (hold, RFC 3264 section 8.4) stays, because an
/// address must not undo either. A rewritten m-line loses its ICE attributes, because their candidates name the old
/// address. Session-level ICE attributes then move to the m-lines that still use them.
///
/// # Errors
/// The length of `to` differs from the number of m-lines, or the body is not SDP.
pub fn set_media_address(body: &[u8], to: &[Option<Place>]) -> Result<Vec<u8>, SdpError> {
    let sdp = Sdp::parse(body)?;
    if sdp.media().len() != to.len() {
        return Err(SdpError::MediaCount);
    }
    // The session-level c= serves the m-lines without their own. M-lines with a different new address get their own c=.
    let session_new = to.iter().flatten().map(|(a, _)| a.ip()).next();
    let mut out = Vec::with_capacity(body.len() + 64);
    // The current address of the session-level c=, and its original line if the address changed.
    let (mut session_c, mut old_c) = (None, None);
    let mut session_ice = Vec::new();
    let mut blocks = blocks(body).into_iter();
    for line in blocks.next().unwrap_or_default() {
        match (line.value(b'c'), session_new) {
            (Some(v), Some(ip)) if !is_zero(v) => {
                out.extend_from_slice(&connection(ip));
                out.extend_from_slice(line.ending());
                (session_c, old_c) = (Some(ip), (super::address(v) != Some(ip)).then_some(line.text));
            }
            (Some(v), _) => {
                push(&mut out, &line);
                (session_c, old_c) = (super::address(v), None);
            }
            (None, Some(_)) if credential(&line).is_some() => session_ice.push(line),
            (None, _) => push(&mut out, &line),
        }
    }
    for ((block, new), media) in blocks.zip(to).zip(sdp.media()) {
        let own_c = block.iter().any(|l| l.value(b'c').is_some());
        match new {
            Some(place) => push_moved(&mut out, &block, media, *place, own_c, session_c),
            None => {
                let own_ice = |l: &&Line<'_>| block.iter().any(|own| credential(own) == credential(l));
                let last = block.len().saturating_sub(1);
                for (i, line) in block.iter().enumerate() {
                    push(&mut out, line);
                    // This m-line used the session's address. Since that has changed, it gets its own c= line.
                    let address = old_c.filter(|_| i == 0 && !own_c);
                    let ice =
                        session_ice.iter().filter(|l| i == last && media.port != 0 && !own_ice(l)).map(|l| l.text);
                    for text in address.into_iter().chain(ice) {
                        insert(&mut out, text, line.ending());
                    }
                }
            }
        }
    }
    Ok(out)
}

fn push_moved(
    out: &mut Vec<u8>,
    block: &[Line<'_>],
    media: &Media<'_>,
    (to, rtcp): Place,
    own_c: bool,
    session_c: Option<IpAddr>,
) {
    let hold = !own_c && session_c.is_some_and(|ip| ip.is_unspecified());
    for (i, line) in block.iter().enumerate() {
        if let (0, Some(v)) = (i, line.value(b'm')) {
            out.extend_from_slice(b"m=");
            if media.port == 0 {
                out.extend_from_slice(v)
            } else {
                push_port(out, v, to.port())
            }
            out.extend_from_slice(line.ending());
            // RFC 8866 section 5 allows i= between m= and c=, but every reader accepts c= right after m=.
            if !own_c && !hold && session_c != Some(to.ip()) {
                insert(out, &connection(to.ip()), line.ending());
            }
        } else if let Some(v) = line.value(b'c') {
            if is_zero(v) {
                push(out, line);
            } else {
                out.extend_from_slice(&connection(to.ip()));
                out.extend_from_slice(line.ending());
            }
        } else if let Some(v) = line.attribute(b"rtcp") {
            let port = rtcp.or_else(|| to.port().checked_add(1)).unwrap_or(0);
            out.extend_from_slice(format!("a=rtcp:{port}").as_bytes());
            if fields(v).count() > 1 {
                out.extend_from_slice(format!(" IN {} {}", family(to.ip()), to.ip()).as_bytes());
            }
            out.extend_from_slice(line.ending());
        } else if !is_ice(line) {
            push(out, line);
        }
    }
}

/// Writes an m-line's value with another port. The port count is dropped, because only one new port is known.
fn push_port(out: &mut Vec<u8>, value: &[u8], port: u16) {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let kind = value.iter().position(|b| !blank(b)).unwrap_or(0);
    let gap = value.iter().skip(kind).position(blank).map_or(value.len(), |n| kind + n);
    let start = value.iter().skip(gap).position(|b| !blank(b)).map_or(value.len(), |n| gap + n);
    let end = value.iter().skip(start).position(blank).map_or(value.len(), |n| start + n);
    out.extend_from_slice(&value[..start]);
    out.extend_from_slice(port.to_string().as_bytes());
    out.extend_from_slice(&value[end..]);
}

/// Keeps only some payload types on the m-lines with an entry in `keep`. The `a=rtpmap`, `a=fmtp` and `a=rtcp-fb` lines
/// of dropped types go too. An m-line that would keep no type stays unchanged.
///
/// # Errors
/// The length of `keep` differs from the number of m-lines, or the body is not SDP.
pub fn keep_formats(body: &[u8], keep: &[Option<Vec<Vec<u8>>>]) -> Result<Vec<u8>, SdpError> {
    let sdp = Sdp::parse(body)?;
    if sdp.media().len() != keep.len() {
        return Err(SdpError::MediaCount);
    }
    let mut out = Vec::with_capacity(body.len());
    let mut blocks = blocks(body).into_iter();
    for line in blocks.next().unwrap_or_default() {
        push(&mut out, &line);
    }
    for ((block, keep), media) in blocks.zip(keep).zip(sdp.media()) {
        let kept: Vec<&[u8]> = match keep {
            Some(keep) => media.formats.iter().copied().filter(|f| keep.iter().any(|k| k == f)).collect(),
            None => Vec::new(),
        };
        if kept.is_empty() || kept.len() == media.formats.len() {
            block.iter().for_each(|l| push(&mut out, l));
            continue;
        }
        for (i, line) in block.iter().enumerate() {
            if let (0, Some(v)) = (i, line.value(b'm')) {
                let mut head = fields(v);
                out.extend_from_slice(b"m=");
                let words: Vec<&[u8]> = head.by_ref().take(3).chain(kept.iter().copied()).collect();
                out.extend_from_slice(&words.join(&b' '));
                out.extend_from_slice(line.ending());
                continue;
            }
            let subject = [&b"rtpmap"[..], b"fmtp", b"rtcp-fb"]
                .iter()
                .find_map(|n| line.attribute(n))
                .and_then(|v| fields(v).next());
            // `a=rtcp-fb:*` applies to all types.
            if subject.is_none_or(|pt| pt == b"*" || kept.contains(&pt)) {
                push(&mut out, line);
            }
        }
    }
    Ok(out)
}

/// Ends the hold of each m-line with an address in `to`: its direction becomes `sendrecv`, and `c=` of all zeros the
/// address.
///
/// # Errors
/// The length of `to` differs from the number of m-lines, or the body is not SDP.
pub fn end_hold(body: &[u8], to: &[Option<IpAddr>]) -> Result<Vec<u8>, SdpError> {
    let sdp = Sdp::parse(body)?;
    if sdp.media().len() != to.len() {
        return Err(SdpError::MediaCount);
    }
    let mut out = Vec::with_capacity(body.len() + 64);
    let mut blocks = blocks(body).into_iter();
    // Some phones look at the session's c= alone. It changes if no other m-line rests on it.
    let session = to.iter().copied().collect::<Option<Vec<_>>>().and_then(|all| all.first().copied());
    let mut session_ip = None;
    for line in blocks.next().unwrap_or_default() {
        match session.filter(|_| line.value(b'c').is_some_and(is_zero)) {
            Some(ip) => {
                out.extend_from_slice(&connection(ip));
                out.extend_from_slice(line.ending());
                session_ip = Some(ip);
            }
            None => push(&mut out, &line),
        }
    }
    for ((block, ip), media) in blocks.zip(to).zip(sdp.media()) {
        let Some(ip) = *ip else {
            block.iter().for_each(|line| push(&mut out, line));
            continue;
        };
        let own_c = block.iter().any(|l| l.value(b'c').is_some());
        let zero = media.connection.is_some_and(|ip| ip.is_unspecified());
        let mut said = false;
        for (i, line) in block.iter().enumerate() {
            if line.value(b'c').is_some_and(is_zero) {
                out.extend_from_slice(&connection(ip));
                out.extend_from_slice(line.ending());
            } else if super::direction(line).is_some() {
                // The last of several would count, so one is enough.
                if !std::mem::replace(&mut said, true) {
                    out.extend_from_slice(b"a=sendrecv");
                    out.extend_from_slice(line.ending());
                }
            } else {
                push(&mut out, line);
            }
            if i == 0 && zero && !own_c && session_ip != Some(ip) {
                insert(&mut out, &connection(ip), line.ending());
            }
        }
        if let Some(last) = block.last().filter(|_| !said && media.direction != Direction::SendRecv) {
            insert(&mut out, b"a=sendrecv", last.ending());
        }
    }
    Ok(out)
}

/// The session's lines, then the lines of each m-line.
pub(super) fn blocks(body: &[u8]) -> Vec<Vec<Line<'_>>> {
    let mut blocks = vec![Vec::new()];
    for line in lines(body) {
        if line.value(b'm').is_some() {
            blocks.push(Vec::new());
        }
        if let Some(block) = blocks.last_mut() {
            block.push(line);
        }
    }
    blocks
}

fn is_zero(connection: &[u8]) -> bool {
    super::address(connection).is_some_and(|ip| ip.is_unspecified())
}

fn is_ice(line: &Line<'_>) -> bool {
    let named =
        [&b"candidate"[..], b"remote-candidates", b"end-of-candidates"].iter().any(|n| line.attribute(n).is_some());
    named || line.value(b'a').and_then(|v| v.get(..4)).is_some_and(|v| v.eq_ignore_ascii_case(b"ice-"))
}

/// The name of a session-level ICE attribute that m-lines inherit. `ice-lite` is not one: it describes the agent,
/// whatever its m-lines do.
fn credential(line: &Line<'_>) -> Option<&'static [u8]> {
    [&b"ice-ufrag"[..], b"ice-pwd", b"ice-options"].into_iter().find(|n| line.attribute(n).is_some())
}

const fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IP4" } else { "IP6" }
}

fn connection(ip: IpAddr) -> Vec<u8> {
    format!("c=IN {} {ip}", family(ip)).into_bytes()
}

/// Copies a line. If a removed line leaves a bare LF (an empty line) behind a CR, the two would merge into one line
/// end. A CR is then inserted to keep them apart.
pub(super) fn push(out: &mut Vec<u8>, line: &Line<'_>) {
    if line.whole == b"\n" && out.last() == Some(&b'\r') {
        out.push(b'\r');
    }
    out.extend_from_slice(line.whole);
}

/// Adds a line behind one that ended with `ending`. If the last line of the body has no ending, the new last line has
/// none either.
fn insert(out: &mut Vec<u8>, text: &[u8], ending: &[u8]) {
    if ending.is_empty() {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(text);
    out.extend_from_slice(ending);
}
