//! From the bytes of a captured frame to the UDP datagram in it. Pure; every length is checked against what is there, so a
//! truncated or lying frame gives nothing instead of a panic.

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

/// One IP fragment (RFC 791 section 3.2, RFC 8200 section 4.5) of a UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Who sent it.
    pub src: IpAddr,
    /// Who it was sent to.
    pub dst: IpAddr,
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
const PROTOCOL_UDP: u8 = 17;
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

/// The UDP datagram, or fragment of one, in an IP packet. Bytes after the packet's own length are padding and are left out.
#[must_use]
pub fn udp_in_ip(packet: &[u8]) -> Option<Udp<'_>> {
    match packet.first()? >> 4 {
        4 => udp_in_v4(packet),
        6 => udp_in_v6(packet),
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

fn udp_in_v4(packet: &[u8]) -> Option<Udp<'_>> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let total = usize::from(be16(packet, 2)?);
    if header < 20 || total < header || *packet.get(9)? != PROTOCOL_UDP {
        return None;
    }
    let data = packet.get(header..total)?;
    let src = IpAddr::V4(Ipv4Addr::from(array::<4>(packet, 12)?));
    let dst = IpAddr::V4(Ipv4Addr::from(array::<4>(packet, 16)?));
    let flags = be16(packet, 6)?;
    let offset = usize::from(flags & 0x1fff) * 8;
    let more = flags & 0x2000 != 0;
    if more || offset != 0 {
        let id = u32::from(be16(packet, 4)?);
        return Some(Udp::Fragment(Fragment { src, dst, id, offset, more, data }));
    }
    whole(src, dst, data)
}

fn udp_in_v6(packet: &[u8]) -> Option<Udp<'_>> {
    let length = usize::from(be16(packet, 4)?);
    let src = IpAddr::V6(Ipv6Addr::from(array::<16>(packet, 8)?));
    let dst = IpAddr::V6(Ipv6Addr::from(array::<16>(packet, 24)?));
    let mut next = *packet.get(6)?;
    let mut data = packet.get(40..40 + length)?;
    for _ in 0..MAX_EXTENSIONS {
        match next {
            PROTOCOL_UDP => return whole(src, dst, data),
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
                    return (next == PROTOCOL_UDP).then_some(Udp::Fragment(Fragment { src, dst, id, offset, more, data }));
                }
            }
            _ => return None,
        }
    }
    None
}

fn whole(src: IpAddr, dst: IpAddr, datagram: &[u8]) -> Option<Udp<'_>> {
    let (sport, dport, payload) = ports_and_payload(datagram)?;
    Some(Udp::Whole { src: SocketAddr::new(src, sport), dst: SocketAddr::new(dst, dport), payload })
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    array::<2>(bytes, at).map(u16::from_be_bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests;
