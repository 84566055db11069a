//! Session descriptions (RFC 8866) as bytes with typed views, and edits that leave every untouched line byte-identical.
//!
//! Reading is lenient: bare LF ends a line, `s=` and `t=` may be missing, unknown lines are carried along. Only an edit
//! that needs a line insists on it.

mod edit;
#[cfg(test)]
mod tests;

pub use edit::{continue_origin, keep_formats, set_media_address, with_origin};

use std::net::IpAddr;

/// Descriptions with more lines than this are refused: real ones stay below 300 even with ICE, and each line costs work.
const MAX_LINES: usize = 2000;
/// Descriptions with more m-lines than this are refused; a conference with 30 videos is the most that is plausible.
const MAX_MEDIA: usize = 64;

/// Why a body is not usable as a session description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// No line looks like `x=...`.
    #[error("the body is not a session description: it has no line of the form x=value")]
    NotSdp,
    /// More lines or m-lines than are ever read.
    #[error("the session description is too large: at most {MAX_LINES} lines and {MAX_MEDIA} m-lines are read")]
    TooLarge,
    /// An m-line without kind, port, protocol and format.
    #[error("an m= line is not of the form kind port proto format...")]
    Media,
    /// The edit needs an `o=` line with six fields and a numeric version.
    #[error("the o= line is missing, or lacks fields, or its version is not a number that can grow")]
    Origin,
    /// The edit was given another number of m-lines than the body has.
    #[error("the number of m-lines differs")]
    MediaCount,
}

/// The fields of an `o=` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Username.
    pub username: &'a [u8],
    /// Session id; kept as bytes because RFC 8866 sets no limit on its digits.
    pub id: &'a [u8],
    /// Session version.
    pub version: u64,
    /// Network type, address type and address, as they were written.
    pub rest: &'a [u8],
}

/// `a=sendrecv` and its relatives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Both ways; also where nothing is said.
    #[default]
    SendRecv,
    /// The describer only sends (it holds the other).
    SendOnly,
    /// The describer only receives.
    RecvOnly,
    /// Neither.
    Inactive,
}

/// One m-line with what belongs to it; session-level values are already applied where the m-line has none of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media<'a> {
    /// `audio`, `video`, `image`...
    pub kind: &'a [u8],
    /// The port; 0 means refused or disabled.
    pub port: u16,
    /// The number after `port/`, 1 if absent.
    pub port_count: u16,
    /// `RTP/AVP` and so on.
    pub proto: &'a [u8],
    /// Payload types, in order of preference.
    pub formats: Vec<&'a [u8]>,
    /// The address of `c=`; `None` if it is missing or a host name.
    pub connection: Option<IpAddr>,
    /// `a=rtcp:` (RFC 3605).
    pub rtcp: Option<(u16, Option<IpAddr>)>,
    /// Whether `a=rtcp-mux` is there (RFC 5761).
    pub rtcp_mux: bool,
    /// Direction.
    pub direction: Direction,
    /// Whether keys are offered, by `a=crypto` or `a=fingerprint`.
    pub crypto: bool,
    /// The key material: `inline:` parameters of `a=crypto` and values of `a=fingerprint`, in order.
    pub keys: Vec<&'a [u8]>,
    /// `a=rtpmap`: payload type and encoding (`opus/48000/2`).
    pub rtpmap: Vec<(&'a [u8], &'a [u8])>,
}

/// A parsed session description.
#[derive(Clone, Debug)]
pub struct Sdp<'a> {
    origin: Option<Origin<'a>>,
    media: Vec<Media<'a>>,
}

/// A line without its ending, and the whole of it as it stands in the body.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    pub(super) text: &'a [u8],
    pub(super) whole: &'a [u8],
}

impl<'a> Line<'a> {
    /// The CR LF or LF (or nothing, at the end of the body) that ends the line.
    pub(super) fn ending(&self) -> &'a [u8] {
        self.whole.get(self.text.len()..).unwrap_or_default()
    }

    pub(super) fn value(&self, kind: u8) -> Option<&'a [u8]> {
        match self.text {
            [k, b'=', value @ ..] if *k == kind => Some(value),
            _ => None,
        }
    }

    /// The value of `a=name:value`; empty for `a=name`.
    pub(super) fn attribute(&self, name: &[u8]) -> Option<&'a [u8]> {
        let value = self.value(b'a')?;
        let rest = value.strip_prefix(name)?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix(b":") }
    }
}

pub(super) fn lines(body: &[u8]) -> impl Iterator<Item = Line<'_>> {
    body.split_inclusive(|&b| b == b'\n').map(|whole| {
        let text = whole.strip_suffix(b"\n").unwrap_or(whole);
        Line { text: text.strip_suffix(b"\r").unwrap_or(text), whole }
    })
}

pub(super) fn fields(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b' ' || b == b'\t').filter(|f| !f.is_empty())
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    // `parse` would take a leading plus sign.
    if !digits.first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The address of a `c=` value or of the tail of `a=rtcp`: `IN IP4 192.0.2.1/127`.
