//! From the bytes of a captured frame to the IP packet in it, and to the UDP datagram or TCP segment in that. Pure; every length is checked against what is there, so a
//! truncated or lying frame gives nothing instead of a panic.

use crate::wire::passage::Passage;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a captured frame starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// Ethernet II, with any VLAN tags (pcap link type 1).
    Ethernet,
    /// Linux cooked capture, version 1 (pcap link type 113).
    Sll,
    /// Linux cooked capture, version 2 (pcap link type 276).
    Sll2,
    /// Nothing: an IPv4 or IPv6 header comes first (pcap link types 101, 228, 229).
    RawIp,
    /// Four bytes of address family in the byte order of the capturing host (pcap link types 0 and 108).
    Null,
}

/// A UDP datagram, or a part of one, inside an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Udp<'a> {
    /// A whole datagram.
    Whole {
        /// Who sent it.
        src: SocketAddr,
        /// Who it was sent to.
        dst: SocketAddr,
        /// What it carries.
        payload: &'a [u8],
    },
    /// One IP fragment of a datagram.
    Fragment(Fragment<'a>),
}

/// One IP fragment (RFC 791 section 3.2, RFC 8200 section 4.5) of a UDP datagram or TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Who sent it.
    pub src: IpAddr,
    /// Who it was sent to.
    pub dst: IpAddr,
    /// What the packet carries: its protocol number.
    pub protocol: u8,
    /// The identification that the fragments of one datagram share.
    pub id: u32,
    /// Where `data` belongs in the datagram (its UDP header included), in bytes.
    pub offset: usize,
    /// Whether further fragments follow this one.
    pub more: bool,
    /// The part of the datagram.
    pub data: &'a [u8],
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// 802.1Q, 802.1ad, and the number that older QinQ gear uses.
const ETHERTYPES_VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// Tags that are looked behind: QinQ has two; more is no traffic of a phone.
const MAX_VLAN_TAGS: usize = 4;
/// IPv6 extension headers that are looked behind; real packets have one or two.
const MAX_EXTENSIONS: usize = 8;
/// The protocol number of TCP.
pub const TCP: u8 = 6;
/// The protocol number of UDP.
pub const UDP: u8 = 17;
const UDP_HEADER: usize = 8;

/// The whole UDP datagram in `frame`: source, destination, payload. `None` for all else, fragments included.
#[must_use]
pub fn udp_of(link: Link, frame: &[u8]) -> Option<(SocketAddr, SocketAddr, &[u8])> {
    match udp_in_ip(ip_of(link, frame)?)? {
        Udp::Whole { src, dst, payload } => Some((src, dst, payload)),
        Udp::Fragment(_) => None,
    }
}

/// The IP packet in `frame`, with whatever padding follows it.
#[must_use]
pub fn ip_of(link: Link, frame: &[u8]) -> Option<&[u8]> {
    let (mut ethertype, mut rest) = match link {
        Link::Ethernet => (be16(frame, 12)?, frame.get(14..)?),
        Link::Sll => (be16(frame, 14)?, frame.get(16..)?),
        Link::Sll2 => (be16(frame, 0)?, frame.get(20..)?),
        Link::RawIp => return Some(frame),
        // The family number of IPv6 differs between systems; the IP header says it as well.
        Link::Null => return frame.get(4..),
    };
    for _ in 0..MAX_VLAN_TAGS {
        if !ETHERTYPES_VLAN.contains(&ethertype) {
            break;
        }
        ethertype = be16(rest, 2)?;
        rest = rest.get(4..)?;
    }
    matches!(ethertype, ETHERTYPE_IPV4 | ETHERTYPE_IPV6).then_some(rest)
}

/// How `frame` passed the host that captured it: cooked captures say so, others do not.
#[must_use]
pub fn passage_of(link: Link, frame: &[u8]) -> Passage {
    /// The hardware type of a loopback (ARPHRD_LOOPBACK).
    const LOOPBACK: u16 = 772;
    let (hardware, kind) = match link {
        Link::Sll => (be16(frame, 2), be16(frame, 0)),
        Link::Sll2 => (be16(frame, 8), frame.get(10).map(|kind| u16::from(*kind))),
        Link::Ethernet | Link::RawIp | Link::Null => return Passage::Unknown,
    };
    match (hardware, kind) {
        (Some(LOOPBACK), _) => Passage::Within,
        (_, Some(kind)) => Passage::of_packet_type(kind),
        _ => Passage::Unknown,
    }
}

