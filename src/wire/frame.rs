//! Parses captured frames into IP packets, UDP datagrams and TCP segments. Pure. Every length is checked against the
//! bytes at hand, so a truncated or lying frame gives nothing instead of a panic.

use crate::wire::passage::Passage;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Link header at the start of a captured frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// Ethernet II, with any VLAN tags (pcap link type 1).
    Ethernet,
    /// Linux cooked capture, version 1 (pcap link type 113).
    Sll,
    /// Linux cooked capture, version 2 (pcap link type 276).
    Sll2,
    /// No link header: the frame starts with an IPv4 or IPv6 header (pcap link types 101, 228, 229).
    RawIp,
    /// Address family in four bytes, in the byte order of the capturing host (pcap link types 0 and 108).
    Null,
}

/// A UDP datagram, or one fragment of it, inside an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Udp<'a> {
    /// A whole datagram.
    Whole {
        /// Source address and port.
        src: SocketAddr,
        /// Destination address and port.
        dst: SocketAddr,
        /// UDP payload.
        payload: &'a [u8],
    },
    /// One IP fragment of a datagram.
    Fragment(Fragment<'a>),
}

/// One IP fragment (RFC 791 section 3.2, RFC 8200 section 4.5) of a UDP datagram or TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Protocol number of the payload.
    pub protocol: u8,
    /// Identification shared by all fragments of one datagram.
    pub id: u32,
    /// Offset of `data` in the datagram (its UDP header included), in bytes.
    pub offset: usize,
    /// More fragments follow this one.
    pub more: bool,
    /// This fragment's bytes of the datagram.
    pub data: &'a [u8],
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// 802.1Q, 802.1ad, and the number used by older QinQ gear.
const ETHERTYPES_VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// VLAN tags to skip at most. QinQ has two, and no phone's traffic has more.
const MAX_VLAN_TAGS: usize = 4;
/// IPv6 extension headers to skip at most. Real packets have one or two.
const MAX_EXTENSIONS: usize = 8;
/// The protocol number of TCP.
pub const TCP: u8 = 6;
/// The protocol number of UDP.
pub const UDP: u8 = 17;
const UDP_HEADER: usize = 8;

/// The whole UDP datagram in `frame`: source, destination, payload. `None` for everything else, fragments included.
#[must_use]
pub fn udp_of(link: Link, frame: &[u8]) -> Option<(SocketAddr, SocketAddr, &[u8])> {
    match udp_in_ip(ip_of(link, frame)?)? {
        Udp::Whole { src, dst, payload } => Some((src, dst, payload)),
        Udp::Fragment(_) => None,
    }
}

/// The IP packet in `frame`, with any padding behind it.
#[must_use]
pub fn ip_of(link: Link, frame: &[u8]) -> Option<&[u8]> {
    let (mut ethertype, mut rest) = match link {
        Link::Ethernet => (be16(frame, 12)?, frame.get(14..)?),
        Link::Sll => (be16(frame, 14)?, frame.get(16..)?),
        Link::Sll2 => (be16(frame, 0)?, frame.get(20..)?),
        Link::RawIp => return Some(frame),
        // Systems use different family numbers for IPv6, but the IP header carries the version as well.
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

/// The direction in which `frame` passed the capturing host. Only cooked captures record it.
#[must_use]
pub fn passage_of(link: Link, frame: &[u8]) -> Passage {
    /// Hardware type of a loopback (ARPHRD_LOOPBACK).
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

/// The IP packet in data that a packet socket delivers without a link header. QinQ tags may still precede the packet.
/// Depending on its version, the kernel reports the protocol before the tags or the one behind them.
#[must_use]
pub fn behind_tags(data: &[u8]) -> &[u8] {
    let mut rest = data;
    for _ in 0..MAX_VLAN_TAGS {
        // Two bytes of tag, then the type of the payload. An IPv4 packet of 2048 bytes looks the same. Its flags and
        // fragment offset then stand where the inner packet has its length, and they never make a length that fits.
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

/// The UDP datagram, or one fragment of it, in an IP packet. Bytes after the packet's own length are padding and are
/// dropped.
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

/// Payload of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ip<'a> {
    /// The whole payload.
    Whole {
        /// Source address.
        src: IpAddr,
        /// Destination address.
        dst: IpAddr,
        /// Protocol number of the payload, behind any extension headers.
        protocol: u8,
        /// The payload.
        data: &'a [u8],
        /// The capture cut the frame off, so the end of `data` is missing.
        truncated: bool,
    },
    /// One fragment of the payload.
    Fragment(Fragment<'a>),
}

/// A TCP segment (RFC 9293 section 3.1) without its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp<'a> {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Sequence number of the first byte, or of the SYN.
    pub seq: u32,
    /// Next byte that the sender expects, if the ACK flag is set.
    pub ack: Option<u32>,
    /// SYN: opens a connection.
    pub syn: bool,
    /// FIN: the last byte of the sender.
    pub fin: bool,
    /// RST: aborts a connection.
    pub rst: bool,
    /// Data of the segment.
    pub data: &'a [u8],
}

/// The TCP segment in the payload of an IP packet.
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

/// The payload of an IP packet. Bytes after the packet's own length are padding and are dropped.
#[must_use]
pub fn ip(packet: &[u8]) -> Option<Ip<'_>> {
    match packet.first()? >> 4 {
        4 => ip_v4(packet),
        6 => ip_v6(packet),
        _ => None,
    }
}

/// Source port, destination port and payload of a whole UDP datagram.
#[must_use]
pub fn ports_and_payload(datagram: &[u8]) -> Option<(u16, u16, &[u8])> {
    let length = usize::from(be16(datagram, 4)?);
    // A length below the header's own is a lie. A length beyond the bytes at hand is a truncated capture.
    if length < UDP_HEADER {
        return None;
    }
    Some((be16(datagram, 0)?, be16(datagram, 2)?, datagram.get(UDP_HEADER..length)?))
}

fn ip_v4(packet: &[u8]) -> Option<Ip<'_>> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let total = match usize::from(be16(packet, 2)?) {
        // A segment that the network card would split may exceed this 16-bit field. Linux then writes 0 ("BIG TCP").
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
        // RFC 2675 section 3: a jumbogram, or a long segment as in IPv4.
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

/// Payload behind the IPv6 extension headers.
enum Upper<'a> {
    Whole(u8, &'a [u8]),
    Part { protocol: u8, id: u32, offset: usize, more: bool, data: &'a [u8] },
}

/// Protocol number and data behind the extension headers of a reassembled packet. Only IPv6 packets have them.
#[must_use]
pub fn behind_extensions(next: u8, data: &[u8]) -> Option<(u8, &[u8])> {
    match upper(next, data)? {
        Upper::Whole(protocol, data) => Some((protocol, data)),
        // No honest host sends fragments of fragments.
        Upper::Part { .. } => None,
    }
}

fn upper(mut next: u8, mut data: &[u8]) -> Option<Upper<'_>> {
    for _ in 0..MAX_EXTENSIONS {
        match next {
            // Hop-by-hop, routing, destination options: length in units of 8 bytes, without the first 8 (RFC 8200
            // section 4).
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
                // An "atomic" fragment (RFC 6946) has offset zero and no successor: it is a whole packet.
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
