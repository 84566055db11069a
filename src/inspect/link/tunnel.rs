//! What an IP packet carries: another packet, something that may hide SIP and cannot be read, or neither. Pure. Each
//! header is checked against the bytes at hand; a packet that only resembles a tunnel by its port is none.

use super::super::first_line::is_sip;
use super::{ethernet, labelled, ppp};
use serde::Serialize;

/// Most extension headers of GTP-U skipped; a packet has one or two.
const MAX_EXTENSIONS: usize = 8;
/// Most tags of TZSP, and most chunks of SCTP, looked at.
const MAX_PARTS: usize = 32;
/// UDP ports: VXLAN (RFC 7348, and Linux's own), Geneve (RFC 8926), GTP-U (3GPP TS 29.281), L2TP (RFC 2661), TZSP (the
/// mirrors of MikroTik), IPsec behind a NAT (RFC 3948).
const VXLAN: [u16; 2] = [4789, 8472];
const GENEVE: u16 = 6081;
const GTP_U: u16 = 2152;
const L2TP: u16 = 1701;
const TZSP: u16 = 37008;
const NAT_T: u16 = 4500;
const WIREGUARD: u16 = 51820;
/// Protocol numbers of IP.
const IP_IN_IP: u8 = 4;
const UDP: u8 = 17;
const IPV6: u8 = 41;
const GRE: u8 = 47;
const ESP: u8 = 50;
const L2TP_V3: u8 = 115;
const SCTP: u8 = 132;

/// What was seen and is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unread {
    /// SIP over SCTP (RFC 4168).
    SipOverSctp,
    /// IPsec, mostly encrypted.
    Esp,
    /// GTP-U with something else than IP.
    GtpU,
    /// GRE with something else than IP or Ethernet, encrypted or compressed PPP included.
    Gre,
    /// L2TP with something else than plain PPP.
    L2tp,
    /// WireGuard, always encrypted.
    Wireguard,
    /// A fragment of a tunnelled packet.
    TunnelFragment,
    /// More tunnels in each other than are followed.
    Nested,
}

impl Unread {
    /// The kind in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::SipOverSctp => "SIP over SCTP",
            Self::Esp => "IPsec (ESP)",
            Self::GtpU => "GTP-U with other content than IP",
            Self::Gre => "GRE with other content than plain IP (PPTP: encrypted or compressed)",
            Self::L2tp => "L2TP with other content than plain IP",
            Self::Wireguard => "WireGuard",
            Self::TunnelFragment => "a tunnel in fragments",
            Self::Nested => "a tunnel within three others",
        }
    }
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::inspect) enum Content<'a> {
    /// Another IP packet.
    Packet(&'a [u8]),
    Unread(Unread),
    /// No tunnel that is known, or its own control traffic.
    Plain,
}

/// The content of an IP packet.
pub(super) fn content(ip: &[u8]) -> Content<'_> {
    of_ip(ip).unwrap_or(Content::Plain)
}

/// The content of a UDP datagram's payload.
pub(in crate::inspect) fn of_udp(ports: [u16; 2], payload: &[u8]) -> Content<'_> {
    udp(ports, payload).unwrap_or(Content::Plain)
}

fn be16(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*data.get(at)?, *data.get(at + 1)?]))
}

/// The packet without any padding of its frame. A length of zero is left for the network card to fill in.
fn within(ip: &[u8], length: usize) -> &[u8] {
    ip.get(..length).filter(|_| length > 40).unwrap_or(ip)
}

fn of_ip(ip: &[u8]) -> Option<Content<'_>> {
    let (protocol, fragment, rest) = match ip.first()? >> 4 {
        4 => {
            let header = usize::from(ip[0] & 0x0f) * 4;
            if header < 20 {
                return None;
            }
            let rest = within(ip, usize::from(be16(ip, 2)?)).get(header..)?;
            (*ip.get(9)?, be16(ip, 6)? & 0x3fff != 0, rest)
        }
        6 => (*ip.get(6)?, false, within(ip, usize::from(be16(ip, 4)?) + 40).get(40..)?),
        _ => return None,
    };
    if fragment {
        // UDP is joined first, see `of_udp`.
        let tunnel = matches!(protocol, IP_IN_IP | IPV6 | GRE | L2TP_V3);
        return tunnel.then_some(Content::Unread(Unread::TunnelFragment));
    }
    match protocol {
        IP_IN_IP | IPV6 => packet(rest),
        GRE => gre(rest),
        ESP => Some(Content::Unread(Unread::Esp)),
        // Session zero is the control connection (RFC 3931 section 4.1.1.2).
        L2TP_V3 => (be16(rest, 0)? | be16(rest, 2)? != 0).then_some(Content::Unread(Unread::L2tp)),
        SCTP => sctp(rest),
        UDP => udp([be16(rest, 0)?, be16(rest, 2)?], rest.get(8..)?),
        _ => None,
    }
}