/// The IP packet in what a packet socket hands over without link header: the tags of QinQ may still be in front of it, and what the
/// system says of the protocol is that before the tags or behind them, as its version likes.
#[must_use]
pub fn behind_tags(data: &[u8]) -> &[u8] {
    let mut rest = data;
    for _ in 0..MAX_VLAN_TAGS {
        // Two bytes of tag and the type of what follows. An IP packet that looks so has the length 2048, and then what would be the
        // length of the packet behind the tag is its flags and fragment offset: these make no fitting length.
        let (Some(ethertype), Some(next)) = (be16(rest, 2), rest.get(4..)) else { return data };
        let fits = |at, least| be16(next, at).is_some_and(|l| usize::from(l) >= least && usize::from(l) <= next.len());
        match (ethertype, next.first().map(|b| b >> 4)) {
            (ETHERTYPE_IPV4, Some(4)) if fits(2, 20) => return next,
            (ETHERTYPE_IPV6, Some(6)) if fits(4, 0) => return next,
            _ if ETHERTYPES_VLAN.contains(&ethertype) => rest = next,
            _ => return data,
        }
    }
    data
}

/// The UDP datagram, or fragment of one, in an IP packet. Bytes after the packet's own length are padding and are left out.
#[must_use]
pub fn udp_in_ip(packet: &[u8]) -> Option<Udp<'_>> {
    match ip(packet)? {
        Ip::Whole { src, dst, protocol: UDP, data, truncated: false } => {
            let (sport, dport, payload) = ports_and_payload(data)?;
            Some(Udp::Whole { src: SocketAddr::new(src, sport), dst: SocketAddr::new(dst, dport), payload })
        }
        Ip::Fragment(fragment) if fragment.protocol == UDP => Some(Udp::Fragment(fragment)),
        _ => None,
    }
}

/// What an IP packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ip<'a> {
    /// All of it.
    Whole {
        /// Who sent it.
        src: IpAddr,
        /// Who it was sent to.
        dst: IpAddr,
        /// The protocol number of what it carries, extension headers looked behind.
        protocol: u8,
        /// What it carries.
        data: &'a [u8],
        /// Whether the frame was cut off by whoever captured it, so that `data` lacks its end.
        truncated: bool,
    },
    /// One fragment of it.
    Fragment(Fragment<'a>),
}

/// A TCP segment (RFC 9293 section 3.1) without its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp<'a> {
    /// The port that it came from.
    pub sport: u16,
    /// The port that it goes to.
    pub dport: u16,
    /// The number of its first byte, or of its SYN.
    pub seq: u32,
    /// The number of the byte that its sender expects next, if it says so.
    pub ack: Option<u32>,
    /// It opens a connection.
    pub syn: bool,
    /// Nothing comes after it.
    pub fin: bool,
    /// It breaks a connection.
    pub rst: bool,
    /// What it carries.
    pub data: &'a [u8],
}

/// The TCP segment that an IP packet carries.
#[must_use]
pub fn tcp(data: &[u8]) -> Option<Tcp<'_>> {
    let header = usize::from(*data.get(12)? >> 4) * 4;
    let flags = *data.get(13)?;
    if header < 20 {
        return None;
    }
    Some(Tcp {
        sport: be16(data, 0)?,
        dport: be16(data, 2)?,
        seq: u32::from_be_bytes(array::<4>(data, 4)?),
        ack: (flags & 0x10 != 0).then_some(u32::from_be_bytes(array::<4>(data, 8)?)),
        syn: flags & 0x02 != 0,
        fin: flags & 0x01 != 0,
        rst: flags & 0x04 != 0,
        data: data.get(header..)?,
    })
}

/// What an IP packet carries. Bytes after the packet's own length are padding and are left out.
#[must_use]
pub fn ip(packet: &[u8]) -> Option<Ip<'_>> {
    match packet.first()? >> 4 {
        4 => ip_v4(packet),
        6 => ip_v6(packet),
        _ => None,
    }
}

