//! Finds the IP packet in a frame of any link type used in telephony captures, behind tags, labels and tunnels. Pure.

pub(super) mod tunnel;

use crate::wire::frame::{self, Link};
use std::borrow::Cow;
use tunnel::{Content, Unread};

/// Most nested tunnels followed: mirrored traffic of an overlay has two.
pub(super) const MAX_TUNNELS: usize = 3;
/// Most MPLS labels skipped per packet.
const MAX_LABELS: usize = 8;
const PPPOE: [u8; 2] = [0x88, 0x64];
const MPLS: [[u8; 2]; 2] = [[0x88, 0x47], [0x88, 0x48]];
const VLAN: [[u8; 2]; 3] = [[0x81, 0x00], [0x88, 0xa8], [0x91, 0x00]];
const IP: [[u8; 2]; 2] = [[0x08, 0x00], [0x86, 0xdd]];

/// Content of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inside<'a> {
    /// An IP packet, including any padding behind it.
    Ip(&'a [u8]),
    /// Something else: ARP, spanning tree, a part of a Wi-Fi exchange.
    Else,
    /// Unknown link type.
    Unsupported,
}

/// The IP packet in a frame of this link type.
pub(super) fn inside(link: u32, data: &[u8]) -> Inside<'_> {
    let found = match link {
        0 | 108 => frame::ip_of(Link::Null, data),
        1 => ethernet(data),
        // PPP, with or without HDLC framing.
        9 => data.strip_prefix(&[0xff, 0x03]).or(Some(data)).and_then(ppp),
        50 => data.get(2..).filter(|_| data.starts_with(&[0xff, 0x03])).or(Some(data)).and_then(ppp),
        51 => pppoe(data),
        // All these numbers mean raw IP, on different systems.
        12 | 14 | 101 | 228 | 229 => Some(data),
        // Cisco HDLC.
        104 => data.get(2..).and_then(tagged),
        105 => wifi(data),
        113 => data.get(14..).and_then(tagged),
        // Radiotap gives its own length.
        127 => data.get(2..4).and_then(|l| data.get(usize::from(u16::from_le_bytes([l[0], l[1]]))..)).and_then(wifi),
        276 => data.first_chunk::<2>().and_then(|kind| behind(*kind, data.get(20..)?)),
        _ => return Inside::Unsupported,
    };
    match found.filter(|ip| matches!(ip.first().map(|b| b >> 4), Some(4 | 6))) {
        Some(ip) => Inside::Ip(ip),
        None => Inside::Else,
    }
}

fn ethernet(data: &[u8]) -> Option<&[u8]> {
    tagged(data.get(12..)?)
}

/// The packet behind an ethertype.
fn tagged(data: &[u8]) -> Option<&[u8]> {
    behind(*data.first_chunk::<2>()?, data.get(2..)?)
}

fn behind(mut kind: [u8; 2], mut rest: &[u8]) -> Option<&[u8]> {
    // QinQ has two tags; phone traffic never has more.
    for _ in 0..4 {
        if !VLAN.contains(&kind) {
            break;
        }
        kind = *rest.get(2..)?.first_chunk()?;
        rest = rest.get(4..)?;
    }
    if IP.contains(&kind) {
        Some(rest)
    } else if kind == PPPOE {
        pppoe(rest)
    } else if MPLS.contains(&kind) {
        labelled(rest)
    } else {
        None
    }
}

fn pppoe(data: &[u8]) -> Option<&[u8]> {
    ppp(data.get(6..)?)
}

fn ppp(data: &[u8]) -> Option<&[u8]> {
    match data {
        [0x00, 0x21 | 0x57, rest @ ..] | [0x21 | 0x57, rest @ ..] => Some(rest),
        _ => None,
    }
}

/// Behind the last label, the first nibble tells IPv4 from IPv6 (RFC 4928 section 3). Ethernet is possible too.
fn labelled(mut data: &[u8]) -> Option<&[u8]> {
    for _ in 0..MAX_LABELS {
        let (label, rest) = data.split_first_chunk::<4>()?;
        data = rest;
        if label[2] & 1 == 1 {
            return match data.first()? >> 4 {
                4 | 6 => Some(data),
                // The control word of a pseudowire, then a frame.
                0 => ethernet(data.get(4..)?),
                _ => None,
            };
        }
    }
    None
}

/// An unencrypted data frame of 802.11: its header, then LLC and SNAP.
fn wifi(data: &[u8]) -> Option<&[u8]> {
    let (control, flags) = (*data.first()?, *data.get(1)?);
    if control & 0x0c != 0x08 || control & 0x40 != 0 || flags & 0x40 != 0 {
        return None;
    }
    let addresses = if flags & 0x03 == 0x03 { 30 } else { 24 };
    let qos = if control & 0x80 == 0 { 0 } else { 2 };
    let order = if qos > 0 && flags & 0x80 != 0 { 4 } else { 0 };
    let llc = data.get(addresses + qos + order..)?;
    llc.strip_prefix(&[0xaa, 0xaa, 0x03, 0, 0, 0]).and_then(tagged)
}

/// The innermost IP packet, and what it carries that is not read.
pub(super) fn innermost(mut ip: &[u8]) -> (&[u8], Option<Unread>) {
    for _ in 0..MAX_TUNNELS {
        match tunnel::content(ip) {
            Content::Packet(inner) => ip = inner,
            Content::Unread(what) => return (ip, Some(what)),
            Content::Plain => return (ip, None),
        }
    }
    let unread = match tunnel::content(ip) {
        Content::Packet(_) => Some(Unread::Nested),
        Content::Unread(what) => Some(what),
        Content::Plain => None,
    };
    (ip, unread)
}

/// An IP packet whose lengths match the bytes at hand. Bytes that the capture cut off count as never sent. A length of
/// zero (left for the network card to fill in) means all the bytes there are.
pub(super) fn fitted(ip: &[u8], cut: bool) -> Cow<'_, [u8]> {
    let there = ip.len().min(usize::from(u16::MAX));
    let be = |at: usize| ip.get(at..at + 2).map_or(0, |b| usize::from(u16::from_be_bytes([b[0], b[1]])));
    let (header, claimed, at) = match ip.first().map(|b| b >> 4) {
        Some(4) => (usize::from(ip[0] & 0x0f) * 4, be(2), 2),
        Some(6) => (40, be(4) + 40, 4),
        _ => return Cow::Borrowed(ip),
    };
    let unset = claimed == 0 || (at == 4 && claimed == 40);
    if there < header || !(unset || (cut && claimed > there)) {
        return Cow::Borrowed(ip);
    }
    let mut copy = ip[..there].to_vec();
    let put = |copy: &mut Vec<u8>, at: usize, value: usize| {
        if let (Some(place), Ok(value)) = (copy.get_mut(at..at + 2), u16::try_from(value)) {
            place.copy_from_slice(&value.to_be_bytes());
        }
    };
    put(&mut copy, at, if at == 2 { there } else { there - 40 });
    let protocol = ip.get(if at == 2 { 9 } else { 6 });
    if protocol == Some(&17) && there >= header + 8 && be(header + 4) > there - header {
        put(&mut copy, header + 4, there - header);
    }
    Cow::Owned(copy)
}

#[cfg(test)]
mod tests;
