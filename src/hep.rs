//! HEP, the "homer encapsulation protocol". A SIP server sends a copy of each message that it received or sent, before
//! encryption or after decryption, with the addresses of both ends. keepcall thereby learns calls over TLS and
//! WebSocket, which no capture can read.
//!
//! This file is the codec: bytes to values, no sockets. [`intake`] decides which sender is trusted and what its packets
//! mean. [`listener`] has the sockets.
//!
//! Three versions are in use, and their first bytes tell them apart. Version 3 is `HEP3`, a length, and a list of
//! chunks, each with vendor, type and length, all in network byte order. Versions 1 and 2 are C structures in the
//! sender's memory layout; see `v1v2` for the consequences.

mod dialect;
mod framer;
mod idle_timeout;
pub mod intake;
pub mod listener;
mod reorder;
mod strikes;
mod v1v2;

pub use dialect::transport_of;
pub use framer::{FrameError, Framer};
pub use reorder::Reorder;

use std::borrow::Cow;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest inflated payload of a compressed chunk, in bytes: the most that a UDP datagram could carry. A zip bomb stops
/// there.
const MAX_INFLATED: usize = 65_535;
/// Most chunks read from one packet. 18 types are known, and without a bound 64 KiB could hold ten thousand.
const MAX_CHUNKS: usize = 64;
/// The start of version 3.
const MAGIC: &[u8; 4] = b"HEP3";
/// `HEP3` and the length.
const HEADER: usize = 6;
/// Vendor, type and length of a chunk.
const CHUNK_HEADER: usize = 6;

/// Why bytes are no usable HEP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HepError {
    /// The start fits none of the three versions.
    #[error("the packet does not begin like HEP of any version")]
    NotHep,
    /// The packet ends before its lengths say.
    #[error("the packet is shorter than the lengths in it")]
    Truncated,
    /// A length contradicts another, or a field has the wrong size.
    #[error("the field {0} is malformed")]
    Malformed(&'static str),
    /// More chunks than any sender writes.
    #[error("the packet has more than {MAX_CHUNKS} chunks")]
    TooManyChunks,
    /// A mandatory field is missing.
    #[error("the packet has no {0}")]
    Missing(&'static str),
    /// The compressed payload cannot be inflated, or exceeds the limit.
    #[error("the compressed payload cannot be unpacked")]
    Inflate,
}

/// Type of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A SIP message.
    Sip,
    /// Something else: RTCP reports, logs, state reports of the server. The number is HEP's.
    Other(u8),
}

/// The payload as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body<'a> {
    Whole(&'a [u8]),
    Zlib(&'a [u8]),
}

/// A HEP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hep<'a> {
    /// 1, 2 or 3.
    pub version: u8,
    /// Sender of the message according to the server.
    pub src: SocketAddr,
    /// Receiver of the message according to the server.
    pub dst: SocketAddr,
    /// IP protocol number according to the server. Its meaning differs between servers; see [`transport_of`].
    pub protocol: u8,
    /// Server's wall clock when the message was sent or received, in microseconds since 1970.
    pub at: Option<u64>,
    /// Type of the payload.
    pub kind: Kind,
    /// The key from the sender's configuration. Version 3 only.
    pub auth_key: Option<&'a [u8]>,
    /// The sender's number.
    pub agent_id: Option<u32>,
    /// The sender's name.
    pub agent_name: Option<&'a [u8]>,
    /// Links the packet to others: a Call-ID or the name of a channel.
    pub correlation_id: Option<&'a [u8]>,
    body: Body<'a>,
}

impl<'a> Hep<'a> {
    /// The message. Inflates only here, so that strangers cannot make the agent work for them.
    ///
    /// # Errors [`HepError::Inflate`].
    pub fn payload(&self) -> Result<Cow<'a, [u8]>, HepError> {
        let packed = match self.body {
            Body::Whole(bytes) => return Ok(Cow::Borrowed(bytes)),
            Body::Zlib(packed) => packed,
        };
        let mut out = Vec::new();
        let taken = flate2::read::ZlibDecoder::new(packed).take(MAX_INFLATED as u64 + 1).read_to_end(&mut out);
        match taken {
            Ok(n) if n <= MAX_INFLATED => Ok(Cow::Owned(out)),
            _ => Err(HepError::Inflate),
        }
    }
}

/// Decodes one packet of any version, which `bytes` must hold completely. For version 3, bytes beyond its length are
/// ignored.
///
/// # Errors As in [`HepError`]. Chunks of unknown vendors and types are no error.
pub fn decode(bytes: &[u8]) -> Result<Hep<'_>, HepError> {
    if bytes.starts_with(MAGIC) {
        return version3(bytes);
    }
    v1v2::decode(bytes)
}