/// A datagram put together from its fragments: source and destination port, payload.
#[must_use]
pub fn ports_and_payload(datagram: &[u8]) -> Option<(u16, u16, &[u8])> {
    let length = usize::from(be16(datagram, 4)?);
    // A length below the header's own is a lie; one beyond the bytes at hand is a truncated capture.
    if length < UDP_HEADER {
        return None;
    }
    Some((be16(datagram, 0)?, be16(datagram, 2)?, datagram.get(UDP_HEADER..length)?))
}

fn ip_v4(packet: &[u8]) -> Option<Ip<'_>> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let total = match usize::from(be16(packet, 2)?) {
        // Segments that the network card would cut up may be longer than the field can say; then it is 0 (Linux, "BIG TCP").
        0 => packet.len(),
        total => total,
    };
    if header < 20 || total < header {
        return None;
    }
    let data = packet.get(header..total.min(packet.len()))?;
    let protocol = *packet.get(9)?;
    let src = IpAddr::V4(Ipv4Addr::from(array::<4>(packet, 12)?));
    let dst = IpAddr::V4(Ipv4Addr::from(array::<4>(packet, 16)?));
    let truncated = total > packet.len();
    let flags = be16(packet, 6)?;
    let offset = usize::from(flags & 0x1fff) * 8;
    let more = flags & 0x2000 != 0;
    if more || offset != 0 {
        let id = u32::from(be16(packet, 4)?);
        return (!truncated).then_some(Ip::Fragment(Fragment { src, dst, protocol, id, offset, more, data }));
    }
    Some(Ip::Whole { src, dst, protocol, data, truncated })
}

fn ip_v6(packet: &[u8]) -> Option<Ip<'_>> {
    let rest = packet.get(40..)?;
    let length = match usize::from(be16(packet, 4)?) {
        // RFC 2675 section 3: a jumbogram, or a long segment as for IPv4.
        0 => rest.len(),
        length => length,
    };
    let truncated = length > rest.len();
    let src = IpAddr::V6(Ipv6Addr::from(array::<16>(packet, 8)?));
    let dst = IpAddr::V6(Ipv6Addr::from(array::<16>(packet, 24)?));
    match upper(*packet.get(6)?, rest.get(..length.min(rest.len()))?)? {
        Upper::Whole(protocol, data) => Some(Ip::Whole { src, dst, protocol, data, truncated }),
        Upper::Part { protocol, id, offset, more, data } => {
            (!truncated).then_some(Ip::Fragment(Fragment { src, dst, protocol, id, offset, more, data }))
        }
    }
}

/// What is behind the extension headers of IPv6.
enum Upper<'a> {
    Whole(u8, &'a [u8]),
    Part { protocol: u8, id: u32, offset: usize, more: bool, data: &'a [u8] },
}

/// What is behind the extension headers that a packet put together from fragments of IPv6 may begin with: protocol number and data.
#[must_use]
pub fn behind_extensions(next: u8, data: &[u8]) -> Option<(u8, &[u8])> {
    match upper(next, data)? {
        Upper::Whole(protocol, data) => Some((protocol, data)),
        // Fragments of fragments are nothing that an honest host sends.
        Upper::Part { .. } => None,
    }
}

fn upper(mut next: u8, mut data: &[u8]) -> Option<Upper<'_>> {
    for _ in 0..MAX_EXTENSIONS {
        match next {
            // Hop-by-hop, routing, destination options: length in units of 8 bytes, not counting the first (RFC 8200 section 4).
            0 | 43 | 60 => {
                let skip = (usize::from(*data.get(1)?) + 1) * 8;
                next = *data.first()?;
                data = data.get(skip..)?;
            }
            // Authentication header: units of 4 bytes, minus 2 (RFC 4302 section 2.2).
            51 => {
                let skip = (usize::from(*data.get(1)?) + 2) * 4;
                next = *data.first()?;
                data = data.get(skip..)?;
            }
            44 => {
                let fragment = be16(data, 2)?;
                let id = u32::from_be_bytes(array::<4>(data, 4)?);
                next = *data.first()?;
                data = data.get(8..)?;
                let (offset, more) = (usize::from(fragment & 0xfff8), fragment & 1 != 0);
                // Offset zero and no more to come is an "atomic" fragment (RFC 6946): a whole packet.
                if more || offset != 0 {
                    return Some(Upper::Part { protocol: next, id, offset, more, data });
                }
            }
            protocol => return Some(Upper::Whole(protocol, data)),
        }
    }
    None
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    array::<2>(bytes, at).map(u16::from_be_bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests;
