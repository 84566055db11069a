//! The sockets behind [`Conflicts`]: they receive the neighbours' claims.

use super::frame::{self, Claim};
use super::{Action, Conflicts};
use crate::os::clock;
use crate::os::{packet, readiness};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{LinkAddr, recvfrom};
use pnet_base::MacAddr;
use socket2::{Domain, SockFilter, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use tokio::io::unix::AsyncFd;

/// An ARP packet has 28 bytes; an advertisement with options and all headers rarely exceeds 100. A truncated packet has
/// no valid checksum.
const LONGEST: usize = 512;
/// Frames read in one go, so that a flood leaves time for other work.
const BATCH: usize = 64;
/// Receive buffer. A flood loses the frames beyond it, and a persistent claimant is heard again.
const BUFFER: usize = 64 * 1024;
/// Addresses that fit into one filter: a BPF jump reaches 255 instructions.
const FILTERED: usize = 200;

/// Listens on one interface, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct ConflictWatch {
    interface: String,
    addresses: Vec<IpAddr>,
    conflicts: Conflicts,
    /// The index of the watched interface.
    index: u32,
    arp: Option<AsyncFd<OwnedFd>>,
    ipv6: Option<AsyncFd<OwnedFd>>,
}

impl ConflictWatch {
    /// Opens the sockets. Needs a tokio runtime. [`ConflictWatch::look_again`] retries a missing interface.
    ///
    /// # Errors
    /// The system cannot provide a packet socket.
    pub fn open(interface: &str, addresses: &[IpAddr]) -> io::Result<Self> {
        let mut it = Self {
            interface: interface.to_owned(),
            addresses: addresses.to_vec(),
            conflicts: Conflicts::new(addresses),
            index: 0,
            arp: None,
            ipv6: None,
        };
        it.look_again()?;
        Ok(it)
    }

    /// The addresses are here and announced.
    pub fn taken(&mut self) {
        self.conflicts.taken(clock::now());
    }

    /// This node dropped the addresses.
    pub fn dropped(&mut self) {
        self.conflicts.dropped();
    }

    /// The other hosts that claim our addresses.
    pub fn others(&self) -> Vec<Claim> {
        self.conflicts.others().collect()
    }

    /// Refreshes this host's hardware addresses, and listens on the interface that has the name now.
    ///
    /// # Errors
    /// As [`ConflictWatch::open`]. The watch then hears nothing until the next call.
    pub fn look_again(&mut self) -> io::Result<()> {
        let links = getifaddrs()?.filter_map(|i| i.address?.as_link_addr().and_then(LinkAddr::addr));
        self.conflicts.set_own(links.map(MacAddr::from).collect());
        let index = nix::net::if_::if_nametoindex(self.interface.as_str()).unwrap_or(0);
        if index == self.index && index != 0 {
            return Ok(());
        }
        (self.index, self.arp, self.ipv6) = (0, None, None);
        if index == 0 {
            return Ok(());
        }
        let v4: Vec<Ipv4Addr> =
            self.addresses.iter().filter_map(|a| if let IpAddr::V4(ip) = a { Some(*ip) } else { None }).collect();
        if !v4.is_empty() {
            self.arp = Some(listen(index, libc::ETH_P_ARP, &claims_of(&v4))?);
        }
        if v4.len() < self.addresses.len() {
            self.ipv6 = Some(listen(index, libc::ETH_P_IPV6, &advertisements())?);
        }
        self.index = index;
        Ok(())
    }

    /// The next action or event. Cancel safe.
    pub async fn next(&mut self) -> Action {
        loop {
            if let Some(action) = self.conflicts.poll_action() {
                return action;
            }
            let deadline = clock::tokio_at(self.conflicts.next_deadline());
            let claims = tokio::select! {
                claims = read(self.arp.as_ref(), |bytes, _| frame::arp(bytes)) => claims,
                claims = read(self.ipv6.as_ref(), |bytes, from| frame::ipv6(bytes, from?)) => claims,
                () = tokio::time::sleep_until(deadline) => Ok(Vec::new()),
            };
            let now = clock::now();
            match claims {
                Ok(claims) => claims.into_iter().for_each(|claim| self.conflicts.handle_claim(claim, now)),
                // The interface is gone or down. The next probe and a link-up event each trigger another lookup.
                Err(_) => (self.index, self.arp, self.ipv6) = (0, None, None),
            }
            self.conflicts.handle_timeout(now);
        }
    }
}

async fn read(
    socket: Option<&AsyncFd<OwnedFd>>,
    claim: impl Fn(&[u8], Option<MacAddr>) -> Option<Claim>,
) -> io::Result<Vec<Claim>> {
    let Some(socket) = socket else { return std::future::pending().await };
    let mut buffer = [0; LONGEST];
    let mut claims = Vec::new();
    let mut ready = socket.readable().await?;
    for _ in 0..BATCH {
        match ready.try_io(|fd| Ok(recvfrom::<LinkAddr>(fd.as_raw_fd(), &mut buffer)?)) {
            Ok(Ok((n, from))) => claims.extend(claim(&buffer[..n], from.and_then(|a| a.addr()).map(MacAddr::from))),
            Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(e)) => return Err(e),
            Err(_would_block) => break,
        }
    }
    Ok(claims)
}

fn listen(index: u32, protocol: libc::c_int, filter: &[SockFilter]) -> io::Result<AsyncFd<OwnedFd>> {
    // Protocol 0 keeps the socket silent until the filter is in place. With DGRAM the packet begins behind the link
    // header.
    let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking().cloexec(), None)?;
    if !filter.is_empty() {
        socket.attach_filter(filter)?;
    }
    socket.set_recv_buffer_size(BUFFER)?;
    socket.bind(&packet::listen_address(index, protocol)?)?;
    readiness::readable(socket.into())
}

/// Passes ARP packets whose sender is one of `addresses`, so the ARP traffic of a large LAN does not wake the agent.
fn claims_of(addresses: &[Ipv4Addr]) -> Vec<SockFilter> {
    if addresses.len() > FILTERED {
        return Vec::new();
    }
    const SENDER: u32 = 14;
    let mut all = vec![load(libc::BPF_W, SENDER)];
    for (i, address) in addresses.iter().enumerate() {
        // Jumps to the last instruction but one. Its distance is the number of remaining addresses plus one.
        let to_come = u8::try_from(addresses.len() - i).unwrap_or(u8::MAX);
        all.push(equals(u32::from(*address), to_come, 0));
    }
    all.extend([result(0), result(u32::MAX)]);
    all
}

/// Passes neighbour advertisements without extension headers. RFC 6980 forbids fragmented ones.
fn advertisements() -> Vec<SockFilter> {
    const NEXT_HEADER: u32 = 6;
    const TYPE: u32 = 40;
    const ICMPV6: u32 = 58;
    const ADVERTISEMENT: u32 = 136;
    vec![
        load(libc::BPF_B, NEXT_HEADER),
        equals(ICMPV6, 0, 3),
        load(libc::BPF_B, TYPE),
        equals(ADVERTISEMENT, 0, 1),
        result(u32::MAX),
        result(0),
    ]
}

const fn load(size: u32, at: u32) -> SockFilter {
    SockFilter::new((libc::BPF_LD | libc::BPF_ABS | size) as u16, 0, 0, at)
}

const fn equals(value: u32, yes: u8, no: u8) -> SockFilter {
    SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, yes, no, value)
}

const fn result(bytes: u32) -> SockFilter {
    SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, bytes)
}
