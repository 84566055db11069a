//! The sockets behind [`Conflicts`]: they receive the neighbours' claims.

use super::frame::{self, Claim};
use super::{Action, Conflicts};
use crate::os::bpf::Program;
use crate::os::packet::{Frames, PacketSocket};
use crate::os::{clock, interface, readiness};
use pnet_base::MacAddr;
use socket2::SockFilter;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// An ARP packet has 28 bytes; an advertisement with options and all headers rarely exceeds 100. A truncated packet has
/// no valid checksum.
const LONGEST: usize = 512;
/// Frames read in one go, so that a flood leaves time for other work.
const BATCH: usize = 64;
/// Receive buffer. A flood loses the frames beyond it, and a persistent claimant is heard again.
const BUFFER: usize = 64 * 1024;

/// Listens on one interface, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct ConflictWatch {
    interface: String,
    addresses: Vec<IpAddr>,
    conflicts: Conflicts,
    /// The index of the watched interface.
    index: u32,
    arp: Option<AsyncFd<PacketSocket>>,
    ipv6: Option<AsyncFd<PacketSocket>>,
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
        let links = interface::link_addresses()?;
        self.conflicts.set_own(links.into_iter().map(MacAddr::from).collect());
        let index = interface::index(&self.interface).unwrap_or(0);
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
            self.arp = Some(listen(index, Frames::Arp, claims_of(&v4))?);
        }
        if v4.len() < self.addresses.len() {
            self.ipv6 = Some(listen(index, Frames::Ipv6, advertisements())?);
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
    socket: Option<&AsyncFd<PacketSocket>>,
    claim: impl Fn(&[u8], Option<MacAddr>) -> Option<Claim>,
) -> io::Result<Vec<Claim>> {
    let Some(socket) = socket else { return std::future::pending().await };
    let mut buffer = [0; LONGEST];
    let mut claims = Vec::new();
    let mut ready = socket.readable().await?;
    for _ in 0..BATCH {
        match ready.try_io(|socket| socket.get_ref().receive(&mut buffer)) {
            Ok(Ok(got)) => claims.extend(claim(&buffer[..got.length], got.link.map(MacAddr::from))),
            Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(e)) => return Err(e),
            Err(_would_block) => break,
        }
    }
    Ok(claims)
}

fn listen(index: u32, frames: Frames, filter: Option<Vec<SockFilter>>) -> io::Result<AsyncFd<PacketSocket>> {
    let socket = PacketSocket::without_link_header()?;
    if let Some(filter) = filter {
        socket.attach_filter(&filter)?;
    }
    socket.set_buffer(BUFFER)?;
    socket.bind(index, frames)?;
    readiness::watch(socket, Interest::READABLE)
}

/// Passes ARP packets whose sender is one of `addresses`, so the ARP traffic of a large LAN does not wake the agent.
/// `None` if there are too many addresses for one program.
fn claims_of(addresses: &[Ipv4Addr]) -> Option<Vec<SockFilter>> {
    const SENDER: u32 = 14;
    let mut p = Program::default();
    let ours = p.label();
    p.word(SENDER);
    for address in addresses {
        p.if_equal(address.to_bits(), ours);
    }
    p.reject();
    p.here(ours);
    p.accept();
    p.assemble()
}

/// Passes neighbour advertisements without extension headers. RFC 6980 forbids fragmented ones.
fn advertisements() -> Option<Vec<SockFilter>> {
    const NEXT_HEADER: u32 = 6;
    const TYPE: u32 = 40;
    const ICMPV6: u32 = 58;
    const ADVERTISEMENT: u32 = 136;
    let mut p = Program::default();
    let other = p.label();
    p.byte(NEXT_HEADER);
    p.unless_equal(ICMPV6, other);
    p.byte(TYPE);
    p.unless_equal(ADVERTISEMENT, other);
    p.accept();
    p.here(other);
    p.reject();
    p.assemble()
}
