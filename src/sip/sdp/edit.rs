//! Edits of a session description. Each writes what it was asked to and copies the rest byte by byte.

use super::{Line, Origin, Sdp, SdpError, fields, lines};
use std::net::{IpAddr, SocketAddr};

/// The same description with the session version one higher, as RFC 3264 section 8 wants it of a changed offer.
///
/// # Errors
/// If the body has no usable `o=` line, or its version is the highest there is.
pub fn continue_origin(body: &[u8]) -> Result<Vec<u8>, SdpError> {
    let origin = Sdp::parse(body)?.origin().ok_or(SdpError::Origin)?;
    let version = origin.version.checked_add(1).ok_or(SdpError::Origin)?;
    with_origin(body, &Origin { version, ..origin })
}

/// The same description with `origin` in place of its `o=` line, wherever it came from.
///
/// # Errors
/// If the body has no `o=` line before its first m-line, or isn't SDP.
pub fn with_origin(body: &[u8], origin: &Origin<'_>) -> Result<Vec<u8>, SdpError> {
    Sdp::parse(body)?;
    let mut out = Vec::with_capacity(body.len() + 16);
    let (mut done, mut in_media) = (false, false);
    for line in lines(body) {
        in_media |= line.value(b'm').is_some();
        if done || in_media || line.value(b'o').is_none() {
            out.extend_from_slice(line.whole);
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

/// Where a description says that media goes, rewritten for the m-lines that have an entry in `to`: address and RTP port, and
/// the RTCP port if it isn't the next one.
///
/// A disabled m-line (port 0) stays disabled, and `c=` of all zeros (hold, RFC 3264 section 8.4) stays, because both say
/// something that an address must not undo. ICE candidates of a rewritten m-line are left out: they name the old address.
///
/// # Errors
/// If `to` has another length than the description has m-lines, or the body isn't SDP.
pub fn set_media_address(body: &[u8], to: &[Option<(SocketAddr, Option<u16>)>]) -> Result<Vec<u8>, SdpError> {
    let sdp = Sdp::parse(body)?;
    if sdp.media().len() != to.len() {
        return Err(SdpError::MediaCount);
    }
    // The session-level c= serves the m-lines that have none; those with another new address get one of their own.
    let session_new = to.iter().flatten().map(|(a, _)| a.ip()).next();
    let mut out = Vec::with_capacity(body.len() + 64);
    let mut session_c = None;
    let mut blocks = blocks(body).into_iter();
    for line in blocks.next().unwrap_or_default() {
        match (line.value(b'c'), session_new) {
            (Some(v), Some(ip)) if !is_zero(v) => {
                push_connection(&mut out, ip, line.ending());
                session_c = Some(ip);
            }
            (Some(v), _) => {
                out.extend_from_slice(line.whole);
                session_c = super::address(v);
            }
            (None, _) => out.extend_from_slice(line.whole),
        }
    }
    let old_session_c = session_connection(body);
    for (block, new) in blocks.zip(to) {
        let own_c = block.iter().any(|l| l.value(b'c').is_some());
        match new {
            Some((to, rtcp)) => push_moved(&mut out, &block, *to, *rtcp, own_c, session_c),
            None => {
                // Its address was the session's; say so itself now that the session's has changed.
                let inherited = (!own_c && old_session_c != session_c).then_some(old_session_c).flatten();
                for (i, line) in block.iter().enumerate() {
                    out.extend_from_slice(line.whole);
                    if let (0, Some(ip)) = (i, inherited) {
                        push_connection(&mut out, ip, line.ending());
                    }
                }
            }
        }
    }
    Ok(out)
}

fn push_moved(out: &mut Vec<u8>, block: &[Line<'_>], to: SocketAddr, rtcp: Option<u16>, own_c: bool, session_c: Option<IpAddr>) {
    let disabled = block.first().and_then(|l| l.value(b'm')).and_then(|v| fields(v).nth(1)).is_some_and(|p| p == b"0");
    let hold = !own_c && session_c.is_some_and(|ip| ip.is_unspecified());
    for (i, line) in block.iter().enumerate() {
        if let (0, Some(v)) = (i, line.value(b'm')) {
            push_port(out, v, to.port(), disabled);
            out.extend_from_slice(line.ending());
            // RFC 8866 section 5: i= may stand between m= and c=, but then c= after m= is still read by everyone.
            if !own_c && !hold && session_c != Some(to.ip()) {
                push_connection(out, to.ip(), line.ending());
            }
        } else if let Some(v) = line.value(b'c') {
            if is_zero(v) {
                out.extend_from_slice(line.whole);
            } else {
                push_connection(out, to.ip(), line.ending());
            }
        } else if let Some(v) = line.attribute(b"rtcp") {
            let port = rtcp.or_else(|| to.port().checked_add(1)).unwrap_or(0);
            out.extend_from_slice(format!("a=rtcp:{port}").as_bytes());
            if fields(v).count() > 1 {
                out.extend_from_slice(format!(" IN {} {}", family(to.ip()), to.ip()).as_bytes());
            }
            out.extend_from_slice(line.ending());
        } else if !is_ice(line) {
            out.extend_from_slice(line.whole);
        }
    }
}

fn push_port(out: &mut Vec<u8>, value: &[u8], port: u16, disabled: bool) {
    out.extend_from_slice(b"m=");
    let mut nth = 0;
    for part in value.split_inclusive(|&b| b == b' ') {
        if nth == 1 && part != b" " && !disabled {
            out.extend_from_slice(format!("{port} ").as_bytes());
        } else {
            out.extend_from_slice(part);
        }
        // Runs of spaces are carried along and don't count as fields.
        if part != b" " {
            nth += 1;
        }
    }
}

/// The same description with only some payload types on some m-lines: those that have an entry in `keep`. `a=rtpmap`,
/// `a=fmtp` and `a=rtcp-fb` of what is dropped go too. An m-line that would keep nothing is left as it is.
///
/// # Errors
/// If `keep` has another length than the description has m-lines, or the body isn't SDP.
pub fn keep_formats(body: &[u8], keep: &[Option<Vec<Vec<u8>>>]) -> Result<Vec<u8>, SdpError> {
    let sdp = Sdp::parse(body)?;
    if sdp.media().len() != keep.len() {
        return Err(SdpError::MediaCount);
    }
    let mut out = Vec::with_capacity(body.len());
    let mut blocks = blocks(body).into_iter();
    for line in blocks.next().unwrap_or_default() {
        out.extend_from_slice(line.whole);
    }
    for ((block, keep), media) in blocks.zip(keep).zip(sdp.media()) {
        let kept: Vec<&[u8]> = match keep {
            Some(keep) => media.formats.iter().copied().filter(|f| keep.iter().any(|k| k == f)).collect(),
            None => Vec::new(),
        };
        if kept.is_empty() || kept.len() == media.formats.len() {
            block.iter().for_each(|l| out.extend_from_slice(l.whole));
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
            let subject =
                [&b"rtpmap"[..], b"fmtp", b"rtcp-fb"].iter().find_map(|n| line.attribute(n)).and_then(|v| fields(v).next());
            // `a=rtcp-fb:*` speaks of all.
            if subject.is_none_or(|pt| pt == b"*" || kept.contains(&pt)) {
                out.extend_from_slice(line.whole);
            }
        }
    }
    Ok(out)
}

/// The session's lines, then each m-line's.
fn blocks(body: &[u8]) -> Vec<Vec<Line<'_>>> {
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

fn session_connection(body: &[u8]) -> Option<IpAddr> {
    lines(body).take_while(|l| l.value(b'm').is_none()).filter_map(|l| l.value(b'c')).last().and_then(super::address)
}

fn is_zero(connection: &[u8]) -> bool {
    super::address(connection).is_some_and(|ip| ip.is_unspecified())
}

fn is_ice(line: &Line<'_>) -> bool {
    line.value(b'a').is_some_and(|v| {
        [&b"candidate:"[..], b"remote-candidates:", b"end-of-candidates", b"ice-"].iter().any(|p| v.starts_with(p))
    })
}

const fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IP4" } else { "IP6" }
}

fn push_connection(out: &mut Vec<u8>, ip: IpAddr, ending: &[u8]) {
    out.extend_from_slice(format!("c=IN {} {ip}", family(ip)).as_bytes());
    // The last line of a body may lack its ending; a line that is added after it must not.
    out.extend_from_slice(if ending.is_empty() { b"\r\n" } else { ending });
}
