//! Announces the addresses on the LAN with raw frames: gratuitous ARP (RFC 5227 section 3, RFC 2002 section 4.6) and
//! unsolicited neighbour advertisements (RFC 4861 section 7.2.6).

use super::sysctl;
use crate::os::interface;
use crate::os::packet::PacketSocket;
use crate::sync::Locked as _;
use nix::errno::Errno;
use pnet_base::MacAddr;
use pnet_packet::Packet as _;
use pnet_packet::arp::{ArpHardwareTypes, ArpOperation, ArpOperations, MutableArpPacket};
use pnet_packet::ethernet::{EtherType, EtherTypes, EthernetPacket, MutableEthernetPacket};
use pnet_packet::icmpv6::ndp::{
    MutableNeighborAdvertPacket, MutableNeighborSolicitPacket, NdpOption, NdpOptionTypes, NeighborAdvertFlags,
};
use pnet_packet::icmpv6::{Icmpv6Code, Icmpv6Packet, Icmpv6Types, checksum};
use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::ipv6::MutableIpv6Packet;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Spacing of the announcements in a burst: wide enough that one full queue on the way does not lose them all.
const BURST_SPACING: Duration = Duration::from_millis(10);
const ETHERNET: usize = 14;
const ARP: usize = 28;
const IPV6: usize = 40;
/// An advertisement with one option: the target's link-layer address.
const ADVERTISEMENT: usize = 24 + 8;
/// A solicitation without options: an unspecified source carries no link-layer address (RFC 4861 section 4.3).
const SOLICITATION: usize = 24;
/// ff02::1 as an Ethernet address (RFC 2464 section 7).
const ALL_NODES_MAC: MacAddr = MacAddr(0x33, 0x33, 0, 0, 0, 1);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Why announcing fails on this host or interface.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// The system refused the packet socket.
    #[error("cannot open a packet socket for announcements on {interface}: {source}{}", need_raw(source))]
    Socket {
        /// The interface.
        interface: String,
        /// The system's error.
        source: io::Error,
    },
    /// The interface does not exist or has no Ethernet address.
    #[error("cannot announce addresses on {interface}: the interface does not exist or has no Ethernet address")]
    NoEthernet {
        /// The interface.
        interface: String,
    },
}

fn need_raw(e: &io::Error) -> &'static str {
    if e.kind() == io::ErrorKind::PermissionDenied { "; give the agent CAP_NET_RAW" } else { "" }
}

/// The result of one round of announcements.
#[derive(Debug, Default)]
pub struct Announced {
    /// Frames sent.
    pub sent: usize,
    /// The system's errors for the frames that were not sent.
    pub errors: Vec<io::Error>,
}

/// The schedule of repeated announcements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Rounds in the burst, including the immediate one.
    pub burst: u32,
    /// Time between the refreshes after the burst.
    pub interval: Duration,
    /// Number of refreshes.
    pub refreshes: u32,
}

/// Announces the addresses of one instance on one interface.
#[derive(Debug)]
pub struct Announcer {
    interface: String,
    addresses: Vec<IpAddr>,
    socket: PacketSocket,
    sent: AtomicU64,
    failed: AtomicU64,
}

impl Announcer {
    /// Opens the socket early, so that a later announcement costs only the sending. The socket belongs to the thread's
    /// network namespace.
    ///
    /// # Errors
    /// No privilege, or no such interface.
    pub fn open(interface: &str, addresses: &[IpAddr]) -> Result<Self, AnnounceError> {
        // It is never bound, so it only sends.
        let socket = PacketSocket::with_link_header()
            .map_err(|source| AnnounceError::Socket { interface: interface.to_owned(), source })?;
        let it = Self {
            interface: interface.to_owned(),
            addresses: addresses.to_vec(),
            socket,
            sent: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        };
        match it.link() {
            Some(_) => Ok(it),
            None => Err(AnnounceError::NoEthernet { interface: it.interface }),
        }
    }

    /// Sends one round: an ARP request and an ARP reply for each IPv4 address, an advertisement for each IPv6 address.
    /// Returns once the interface has the frames, without waiting: a full queue shows up as an error in the result.
    pub fn announce_now(&self) -> Announced {
        let mut done = Announced::default();
        let Some((index, mac)) = self.link() else {
            done.errors.push(io::Error::from(Errno::ENODEV));
            self.failed.fetch_add(1, Ordering::Relaxed);
            return done;
        };
        let router = sysctl::forwards_v6(&self.interface);
        for address in &self.addresses {
            let frames: Vec<Option<Vec<u8>>> = match *address {
                // Some systems update their caches from requests only, some from replies only.
                IpAddr::V4(ip) => vec![arp(ArpOperations::Request, ip, mac), arp(ArpOperations::Reply, ip, mac)],
                IpAddr::V6(ip) => vec![advertisement(ip, mac, router)],
            };
            for frame in frames.into_iter().flatten() {
                match self.send(index, &frame) {
                    Ok(()) => done.sent += 1,
                    Err(e) => done.errors.push(e),
                }
            }
        }
        self.sent.fetch_add(done.sent as u64, Ordering::Relaxed);
        self.failed.fetch_add(done.errors.len() as u64, Ordering::Relaxed);
        done
    }

