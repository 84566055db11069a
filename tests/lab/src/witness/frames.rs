//! The witness's questions as Ethernet frames, and the frames that it receives.
//!
//! Each question goes to the broadcast hardware address: every host that believes it has the VIP gets the question at
//! the same moment, and must answer. A neighbour cache, which would hide a second host, plays no part.

use std::net::{Ipv4Addr, Ipv6Addr};

const BROADCAST: [u8; 6] = [0xff; 6];
/// Mark of the witness's echo requests.
const ID: u16 = 0x6b77;
/// First two bytes of the sender's hardware address in an ARP question. The question's number follows. A host answers
/// to this address, so the number matches the answer to the question. (Locally administered, unicast.)
const MARK: [u8; 2] = [0x02, 0x6b];

/// Kind of a question or of a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// "Who has the IPv4 address?"
    Arp,
    /// An echo of the IPv4 address.
    Echo4,
    /// An echo of the IPv6 address.
    Echo6,
    /// A frame that speaks for the VIP without a question: an announcement.
    Unasked,
}

/// The witness's own addresses, and the addresses that it asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parties {
    pub(super) mac: [u8; 6],
    pub(super) ip4: Ipv4Addr,
    pub(super) ip6: Ipv6Addr,
    pub(super) vip4: Ipv4Addr,
    pub(super) vip6: Ipv6Addr,
}

impl Parties {
    /// The three frames of question `n`.
    pub(super) fn ask(&self, n: u32) -> [Vec<u8>; 3] {
        [self.arp(n), self.echo4(n), self.echo6(n)]
    }

    fn ethernet(&self, kind: u16) -> Vec<u8> {
        let mut f = Vec::with_capacity(70);
        f.extend(BROADCAST);
        f.extend(self.mac);
        f.extend(kind.to_be_bytes());
        f
    }

    /// An ARP probe (RFC 5227): without a sender's IP address, so that no host learns the made-up hardware address.
    fn arp(&self, n: u32) -> Vec<u8> {
        let mut f = self.ethernet(0x0806);
        f.extend([0, 1, 8, 0, 6, 4, 0, 1]);
        f.extend(MARK);
        f.extend(n.to_be_bytes());
        f.extend([0; 4 + 6]);
        f.extend(self.vip4.octets());
        f
    }

    fn echo4(&self, n: u32) -> Vec<u8> {
        let mut header = vec![0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 1, 0, 0];
        header.extend(self.ip4.octets());
        header.extend(self.vip4.octets());
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        let mut echo = [&[8, 0, 0, 0][..], &ID.to_be_bytes(), &[0, 0], &n.to_be_bytes()].concat();
        let sum = checksum(&echo);
        echo[2..4].copy_from_slice(&sum.to_be_bytes());
        [self.ethernet(0x0800), header, echo].concat()
    }

    fn echo6(&self, n: u32) -> Vec<u8> {
        let mut header = vec![0x60, 0, 0, 0, 0, 12, 58, 64];
        header.extend(self.ip6.octets());
        header.extend(self.vip6.octets());
        let mut echo = [&[128, 0, 0, 0][..], &ID.to_be_bytes(), &[0, 0], &n.to_be_bytes()].concat();
        let sum = checksum(&[&header[8..], &[0, 0, 0, 12, 0, 0, 0, 58], &echo[..]].concat());
        echo[2..4].copy_from_slice(&sum.to_be_bytes());
        [self.ethernet(0x86dd), header, echo].concat()
    }

    /// What a frame says about a VIP: the sender, the kind, and the question that it answers.
    pub(super) fn hear(&self, f: &[u8]) -> Option<([u8; 6], Kind, Option<u32>)> {
        let from: [u8; 6] = f.get(6..12)?.try_into().ok()?;
        if from == self.mac {
            return None;
        }
        let number = |at: usize| f.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
        match f.get(12..14)? {
            // The sender's protocol address is at 28, the target's hardware address at 32.
            [8, 6] if f.get(28..32)? == self.vip4.octets() => {
                let answer = f.get(20..22)? == [0, 2] && f.get(32..34)? == MARK;
                Some(if answer { (from, Kind::Arp, number(34)) } else { (from, Kind::Unasked, None) })
            }
            [8, 0] if f.get(26..30)? == self.vip4.octets() => {
                let answer = f.get(23) == Some(&1) && f.get(34) == Some(&0) && f.get(38..40)? == ID.to_be_bytes();
                Some(if answer { (from, Kind::Echo4, number(42)) } else { (from, Kind::Unasked, None) })
            }
            [0x86, 0xdd] if f.get(22..38)? == self.vip6.octets() => {
                let answer = f.get(20) == Some(&58) && f.get(54) == Some(&129) && f.get(58..60)? == ID.to_be_bytes();
                Some(if answer { (from, Kind::Echo6, number(62)) } else { (from, Kind::Unasked, None) })
            }
            _ => None,
        }
    }
}

fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(0)
}