/// IP by its first nibble.
fn packet(data: &[u8]) -> Option<Content<'_>> {
    matches!(data.first()? >> 4, 4 | 6).then_some(Content::Packet(data))
}

fn udp(ports: [u16; 2], payload: &[u8]) -> Option<Content<'_>> {
    match ports[1] {
        // The flag marks a network id; all other bits are reserved.
        port if VXLAN.contains(&port) => {
            (payload.first()? & 0x08 != 0).then(|| ethernet(payload.get(8..)?)).flatten().and_then(packet)
        }
        GENEVE => geneve(payload),
        TZSP => tzsp(payload),
        // Both ends mostly use the port, but only the receiver must (3GPP TS 29.281 section 4.4.2.3). A NAT may change
        // the port of one end.
        _ if ports.contains(&GTP_U) => gtp(payload),
        _ if ports.contains(&L2TP) => l2tp(payload),
        // Four zero bytes mark IKE, a single byte a keep-alive (RFC 3948 section 2).
        _ if ports.contains(&NAT_T) => {
            (payload.len() > 16 && payload[..4] != [0; 4]).then_some(Content::Unread(Unread::Esp))
        }
        // Type 4 is data, padded to 16 bytes; that without content is a keep-alive.
        _ if ports.contains(&WIREGUARD) => {
            let data = payload.starts_with(&[4, 0, 0, 0]) && payload.len() > 32 && payload.len().is_multiple_of(16);
            data.then_some(Content::Unread(Unread::Wireguard))
        }
        _ => None,
    }
}

/// GTP-U (3GPP TS 29.281 section 5): version 1, of the kind that carries a user's packet.
fn gtp(data: &[u8]) -> Option<Content<'_>> {
    let flags = *data.first()?;
    // Other messages are echo requests, errors and the like. GTP' clears the bit of the protocol type.
    if flags & 0xf0 != 0x30 || *data.get(1)? != 0xff {
        return None;
    }
    let length = usize::from(be16(data, 2)?);
    let mut rest = data.get(8..)?;
    // The length may be cut short by the capture, but never leaves bytes over.
    if rest.len() > length {
        return None;
    }
    // With any of the three flags, all three fields are there.
    if flags & 0x07 != 0 {
        let mut next = *rest.get(3)?;
        rest = rest.get(4..)?;
        for _ in 0..MAX_EXTENSIONS {
            if flags & 0x04 == 0 || next == 0 {
                break;
            }
            let long = usize::from(*rest.first()?).checked_mul(4).filter(|l| *l > 0)?;
            next = *rest.get(long - 1)?;
            rest = rest.get(long..)?;
        }
        if flags & 0x04 != 0 && next != 0 {
            return Some(Content::Unread(Unread::GtpU));
        }
    }
    Some(packet(rest).unwrap_or(Content::Unread(Unread::GtpU)))
}

/// Geneve (RFC 8926 section 3.4): version 0, with an Ethernet frame or IP inside.
fn geneve(data: &[u8]) -> Option<Content<'_>> {
    let first = *data.first()?;
    let rest = data.get(8 + usize::from(first & 0x3f) * 4..)?;
    if first >> 6 != 0 {
        return None;
    }
    match data.get(2..4)? {
        [0x65, 0x58] => packet(ethernet(rest)?),
        [0x08, 0x00] | [0x86, 0xdd] => packet(rest),
        _ => None,
    }
}

/// TZSP: a frame of Ethernet behind a list of tags.
fn tzsp(data: &[u8]) -> Option<Content<'_>> {
    // Version 1, a packet (0: received, 1: to send), Ethernet.
    if !matches!(data.get(..4)?, [1, 0 | 1, 0, 1]) {
        return None;
    }
    let mut rest = data.get(4..)?;
    for _ in 0..MAX_PARTS {
        match *rest.first()? {
            0 => rest = rest.get(1..)?,
            1 => return packet(ethernet(rest.get(1..)?)?),
            _ => rest = rest.get(2 + usize::from(*rest.get(1)?)..)?,
        }
    }
    None
}

