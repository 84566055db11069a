//! Sends UDP datagrams from an address and port that another process owns. The server keeps its socket, and phones
//! behind NAT accept packets only from that address and port.

use crate::os::interface;
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The largest payload of a UDP datagram over IPv4 without options (65,535 - 20 - 8). IPv6 could carry 20 bytes more.
pub const MAX_PAYLOAD: usize = 65_507;
/// The fallback size for a route with a smaller MTU than the interface. Every IPv6 link carries this much (RFC 8200
/// section 5), and so does every IPv4 path of today.
const SAFE_MTU: usize = 1280;
const UDP_HEADER: usize = 8;
const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;
const FRAGMENT_HEADER: usize = 8;
/// The usual TTL of a host's own packets (RFC 1700's default).
const TTL: u8 = 64;
const UDP: u8 = 17;
/// IPv6 next header of a fragment header.
const FRAGMENT: u8 = 44;

/// Why a datagram was not sent.
#[derive(Debug, thiserror::Error)]
pub enum RawUdpError {
    /// The system refused the raw socket.
    #[error("cannot open a raw socket: {source}{}", if source.kind() == io::ErrorKind::PermissionDenied {
        "; give the agent CAP_NET_RAW" } else { "" })]
    Socket {
        /// The system's error.
        source: io::Error,
    },
    /// Source and destination have different families.
    #[error("cannot send from {from} to {to}: one is IPv4 and the other IPv6")]
    Families {
        /// The source.
        from: SocketAddr,
        /// The destination.
        to: SocketAddr,
    },
    /// The payload exceeds a datagram.
    #[error("a datagram of {length} bytes is too long; the limit is {MAX_PAYLOAD} bytes")]
    TooLong {
        /// Bytes of payload.
        length: usize,
    },
    /// The system refused the packet.
    #[error("cannot send from {from} to {to}: {source}")]
    Send {
        /// The source.
        from: SocketAddr,
        /// The destination.
        to: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
}

/// Raw sockets of both families, in the network namespace of the thread that opened them.
#[derive(Debug)]
pub struct RawUdp {
    interface: String,
    v4: Socket,
    // `None` on a host without IPv6, which has no IPv6 address to send from either.
    v6: Option<Socket>,
}

impl RawUdp {
    /// Opens the sockets. The MTU of `interface` decides when datagrams are fragmented.
    ///
    /// # Errors
    /// The privilege is missing.
    pub fn open(interface: &str) -> Result<Self, RawUdpError> {
        // IPPROTO_RAW means "header included" for both families, and such sockets never receive.
        let raw = |domain| Socket::new(domain, Type::RAW.nonblocking(), Some(Protocol::from(SockProtocol::Raw as i32)));
        let v4 = raw(Domain::IPV4).map_err(|source| RawUdpError::Socket { source })?;
        let v6 = match raw(Domain::IPV6) {
            Ok(socket) => Some(socket),
            Err(e) if e.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32) => None,
            Err(source) => return Err(RawUdpError::Socket { source }),
        };
        Ok(Self { interface: interface.to_owned(), v4, v6 })
    }

    /// Sends one datagram without waiting. A full queue is an error.
    ///
    /// # Errors
    /// As in [`RawUdpError`].
    pub fn send(&self, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Result<(), RawUdpError> {
        if payload.len() > MAX_PAYLOAD {
            return Err(RawUdpError::TooLong { length: payload.len() });
        }
        let failed = |source| RawUdpError::Send { from, to, source };
        let mtu = interface::mtu(&self.v4, &self.interface).unwrap_or(SAFE_MTU).max(SAFE_MTU);
        match self.send_in(from, to, payload, mtu) {
            // The route's MTU is smaller than the interface's (a tunnel, or a learnt path MTU).
            Err(Some(e)) if e.raw_os_error() == Some(Errno::EMSGSIZE as i32) && mtu > SAFE_MTU => self
                .send_in(from, to, payload, SAFE_MTU)
                .map_err(|e| e.map_or(RawUdpError::Families { from, to }, failed)),
            other => other.map_err(|e| e.map_or(RawUdpError::Families { from, to }, failed)),
        }
    }

    /// `Err(None)` means that the families differ.
    fn send_in(&self, from: SocketAddr, to: SocketAddr, payload: &[u8], mtu: usize) -> Result<(), Option<io::Error>> {
        let (socket, packets) = match (from.ip(), to.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                (&self.v4, v4_packets(src, dst, &datagram(from, to, payload), mtu, random()))
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let none = || Some(Errno::EAFNOSUPPORT.into());
                (self.v6.as_ref().ok_or_else(none)?, v6_packets(src, dst, &datagram(from, to, payload), mtu, random()))
            }
            _ => return Err(None),
        };
        // A raw IPv6 socket reads the port as a protocol number, so the port must be zero. The scope stays.
        let mut target = to;
        target.set_port(0);
        let target = SockAddr::from(target);
        for packet in packets {
            socket.send_to(&packet, &target).map_err(Some)?;
        }
        Ok(())
    }
}

