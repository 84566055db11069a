//! Session descriptions (RFC 8866) as bytes with typed views, and edits that leave every untouched line byte-identical.
//!
//! Reading is lenient: LF, CR or both end a line, `s=` and `t=` may be missing, unknown lines are kept, and attribute
//! names match in any case. Only an edit that needs a line requires it.

mod arrange;
mod edit;
mod line;
#[cfg(test)]
mod tests;
mod views;

pub use arrange::{Part, arrange};
pub use edit::{continue_origin, end_hold, keep_formats, set_media_address, with_origin};
pub use views::{Candidate, Crypto, Group, Setup};

use line::{Line, fields, lines, trimmed, trimmed_end, trimmed_start};
use smallvec::SmallVec;
use std::net::{IpAddr, SocketAddr};

/// Most lines in a description. Real ones stay below 300 even with ICE, and each line costs work.
const MAX_LINES: usize = 2000;
/// Most m-lines in a description. A conference with 30 videos is the most that is plausible.
const MAX_MEDIA: usize = 64;

/// Reasons why a body is no usable session description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// No line looks like `x=...`.
    #[error("the body is not a session description: it has no line of the form x=value")]
    NotSdp,
    /// The description exceeds the limit of lines or m-lines.
    #[error("the session description has more than {MAX_LINES} lines or {MAX_MEDIA} m= lines")]
    TooLarge,
    /// A malformed m-line: its kind, port or protocol is missing or invalid.
    #[error("an m= line does not have the form `m=kind port proto format...`")]
    Media,
    /// The edit needs an `o=` line with six fields and a numeric version below the maximum.
    #[error("the o= line is missing or lacks fields, or the version cannot be increased")]
    Origin,
    /// The edit got a different number of entries than the body has m-lines.
    #[error("the session description has another number of m= lines than the change")]
    MediaCount,
}

/// The fields of an `o=` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Username.
    pub username: &'a [u8],
    /// Session id, kept as bytes because RFC 8866 sets no limit on its digits.
    pub id: &'a [u8],
    /// Session version.
    pub version: u64,
    /// Network type, address type and address, as written.
    pub rest: &'a [u8],
}

/// `a=sendrecv` and its variants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Both ways, also the default.
    #[default]
    SendRecv,
    /// The describer only sends (hold).
    SendOnly,
    /// The describer only receives.
    RecvOnly,
    /// No media in either direction.
    Inactive,
}

/// One m-line with its attributes. Session-level values already apply where the m-line has none of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media<'a> {
    /// `audio`, `video`, `image`...
    pub kind: &'a [u8],
    /// The port. 0 means refused or disabled.
    pub port: u16,
    /// The number after `port/`, 1 if absent.
    pub port_count: u16,
    /// `RTP/AVP` and others.
    pub proto: &'a [u8],
    /// Payload types, in order of preference.
    pub formats: Vec<&'a [u8]>,
    /// The address in `c=`. `None` if `c=` is missing or has a host name.
    pub connection: Option<IpAddr>,
    /// The address or host name in `c=`, as written.
    pub host: Option<&'a [u8]>,
    /// `a=rtcp:` (RFC 3605).
    pub rtcp: Option<(u16, Option<IpAddr>)>,
    /// `a=rtcp-mux` is present (RFC 5761).
    pub rtcp_mux: bool,
    /// Direction.
    pub direction: Direction,
    /// The m-line has keys, from `a=crypto` or `a=fingerprint`.
    pub crypto: bool,
    /// Key material: the `inline:` parameters of `a=crypto` and the values of `a=fingerprint`, in order. Session-level
    /// fingerprints apply to an m-line without its own (RFC 8122 section 5).
    pub keys: Vec<&'a [u8]>,
    /// `a=rtpmap`: payload type and encoding (`opus/48000/2`).
    pub rtpmap: Vec<(&'a [u8], &'a [u8])>,
    /// The m-line and its lines as written, and the session lines before the first m-line.
    block: &'a [u8],
    session: &'a [u8],
}

/// A parsed session description.
#[derive(Clone, Debug)]
pub struct Sdp<'a> {
    origin: Option<Origin<'a>>,
    media: Vec<Media<'a>>,
    session: &'a [u8],
}

/// Media address of an m-line: the RTP address, and the RTCP port if it is not the next port.
pub type Place = (SocketAddr, Option<u16>);

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    // `parse` would accept a leading plus sign.
    if !digits.first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The address in a `c=` value or in the tail of `a=rtcp`, as written: `IN IP4 192.0.2.1/127`.