    /// Announces one address with a single frame, in answer to another host that claims it (RFC 5227 section 2.4).
    ///
    /// # Errors
    /// The frame was not sent.
    pub fn defend(&self, address: IpAddr) -> io::Result<()> {
        let (index, mac) = self.link().ok_or_else(|| io::Error::from(Errno::ENODEV))?;
        let frame = match address {
            IpAddr::V4(ip) => arp(ArpOperations::Request, ip, mac),
            IpAddr::V6(ip) => advertisement(ip, mac, sysctl::forwards_v6(&self.interface)),
        };
        frame.map_or(Ok(()), |frame| self.send(index, &frame))
    }

    /// Probes an address. No neighbour updates its cache from a probe (RFC 5227 section 2.1.1, RFC 4862 section 5.4.2).
    ///
    /// # Errors
    /// The frame was not sent.
    pub fn probe(&self, address: IpAddr) -> io::Result<()> {
        let (index, mac) = self.link().ok_or_else(|| io::Error::from(Errno::ENODEV))?;
        let frame = match address {
            IpAddr::V4(ip) => arp_probe(ip, mac),
            IpAddr::V6(ip) => solicitation(ip, mac),
        };
        frame.map_or(Ok(()), |frame| self.send(index, &frame))
    }

    /// Sends a whole frame to the destination in its header.
    fn send(&self, index: u32, frame: &[u8]) -> io::Result<()> {
        let to = EthernetPacket::new(frame).map_or(MacAddr::broadcast(), |header| header.get_destination());
        self.socket.send(frame, index, to.octets())
    }

    /// Sends one round before it returns. A task then sends the rest of the burst and the refreshes. Dropping the
    /// [`Announcing`] stops the task, and no frame leaves after that.
    pub fn start(self: &Arc<Self>, pace: Pace) -> (Announced, Announcing) {
        self.start_while(pace, || true)
    }

    /// Like [`Announcer::start`], but the task checks `may` before each round. A process that was frozen must not pull
    /// the LAN back to a host that has lost the address in the meantime.
    pub fn start_while(
        self: &Arc<Self>,
        pace: Pace,
        may: impl Fn() -> bool + Send + 'static,
    ) -> (Announced, Announcing) {
        let first = self.announce_now();
        let it = Arc::clone(self);
        let gate = Arc::new(Mutex::new(true));
        let open = Arc::clone(&gate);
        let task = tokio::spawn(async move {
            let burst = (1..pace.burst).map(|_| BURST_SPACING);
            for pause in burst.chain((0..pace.refreshes).map(|_| pace.interval)) {
                tokio::time::sleep(pause).await;
                let open = open.locked();
                if !*open {
                    return;
                }
                if may() {
                    it.announce_now();
                }
            }
        });
        (first, Announcing { announcer: Arc::clone(self), gate, task })
    }

    /// Frames sent and frames that failed since [`Announcer::open`].
    #[must_use]
    pub fn counters(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    // Looked up each round: a bond changes its MAC address on failover, and a replaced interface changes its index.
    fn link(&self) -> Option<(u32, MacAddr)> {
        interface::link(&self.interface).map(|(index, mac)| (index, MacAddr::from(mac)))
    }
}

/// Running announcements. Dropping the value stops them at once.
#[derive(Debug)]
pub struct Announcing {
    announcer: Arc<Announcer>,
    // False after the end. Each round holds the lock, so that a drop never leaves a round half sent: an abort alone
    // does not wait for a round on another thread.
    gate: Arc<Mutex<bool>>,
    task: JoinHandle<()>,
}

impl Announcing {
    /// Whether the burst and all refreshes are done.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.task.is_finished()
    }

    /// The announcer, for an extra round.
    #[must_use]
    pub fn announcer(&self) -> &Announcer {
        &self.announcer
    }
}

impl Drop for Announcing {
    fn drop(&mut self) {
        *self.gate.locked() = false;
        self.task.abort();
    }
}