/// An identification for the fragments of one datagram. It is random, so that it does not repeat a recent value of the
/// kernel or a predecessor (RFC 7739). It is never zero, because the kernel replaces zero with its own number.
fn random() -> u32 {
    getrandom::u32().map_or(1, |n| n | 0x0001_0001)
}

/// The datagram with its checksum.
fn datagram(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = UDP_HEADER + payload.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(from.port().to_be_bytes());
    bytes.extend(to.port().to_be_bytes());
    bytes.extend((length as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    // The pseudo header of both families sums to the same words, plus length and protocol (RFC 768, RFC 8200 section
    // 8.1).
    let mut sum = length as u64 + u64::from(UDP);
    for ip in [from.ip(), to.ip()] {
        sum += match ip {
            IpAddr::V4(ip) => words(&ip.octets()),
            IpAddr::V6(ip) => words(&ip.octets()),
        };
    }
    // Zero would mean "no checksum".
    let check = match fold(sum + words(&bytes)) {
        0 => 0xffff,
        other => other,
    };
    if let Some(slot) = bytes.get_mut(6..8) {
        slot.copy_from_slice(&check.to_be_bytes());
    }
    bytes
}

/// The IPv4 packets for `datagram`. The kernel fills in the header checksum and the length (raw(7)).
fn v4_packets(src: Ipv4Addr, dst: Ipv4Addr, datagram: &[u8], mtu: usize, id: u32) -> Vec<Vec<u8>> {
    // Offsets count in units of 8 bytes, so every fragment but the last is a multiple of 8 bytes.
    let room = if datagram.len() + V4_HEADER <= mtu { datagram.len() } else { (mtu - V4_HEADER) & !7 };
    let count = datagram.len().div_ceil(room);
    let packet = |(index, part): (usize, &[u8])| {
        let more = if index + 1 < count { 0x2000 } else { 0 };
        let mut p = vec![0x45, 0];
        p.extend(((V4_HEADER + part.len()) as u16).to_be_bytes());
        p.extend((id as u16).to_be_bytes());
        p.extend(((index * room / 8) as u16 | more).to_be_bytes());
        p.extend([TTL, UDP, 0, 0]);
        p.extend(src.octets());
        p.extend(dst.octets());
        p.extend(part);
        p
    };
    datagram.chunks(room).enumerate().map(packet).collect()
}

/// The IPv6 packets for `datagram`, with fragment headers (RFC 8200 section 4.5) only where needed.
fn v6_packets(src: Ipv6Addr, dst: Ipv6Addr, datagram: &[u8], mtu: usize, id: u32) -> Vec<Vec<u8>> {
    let header = |next: u8, length: usize| {
        let mut p = vec![0x60, 0, 0, 0];
        p.extend((length as u16).to_be_bytes());
        p.extend([next, TTL]);
        p.extend(src.octets());
        p.extend(dst.octets());
        p
    };
    if datagram.len() + V6_HEADER <= mtu {
        let mut p = header(UDP, datagram.len());
        p.extend(datagram);
        return vec![p];
    }
    let room = (mtu - V6_HEADER - FRAGMENT_HEADER) & !7;
    let count = datagram.len().div_ceil(room);
    let packet = |(index, part): (usize, &[u8])| {
        let mut p = header(FRAGMENT, FRAGMENT_HEADER + part.len());
        p.extend([UDP, 0]);
        p.extend(((index * room) as u16 | u16::from(index + 1 < count)).to_be_bytes());
        p.extend(id.to_be_bytes());
        p.extend(part);
        p
    };
    datagram.chunks(room).enumerate().map(packet).collect()
}

fn words(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0))).sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