fn host(value: &[u8]) -> Option<&[u8]> {
    // A multicast address has a TTL and a count behind slashes.
    fields(value).nth(2)?.split(|&b| b == b'/').next().filter(|h| !h.is_empty())
}

fn address(value: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(host(value)?).ok()?.parse().ok()
}

/// The fields of an `o=` value. Some senders put several spaces between them. Some send an empty username, which leaves
/// the space before the session id.
fn origin(value: &[u8]) -> Option<Origin<'_>> {
    // With six fields, a leading blank is just an extra one.
    let value = if fields(value).count() > 5 { trimmed_start(value) } else { value };
    let (username, rest) = next_field(value);
    let (id, rest) = next_field(trimmed_start(rest));
    let (version, rest) = next_field(trimmed_start(rest));
    let rest = trimmed(rest);
    if id.is_empty() || fields(rest).count() < 3 {
        return None;
    }
    Some(Origin { username, id, version: number(version)?, rest })
}

fn next_field(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|b| matches!(b, b' ' | b'\t')).unwrap_or(text.len()))
}

fn port_and_count(ports: &[u8]) -> Option<(u16, u16)> {
    let mut ports = ports.splitn(2, |&b| b == b'/');
    let port = number(ports.next()?)?;
    Some((port, ports.next().map_or(Some(1), number)?))
}

/// The media addresses of a description: [`Media::connection`] and [`Media::port`] of each m-line, without parsing the
/// rest. Empty for a description that [`Sdp::parse`] refuses because of its size or an m-line.
#[must_use]
pub fn places(body: &[u8]) -> SmallVec<[(Option<IpAddr>, u16); 2]> {
    let (mut all, mut session) = (SmallVec::new(), None);
    for (n, line) in lines(body).enumerate() {
        if n >= MAX_LINES {
            return SmallVec::new();
        }
        match line.text {
            [b'm', b'=', value @ ..] => {
                let mut parts = fields(value).skip(1);
                let port =
                    parts.next().filter(|_| parts.next().is_some() && all.len() < MAX_MEDIA).and_then(port_and_count);
                let Some((port, _)) = port else { return SmallVec::new() };
                all.push((session, port));
            }
            [b'c', b'=', value @ ..] => {
                *all.last_mut().map_or(&mut session, |(connection, _)| connection) = address(value)
            }
            _ => {}
        }
    }
    all
}

fn media_line(value: &[u8]) -> Option<Media<'_>> {
    let mut parts = fields(value);
    let (kind, ports, proto) = (parts.next()?, parts.next()?, parts.next()?);
    let (port, port_count) = port_and_count(ports)?;
    Some(Media {
        kind,
        port,
        port_count,
        proto,
        formats: parts.collect(),
        connection: None,
        host: None,
        rtcp: None,
        rtcp_mux: false,
        direction: Direction::SendRecv,
        crypto: false,
        keys: Vec::new(),
        rtpmap: Vec::new(),
        block: &value[..0],
        session: &value[..0],
    })
}

fn direction(line: &Line<'_>) -> Option<Direction> {
    let value = trimmed_end(line.value(b'a')?);
    let known = [
        (&b"sendrecv"[..], Direction::SendRecv),
        (b"sendonly", Direction::SendOnly),
        (b"recvonly", Direction::RecvOnly),
        (b"inactive", Direction::Inactive),
    ];
    known.iter().find(|(word, _)| word.eq_ignore_ascii_case(value)).map(|(_, d)| *d)
}

impl<'a> Media<'a> {
    /// Applies one attribute line of the m-line. `inherited` is the number of keys from the session level.
    fn take(&mut self, line: &Line<'a>, inherited: &mut usize) {
        if let Some(d) = direction(line) {
            self.direction = d;
        } else if let Some(v) = line.attribute(b"rtpmap") {
            if let Some((pt, encoding)) = split_once(v) {
                self.rtpmap.push((pt, encoding));
            }
        } else if let Some(v) = line.attribute(b"rtcp") {
            if let Some(port) = fields(v).next().and_then(number) {
                self.rtcp = Some((port, address(next_field(trimmed_start(v)).1)));
            }
        } else if line.attribute(b"rtcp-mux").is_some() {
            self.rtcp_mux = true;
        } else if let Some(v) = line.attribute(b"crypto") {
            self.crypto = true;
            self.keys.extend(fields(v).filter(|f| f.starts_with(b"inline:")));
        } else if let Some(v) = line.attribute(b"fingerprint") {
            self.crypto = true;
            self.keys.drain(..std::mem::take(inherited));
            self.keys.push(trimmed(v));
        }
    }