/// A gratuitous ARP frame: sender and target are both `ip`.
fn arp(operation: ArpOperation, ip: Ipv4Addr, mac: MacAddr) -> Option<Vec<u8>> {
    let mut frame = ethernet(MacAddr::broadcast(), mac, EtherTypes::Arp, ARP)?;
    let mut arp = MutableArpPacket::new(frame.get_mut(ETHERNET..)?)?;
    arp.set_hardware_type(ArpHardwareTypes::Ethernet);
    arp.set_protocol_type(EtherTypes::Ipv4);
    arp.set_hw_addr_len(6);
    arp.set_proto_addr_len(4);
    arp.set_operation(operation);
    arp.set_sender_hw_addr(mac);
    arp.set_sender_proto_addr(ip);
    // A request does not use the field (RFC 826). A reply addresses every host.
    let target = if operation == ArpOperations::Request { MacAddr::zero() } else { MacAddr::broadcast() };
    arp.set_target_hw_addr(target);
    arp.set_target_proto_addr(ip);
    Some(frame)
}

/// An ARP probe for `ip`, with an all-zero sender address (RFC 5227 section 2.1.1).
fn arp_probe(ip: Ipv4Addr, mac: MacAddr) -> Option<Vec<u8>> {
    let mut frame = arp(ArpOperations::Request, ip, mac)?;
    MutableArpPacket::new(frame.get_mut(ETHERNET..)?)?.set_sender_proto_addr(Ipv4Addr::UNSPECIFIED);
    Some(frame)
}

/// A solicitation for `ip`, as in duplicate address detection: its source is unspecified, so the answer goes to all
/// nodes.
fn solicitation(ip: Ipv6Addr, mac: MacAddr) -> Option<Vec<u8>> {
    let [.., a, b, c] = ip.octets();
    // RFC 4291 section 2.7.1 defines the group, RFC 2464 section 7 its Ethernet address.
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let mut frame = ethernet(MacAddr(0x33, 0x33, 0xff, a, b, c), mac, EtherTypes::Ipv6, IPV6 + SOLICITATION)?;
    let (head, body) = frame.get_mut(ETHERNET..)?.split_at_mut_checked(IPV6)?;
    ipv6_header(head, SOLICITATION, Ipv6Addr::UNSPECIFIED, group)?;
    let mut question = MutableNeighborSolicitPacket::new(body)?;
    question.set_icmpv6_type(Icmpv6Types::NeighborSolicit);
    question.set_target_addr(ip);
    let sum = checksum(&Icmpv6Packet::new(question.packet())?, &Ipv6Addr::UNSPECIFIED, &group);
    question.set_checksum(sum);
    Some(frame)
}

fn ipv6_header(bytes: &mut [u8], payload: usize, from: Ipv6Addr, to: Ipv6Addr) -> Option<()> {
    let mut header = MutableIpv6Packet::new(bytes)?;
    header.set_version(6);
    header.set_payload_length(u16::try_from(payload).ok()?);
    header.set_next_header(IpNextHeaderProtocols::Icmpv6);
    // RFC 4861 section 7.1: receivers discard any other value, because the packet may come from off the link.
    header.set_hop_limit(255);
    header.set_source(from);
    header.set_destination(to);
    Some(())
}

/// An unsolicited neighbour advertisement to all nodes.
fn advertisement(ip: Ipv6Addr, mac: MacAddr, router: bool) -> Option<Vec<u8>> {
    let mut frame = ethernet(ALL_NODES_MAC, mac, EtherTypes::Ipv6, IPV6 + ADVERTISEMENT)?;
    let (head, body) = frame.get_mut(ETHERNET..)?.split_at_mut_checked(IPV6)?;
    ipv6_header(head, ADVERTISEMENT, ip, ALL_NODES)?;
    let mut advert = MutableNeighborAdvertPacket::new(body)?;
    advert.set_icmpv6_type(Icmpv6Types::NeighborAdvert);
    advert.set_icmpv6_code(Icmpv6Code(0));
    advert.set_flags(NeighborAdvertFlags::Override | if router { NeighborAdvertFlags::Router } else { 0 });
    advert.set_target_addr(ip);
    advert.set_options(&[NdpOption {
        option_type: NdpOptionTypes::TargetLLAddr,
        length: 1,
        data: mac.octets().to_vec(),
    }]);
    let sum = checksum(&Icmpv6Packet::new(advert.packet())?, &ip, &ALL_NODES);
    advert.set_checksum(sum);
    Some(frame)
}

fn ethernet(to: MacAddr, from: MacAddr, kind: EtherType, payload: usize) -> Option<Vec<u8>> {
    let mut frame = vec![0; ETHERNET + payload];
    let mut header = MutableEthernetPacket::new(&mut frame)?;
    header.set_destination(to);
    header.set_source(from);
    header.set_ethertype(kind);
    Some(frame)
}