fn address(value: &[u8]) -> Option<IpAddr> {
    let field = fields(value).nth(2)?;
    // A multicast address carries a TTL and a count behind slashes.
    let host = field.split(|&b| b == b'/').next()?;
    std::str::from_utf8(host).ok()?.parse().ok()
}

fn origin(value: &[u8]) -> Option<Origin<'_>> {
    let mut parts = value.splitn(4, |&b| b == b' ');
    let (username, id, version, rest) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if username.is_empty() || id.is_empty() || fields(rest).count() < 3 {
        return None;
    }
    Some(Origin { username, id, version: number(version)?, rest })
}

fn media_line(value: &[u8]) -> Option<Media<'_>> {
    let mut parts = fields(value);
    let (kind, ports, proto) = (parts.next()?, parts.next()?, parts.next()?);
    let mut ports = ports.splitn(2, |&b| b == b'/');
    let port = number(ports.next()?)?;
    let port_count = match ports.next() {
        Some(count) => number(count)?,
        None => 1,
    };
    Some(Media {
        kind,
        port,
        port_count,
        proto,
        formats: parts.collect(),
        connection: None,
        rtcp: None,
        rtcp_mux: false,
        direction: Direction::SendRecv,
        crypto: false,
        keys: Vec::new(),
        rtpmap: Vec::new(),
    })
}

fn direction(line: &Line<'_>) -> Option<Direction> {
    Some(match line.value(b'a')? {
        b"sendrecv" => Direction::SendRecv,
        b"sendonly" => Direction::SendOnly,
        b"recvonly" => Direction::RecvOnly,
        b"inactive" => Direction::Inactive,
        _ => return None,
    })
}

impl<'a> Media<'a> {
    fn attribute(&mut self, line: &Line<'a>) {
        if let Some(d) = direction(line) {
            self.direction = d;
        } else if let Some(v) = line.attribute(b"rtpmap") {
            if let Some((pt, encoding)) = split_once(v) {
                self.rtpmap.push((pt, encoding));
            }
        } else if let Some(v) = line.attribute(b"rtcp") {
            if let Some(port) = fields(v).next().and_then(number) {
                let tail = v.iter().position(|&b| b == b' ').and_then(|i| v.get(i..)).unwrap_or_default();
                self.rtcp = Some((port, address(tail)));
            }
        } else if line.attribute(b"rtcp-mux").is_some() {
            self.rtcp_mux = true;
        } else if let Some(v) = line.attribute(b"crypto") {
            self.crypto = true;
            self.keys.extend(fields(v).filter(|f| f.starts_with(b"inline:")));
        } else if let Some(v) = line.attribute(b"fingerprint") {
            self.crypto = true;
            self.keys.push(v);
        }
    }

    /// The encoding of a payload type: its `a=rtpmap`, else what RFC 3551 fixes, else nothing.
    #[must_use]
    pub fn encoding(&self, format: &[u8]) -> Option<&[u8]> {
        self.rtpmap.iter().find(|(pt, _)| *pt == format).map(|(_, e)| *e).or_else(|| well_known(format))
    }

    /// Where RTCP is expected: `a=rtcp`, else the port above RTP (RFC 3605, RFC 3550 section 11).
    #[must_use]
    pub fn rtcp_port(&self) -> Option<u16> {
        self.rtcp.map_or_else(|| self.port.checked_add(1), |(port, _)| Some(port))
    }
}

fn split_once(v: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = fields(v);
    Some((parts.next()?, parts.next()?))
}

/// RFC 3551 table 4 and 5, the types that telephony still uses without `a=rtpmap`.
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
    /// Reads a description.
    ///
    /// # Errors
    /// If nothing in the body looks like SDP, an m-line is malformed, or the body is absurdly large.
    pub fn parse(body: &'a [u8]) -> Result<Self, SdpError> {
        let mut sdp = Self { origin: None, media: Vec::new() };
        let (mut session_address, mut session_direction) = (None, Direction::SendRecv);
        let (mut session_mux, mut session_keys) = (false, Vec::new());
        let (mut count, mut any) = (0_usize, false);
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
                let mut media = media_line(v).ok_or(SdpError::Media)?;
                (media.connection, media.direction, media.rtcp_mux) = (session_address, session_direction, session_mux);
                media.crypto = !session_keys.is_empty();
                media.keys.clone_from(&session_keys);
                sdp.media.push(media);
                continue;
            }
            match sdp.media.last_mut() {
                Some(media) => match line.value(b'c') {
                    Some(v) => media.connection = address(v),
                    None => media.attribute(&line),
                },
                None => {
                    if let Some(v) = line.value(b'o') {
                        sdp.origin = sdp.origin.or_else(|| origin(v));
                    } else if let Some(v) = line.value(b'c') {
                        session_address = address(v);
                    } else if let Some(d) = direction(&line) {
                        session_direction = d;
                    } else if line.attribute(b"rtcp-mux").is_some() {
                        session_mux = true;
                    } else if let Some(v) = line.attribute(b"fingerprint") {
                        session_keys.push(v);
                    }
                }
            }
        }
        if any { Ok(sdp) } else { Err(SdpError::NotSdp) }
    }

    /// The `o=` line; `None` if it is missing or malformed.
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