    /// The encoding of a payload type: its `a=rtpmap`, or else its static assignment in RFC 3551.
    #[must_use]
    pub fn encoding(&self, format: &[u8]) -> Option<&[u8]> {
        self.rtpmap.iter().find(|(pt, _)| *pt == format).map(|(_, e)| *e).or_else(|| well_known(format))
    }

    /// The RTCP port: `a=rtcp`, or else the port above RTP (RFC 3605, RFC 3550 section 11).
    #[must_use]
    pub fn rtcp_port(&self) -> Option<u16> {
        self.rtcp.map_or_else(|| self.port.checked_add(1), |(port, _)| Some(port))
    }
}

fn split_once(v: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = fields(v);
    Some((parts.next()?, parts.next()?))
}

/// RFC 3551 tables 4 and 5: the static types that telephony still uses without `a=rtpmap`.
fn well_known(format: &[u8]) -> Option<&'static [u8]> {
    Some(match format {
        b"0" => b"PCMU/8000",
        b"3" => b"GSM/8000",
        b"4" => b"G723/8000",
        b"7" => b"LPC/8000",
        b"8" => b"PCMA/8000",
        b"9" => b"G722/8000",
        b"10" => b"L16/44100/2",
        b"11" => b"L16/44100",
        b"12" => b"QCELP/8000",
        b"13" => b"CN/8000",
        b"15" => b"G728/8000",
        b"18" => b"G729/8000",
        b"26" => b"JPEG/90000",
        b"31" => b"H261/90000",
        b"34" => b"H263/90000",
        _ => return None,
    })
}

impl<'a> Sdp<'a> {
    /// Parses a description.
    ///
    /// # Errors
    /// The body has no SDP line, an m-line is malformed, or the body is too large.
    pub fn parse(body: &'a [u8]) -> Result<Self, SdpError> {
        let mut sdp = Self { origin: None, media: Vec::new(), session: body };
        let (mut connection, mut host_name, mut session_direction) = (None, None, Direction::SendRecv);
        let (mut session_mux, mut session_keys, mut inherited) = (false, Vec::new(), 0);
        let (mut count, mut any, mut at, mut start) = (0_usize, false, 0, 0);
        for line in lines(body) {
            count += 1;
            if count > MAX_LINES {
                return Err(SdpError::TooLarge);
            }
            any |= matches!(line.text, [k, b'=', ..] if k.is_ascii_lowercase());
            if let Some(v) = line.value(b'm') {
                if sdp.media.len() == MAX_MEDIA {
                    return Err(SdpError::TooLarge);
                }
                sdp.close(body, start, at);
                start = at;
                let mut media = media_line(v).ok_or(SdpError::Media)?;
                (media.connection, media.host) = (connection, host_name);
                (media.direction, media.rtcp_mux) = (session_direction, session_mux);
                media.crypto = !session_keys.is_empty();
                media.keys.clone_from(&session_keys);
                inherited = session_keys.len();
                sdp.media.push(media);
            } else if let Some(media) = sdp.media.last_mut() {
                match line.value(b'c') {
                    Some(v) => (media.connection, media.host) = (address(v), host(v)),
                    None => media.take(&line, &mut inherited),
                }
            } else if let Some(v) = line.value(b'o') {
                sdp.origin = sdp.origin.or_else(|| origin(v));
            } else if let Some(v) = line.value(b'c') {
                (connection, host_name) = (address(v), host(v));
            } else if let Some(d) = direction(&line) {
                session_direction = d;
            } else if line.attribute(b"rtcp-mux").is_some() {
                session_mux = true;
            } else if let Some(v) = line.attribute(b"fingerprint") {
                session_keys.push(trimmed(v));
            }
            at += line.whole.len();
        }
        sdp.close(body, start, at);
        if any { Ok(sdp) } else { Err(SdpError::NotSdp) }
    }

    /// Closes the block from `start` to `end`.
    fn close(&mut self, body: &'a [u8], start: usize, end: usize) {
        let block = body.get(start..end).unwrap_or_default();
        match self.media.last_mut() {
            Some(media) => (media.block, media.session) = (block, self.session),
            None => self.session = block,
        }
    }

    /// The `o=` line. `None` if missing or malformed.
    #[must_use]
    pub const fn origin(&self) -> Option<Origin<'a>> {
        self.origin
    }

    /// The m-lines, in order.
    #[must_use]
    pub fn media(&self) -> &[Media<'a>] {
        &self.media
    }
}
