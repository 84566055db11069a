//! Frames that a host sends in the name of another host.

use super::lan::Host;
use anyhow::{Context as _, Result};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;

/// A UDP datagram as an Ethernet frame to `to`, with any source address.
pub fn frame(to: [u8; 6], src: SocketAddr, dst: SocketAddr, payload: &str) -> Vec<u8> {
    let ip = |a: SocketAddr| match a.ip() {
        std::net::IpAddr::V4(ip) => ip.octets(),
        std::net::IpAddr::V6(_) => [0; 4],
    };
    let length = |n: usize| u16::try_from(n + payload.len()).unwrap_or(0).to_be_bytes();
    let mut head = [&[0x45, 0][..], &length(28), &[0, 7, 0x40, 0, 64, 17, 0, 0], &ip(src), &ip(dst)].concat();
    let sum: u32 = head.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16));
    head[10..12].copy_from_slice(&sum.to_be_bytes()[2..]);
    let udp =
        [&src.port().to_be_bytes()[..], &dst.port().to_be_bytes(), &length(8), &[0, 0], payload.as_bytes()].concat();
    [&to[..], &[2, 0, 0, 0, 0, 0x66, 8, 0], &head, &udp].concat()
}

/// Puts whole Ethernet frames on the wire of a host.
pub fn send(host: &Host, frames: Vec<Vec<u8>>) -> Result<()> {
    host.enter(move || {
        let own = nix::ifaddrs::getifaddrs()?
            .find_map(|i| Some(*i.address.filter(|_| i.interface_name == "eth0")?.as_link_addr()?));
        let link = own.context("the sending host has no link address")?;
        let socket = socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::RAW, None)?;
        for frame in frames {
            nix::sys::socket::sendto(socket.as_raw_fd(), &frame, &link, nix::sys::socket::MsgFlags::empty())?;
        }
        Ok(())
    })
}