/// L2TP version 2 (RFC 2661 section 3.1), with PPP inside.
fn l2tp(data: &[u8]) -> Option<Content<'_>> {
    let flags = be16(data, 0)?;
    // Control messages have the first bit.
    if flags & 0x8000 != 0 {
        return None;
    }
    match flags & 0x000f {
        2 => {}
        // Version 3 over UDP.
        3 => return Some(Content::Unread(Unread::L2tp)),
        _ => return None,
    }
    let has = |bit: u16, bytes: usize| if flags & bit == 0 { 0 } else { bytes };
    let mut header = 6 + has(0x4000, 2) + has(0x0800, 4);
    if flags & 0x0200 != 0 {
        header += 2 + usize::from(be16(data, header)?);
    }
    of_ppp(data.get(header..)?, Unread::L2tp)
}

/// GRE: version 0 (RFC 2784, RFC 2890) with IP, Ethernet, MPLS or the mirrors of switches (ERSPAN) inside, version 1
/// with PPP (PPTP, RFC 2637 section 4.1).
fn gre(data: &[u8]) -> Option<Content<'_>> {
    let (flags, more) = (*data.first()?, *data.get(1)?);
    let kind: [u8; 2] = data.get(2..4)?.try_into().ok()?;
    let unread = Some(Content::Unread(Unread::Gre));
    match more & 0x07 {
        0 => {}
        1 if kind == [0x88, 0x0b] => {
            let has = |bit: bool| if bit { 4 } else { 0 };
            // Without a sequence number it only acknowledges.
            if flags & 0x10 == 0 {
                return None;
            }
            return of_ppp(data.get(12 + has(more & 0x80 != 0)..)?, Unread::Gre);
        }
        _ => return unread,
    }
    // Routing (RFC 1701) has a list of its own.
    if flags & 0x40 != 0 {
        return unread;
    }
    let optional = [0x80, 0x20, 0x10].iter().filter(|bit| flags & **bit != 0).count() * 4;
    let rest = data.get(4 + optional..)?;
    let inner = match kind {
        [0x08, 0x00] | [0x86, 0xdd] => Some(rest),
        [0x65, 0x58] => return packet(ethernet(rest)?),
        [0x88, 0x47 | 0x48] => labelled(rest),
        [0x88, 0x0b] => return of_ppp(rest, Unread::Gre),
        // ERSPAN II has 8 bytes, and none without a sequence number (type I); III has 12 and may have 8 more.
        [0x88, 0xbe] => return packet(ethernet(rest.get(if flags & 0x10 == 0 { 0 } else { 8 }..)?)?),
        [0x22, 0xeb] => return packet(ethernet(rest.get(if rest.get(11)? & 1 == 1 { 20 } else { 12 }..)?)?),
        // A keep-alive, or protocols of routers: spanning tree, IS-IS.
        [0, _] | [0x88, 0xcc] => return None,
        _ => None,
    };
    inner.and_then(packet).or(unread)
}

/// PPP in a tunnel. Its own control protocols (LCP, IPCP and the like, from 0x8000) carry nothing of a user.
fn of_ppp(data: &[u8], unread: Unread) -> Option<Content<'_>> {
    // Address and control, unless they are compressed away (RFC 1661 section 6.6).
    let data = data.strip_prefix(&[0xff, 0x03]).unwrap_or(data);
    if let Some(inner) = ppp(data) {
        return packet(inner);
    }
    // A protocol below 0x0100 may have one byte, which is odd then (RFC 1661 section 6.5).
    (*data.first()? < 0x80).then_some(Content::Unread(unread))
}

/// SCTP (RFC 9260 section 3): a packet is told if a message in it begins like SIP.
fn sctp(data: &[u8]) -> Option<Content<'_>> {
    let mut rest = data.get(12..)?;
    for _ in 0..MAX_PARTS {
        let (kind, length) = (*rest.first()?, usize::from(be16(rest, 2)?));
        // DATA, and I-DATA (RFC 8260 section 2.1) with a longer header.
        let header = match kind {
            0 => Some(16),
            64 => Some(20),
            _ => None,
        };
        if header.and_then(|h| rest.get(h..length.min(rest.len()))).is_some_and(is_sip) {
            return Some(Content::Unread(Unread::SipOverSctp));
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests;