/// The two bytes at `at` as a number in network byte order.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn version3(bytes: &[u8]) -> Result<Hep<'_>, HepError> {
    let length = usize::from(u16_at(bytes, MAGIC.len()).ok_or(HepError::Truncated)?);
    let mut rest = bytes.get(HEADER..length).ok_or(HepError::Truncated)?;
    let mut chunks = Chunks::default();
    let mut count = 0;
    while !rest.is_empty() {
        let (Some(vendor), Some(kind), Some(size)) = (u16_at(rest, 0), u16_at(rest, 2), u16_at(rest, 4)) else {
            return Err(HepError::Truncated);
        };
        let data = rest.get(CHUNK_HEADER..usize::from(size)).ok_or(HepError::Truncated)?;
        rest = &rest[usize::from(size)..];
        count += 1;
        if count > MAX_CHUNKS {
            return Err(HepError::TooManyChunks);
        }
        // Types of other vendors have other meanings.
        if vendor == 0 {
            chunks.take(kind, data)?;
        }
    }
    chunks.finish()
}

/// Values of a packet's chunks. If a type comes twice, the last one counts.
#[derive(Default)]
struct Chunks<'a> {
    protocol: Option<u8>,
    src: Option<IpAddr>,
    dst: Option<IpAddr>,
    src_port: Option<u16>,
    dst_port: Option<u16>,
    seconds: Option<u32>,
    micros: Option<u32>,
    kind: Option<u8>,
    agent_id: Option<u32>,
    agent_name: Option<&'a [u8]>,
    auth_key: Option<&'a [u8]>,
    correlation_id: Option<&'a [u8]>,
    body: Option<Body<'a>>,
}

impl<'a> Chunks<'a> {
    fn take(&mut self, kind: u16, data: &'a [u8]) -> Result<(), HepError> {
        match kind {
            0x01 => {
                // The address chunks show the family, so only its size is checked.
                fixed::<1>(data, "family")?;
            }
            0x02 => self.protocol = Some(u8::from_be_bytes(fixed(data, "protocol")?)),
            0x03 => self.src = Some(Ipv4Addr::from(fixed::<4>(data, "IPv4 source")?).into()),
            0x04 => self.dst = Some(Ipv4Addr::from(fixed::<4>(data, "IPv4 destination")?).into()),
            0x05 => self.src = Some(Ipv6Addr::from(fixed::<16>(data, "IPv6 source")?).into()),
            0x06 => self.dst = Some(Ipv6Addr::from(fixed::<16>(data, "IPv6 destination")?).into()),
            0x07 => self.src_port = Some(u16::from_be_bytes(fixed(data, "source port")?)),
            0x08 => self.dst_port = Some(u16::from_be_bytes(fixed(data, "destination port")?)),
            0x09 => self.seconds = Some(u32::from_be_bytes(fixed(data, "seconds")?)),
            0x0a => self.micros = Some(u32::from_be_bytes(fixed(data, "microseconds")?)),
            0x0b => self.kind = Some(u8::from_be_bytes(fixed(data, "kind")?)),
            0x0c => self.agent_id = Some(u32::from_be_bytes(fixed(data, "agent id")?)),
            0x0e => self.auth_key = Some(data),
            0x0f => self.body = Some(Body::Whole(data)),
            0x10 => self.body = Some(Body::Zlib(data)),
            0x11 => self.correlation_id = Some(data),
            0x13 => self.agent_name = Some(data),
            // Keep-alive timer (0x0d), VLAN (0x12), and later types do not affect what is learnt.
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<Hep<'a>, HepError> {
        let kind = match self.kind.ok_or(HepError::Missing("kind of payload"))? {
            1 => Kind::Sip,
            n => Kind::Other(n),
        };
        // A payload that will be ignored may lack fields that only SIP has: OpenSIPS writes its log lines without peer
        // addresses.
        let needed = |field: Option<IpAddr>, name| match (field, kind) {
            (Some(ip), _) => Ok(ip),
            (None, Kind::Other(_)) => Ok(Ipv4Addr::UNSPECIFIED.into()),
            (None, Kind::Sip) => Err(HepError::Missing(name)),
        };
        let (src, dst) = (needed(self.src, "source address")?, needed(self.dst, "destination address")?);
        if src.is_ipv4() != dst.is_ipv4() {
            return Err(HepError::Malformed("destination address"));
        }
        let body = match (self.body, kind) {
            (Some(body), _) => body,
            (None, Kind::Other(_)) => Body::Whole(&[]),
            (None, Kind::Sip) => return Err(HepError::Missing("payload")),
        };
        Ok(Hep {
            version: 3,
            src: SocketAddr::new(src, self.src_port.unwrap_or(0)),
            dst: SocketAddr::new(dst, self.dst_port.unwrap_or(0)),
            // Every known dialect has it. UDP is what the oldest senders mean.
            protocol: self.protocol.unwrap_or(dialect::UDP),
            at: self.seconds.map(|s| u64::from(s) * 1_000_000 + u64::from(self.micros.unwrap_or(0))),
            kind,
            auth_key: self.auth_key,
            agent_id: self.agent_id,
            agent_name: self.agent_name,
            correlation_id: self.correlation_id,
            body,
        })
    }
}

fn fixed<const N: usize>(data: &[u8], name: &'static str) -> Result<[u8; N], HepError> {
    data.try_into().map_err(|_| HepError::Malformed(name))
}

#[cfg(test)]
mod tests;
