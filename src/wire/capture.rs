//! Captures SIP on an interface, in both directions, from a packet socket. The kernel filters by port and host before
//! it copies anything, so audio never reaches this process.

use crate::os::packet::{Frames, PacketSocket};
use crate::os::ring::Ring;
use crate::os::{clock, interface, readiness};
use crate::sip::Transport;
use crate::time::Time;
use crate::wire::Packet;
use crate::wire::frame;
use crate::wire::passage::{Impostor, Impostors, Passage};
use crate::wire::path::{Path, PathCounters, PathSettings};
use filter::{MAX_PORTS, ports_filter, sample_filter};
use serde::{Deserialize, Serialize};
use socket2::SockFilter;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::{debug, warn};

mod filter;

/// Ring memory. If this process stalls, the ring fills after half a second even with one frame a block. It holds some
/// thousand messages, as many as a burst of re-registrations can bring.
const RING: usize = 8 << 20;
/// Kernel receive buffer when there is no ring.
const BUFFER: usize = 4 << 20;
/// Longest IP packet received without a ring.
const LONGEST: usize = 128 << 10;
/// Frames read in one go without a ring, so that other tasks get their turn.
const BATCH: usize = 256;
/// Interval of the check whether a downed interface still exists. The kernel does not report the removal of an
/// interface that is already down.
const LOOK: Duration = Duration::from_secs(1);

/// Reasons for a capture to fail.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The interface does not exist.
    #[error("there is no interface {interface} to capture on; there are: {}", there.join(", "))]
    NoInterface {
        /// Requested name.
        interface: String,
        /// Existing interfaces.
        there: Vec<String>,
    },
    /// No ports, or more than fit into a filter.
    #[error("a capture takes 1 to {MAX_PORTS} SIP ports, not {count}")]
    Ports {
        /// Requested number of ports.
        count: usize,
    },
    /// More addresses than fit into a filter.
    #[error("a capture takes at most {MAX_PORTS} addresses, not {count}")]
    Hosts {
        /// Requested number of addresses.
        count: usize,
    },
    /// The interface was removed or renamed.
    #[error("interface {interface} is gone; looking for the interface again")]
    Gone {
        /// Interface name.
        interface: String,
    },
    /// The process lacks a capability.
    #[error("cannot capture on {interface}: no permission; give the agent CAP_NET_RAW")]
    Privilege {
        /// Interface name.
        interface: String,
    },
    /// The system refused.
    #[error("cannot capture on {interface}: {source}")]
    Refused {
        /// Interface name.
        interface: String,
        /// Error from the system.
        source: io::Error,
    },
}

/// A captured SIP message, or in a sample a UDP datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Source address and port.
    pub src: SocketAddr,
    /// Destination address and port.
    pub dst: SocketAddr,
    /// Transport that carried the message.
    pub transport: Transport,
    /// The message or datagram payload.
    pub payload: Vec<u8>,
}

/// Counters of one capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureCounters {
    /// Messages handed out.
    pub seen: u64,
    /// Frames that the kernel dropped because this process was too slow.
    pub dropped: u64,
    /// Times the ring was full.
    pub frozen: u64,
    /// IP fragments.
    pub fragments: u64,
    /// Fragmented packets that stayed incomplete.
    pub incomplete: u64,
    /// Frames that passed the filter without a well-formed packet.
    pub malformed: u64,
    /// Frames too long for their buffer.
    pub cut: u64,
    /// The kernel shares a ring with this process. Without one, each frame costs a system call.
    pub ring: bool,
    /// Counts by kind of frame.
    pub path: PathCounters,
}

/// Settings of one capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureSettings {
    /// Interface name. There is no "any", because the server's addresses are on one interface.
    pub interface: String,
    /// SIP ports, for UDP and TCP.
    pub ports: Vec<u16>,
    /// The server's addresses. Only traffic from or to one of them is captured. An empty list accepts any.
    pub hosts: Vec<IpAddr>,
    /// Bytes of the ring shared with the kernel. 0 means no ring.
    pub ring: usize,
}

/// A capture on one interface, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Capture {
    // Declared before the socket, so that it is unmapped before the socket closes.
    ring: Option<Ring>,
    socket: AsyncFd<PacketSocket>,
    interface: String,
    index: u32,
    /// The interface went down and has not come up again.
    down: bool,
    path: Path,
    /// The interface is a loopback: all its traffic stays inside this host.
    within: bool,
    impostors: Impostors,
    /// This host holds the addresses, so frames that come in from them cause a warning.
    holds: bool,
    /// Messages of a batch that [`Capture::next`] has yet to hand out.
    waiting: VecDeque<Captured>,
    /// Messages handed out, and frames too long.
    seen: u64,
    cut: u64,
    /// Drops reported by the kernel so far. Each query resets the kernel's count.
    dropped: AtomicU64,
    frozen: AtomicU64,
    buffer: Vec<u8>,
}

impl Capture {
    /// Captures SIP over UDP and TCP from or to any of `ports` on `interface`, for all hosts. Needs a tokio runtime.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn open(interface: &str, ports: &[u16]) -> Result<Self, CaptureError> {
        Self::open_for(interface, ports, &[])
    }

    /// Captures SIP over UDP and TCP on `interface`: one end must be in `hosts` (an empty list accepts any), and one
    /// end must use one of `ports`. Needs a tokio runtime. Frames with VLAN tags count as well, because a host accepts
    /// packets to its addresses on any interface.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn open_for(interface: &str, ports: &[u16], hosts: &[IpAddr]) -> Result<Self, CaptureError> {
        Self::with(CaptureSettings {
            interface: interface.to_owned(),
            ports: ports.to_vec(),
            hosts: hosts.to_vec(),
            ring: RING,
        })
    }

    /// Like [`Capture::open_for`], with settings. If the kernel refuses the ring, the capture runs without one.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn with(settings: CaptureSettings) -> Result<Self, CaptureError> {
        let CaptureSettings { interface, ports, hosts, ring } = settings;
        if hosts.len() > MAX_PORTS {
            return Err(CaptureError::Hosts { count: hosts.len() });
        }
        let program = ports_filter(&ports, &hosts).ok_or(CaptureError::Ports { count: ports.len() })?;
        Self::start(&interface, PathSettings { ports: Some(ports), hosts }, &program, ring)
    }

    /// Samples on average one in `one_in` whole datagrams to `addresses` and a port of `ports` (first and last). This
    /// is enough to learn each media source without reading the media. It uses no ring: samples are few, and each must
    /// arrive at once.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn sample(interface: &str, addresses: &[IpAddr], ports: (u16, u16), one_in: u32) -> Result<Self, CaptureError> {
        let program = sample_filter(addresses, ports, one_in).ok_or(CaptureError::Hosts { count: addresses.len() })?;
        // The filter has checked the ports and passes only whole datagrams.
        Self::start(interface, PathSettings { ports: None, hosts: addresses.to_vec() }, &program, 0)
    }

    /// Changes the addresses, ports and rate of a capture from [`Capture::sample`].
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn resample(&mut self, addresses: &[IpAddr], ports: (u16, u16), one_in: u32) -> Result<(), CaptureError> {
        let program = sample_filter(addresses, ports, one_in).ok_or(CaptureError::Hosts { count: addresses.len() })?;
        self.socket.get_ref().attach_filter(&program).map_err(|source| refused(&self.interface, source))
    }

    fn start(interface: &str, path: PathSettings, program: &[SockFilter], ring: usize) -> Result<Self, CaptureError> {
        let refused = |source: io::Error| refused(interface, source);
        let index = interface::index(interface)
            .ok_or_else(|| CaptureError::NoInterface { interface: interface.to_owned(), there: interface::names() })?;
        let bare = || {
            let socket = PacketSocket::without_link_header()?;
            socket.attach_filter(program)?;
            if interface::is_loopback(interface) {
                // On a loopback, each outgoing packet comes in again at once. Kernels before 4.20 lack the option, and
                // the capture then sees each packet twice. This is harmless.
                let _ = socket.ignore_outgoing();
            }
            Ok::<_, io::Error>(socket)
        };
        let mut socket = bare().map_err(refused)?;
        let ring = match ring {
            0 => None,
            bytes => match Ring::set_up(&socket, bytes) {
                Ok(ring) => Some(ring),
                Err(e) => {
                    warn!(
                        interface,
                        "the kernel refused a ring for the capture ({e}); each frame now costs a system call"
                    );
                    // PACKET_VERSION of the failed ring would change the socket's statistics, so open a new socket.
                    socket = bare().map_err(refused)?;
                    None
                }
            },
        };
        if ring.is_none() {
            // With CAP_NET_ADMIN the buffer may exceed net.core.rmem_max. Without it, take the allowed maximum.
            if socket.force_buffer(BUFFER).is_err() {
                let _ = socket.set_buffer(BUFFER);
            }
        }
        socket.bind(index, Frames::All).map_err(refused)?;
        Ok(Self {
            buffer: if ring.is_some() { Vec::new() } else { vec![0; LONGEST] },
            seen: 0,
            cut: 0,
            dropped: AtomicU64::new(0),
            frozen: AtomicU64::new(0),
            ring,
            socket: readiness::watch(socket, Interest::READABLE | Interest::ERROR).map_err(refused)?,
            interface: interface.to_owned(),
            index,
            down: false,
            path: Path::new(path),
            within: interface::is_loopback(interface),
            impostors: Impostors::default(),
            holds: false,
            waiting: VecDeque::new(),
        })
    }

    /// Returns the next message. Cancel safe.
    ///
    /// # Errors
    /// The interface is gone for good, or the system failed. Open a new capture after a pause.
    pub async fn next(&mut self) -> Result<Captured, CaptureError> {
        loop {
            if let Some(seen) = self.waiting.pop_front() {
                return Ok(seen);
            }
            self.ready().await?;
            let mut waiting = std::mem::take(&mut self.waiting);
            let taken = self.take(&mut |p| {
                waiting.push_back(Captured {
                    src: p.src,
                    dst: p.dst,
                    transport: p.transport,
                    payload: p.payload.to_vec(),
                });
            });
            self.waiting = waiting;
            taken?;
            if self.waiting.is_empty() {
                // Frames without a message may fill the ring faster than this loop drains it. Yield, or no other task
                // runs.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Waits until [`Capture::take`] has work. Cancel safe.
    ///
    /// # Errors
    /// See [`Capture::next`].
    pub async fn ready(&mut self) -> Result<(), CaptureError> {
        loop {
            if self.ring.as_ref().is_some_and(Ring::is_ready) {
                return Ok(());
            }
            let now = clock::now();
            let deadline = match self.path.next_deadline() {
                Some(at) if at <= now => return Ok(()),
                at => at.into_iter().chain(self.down.then_some(now + LOOK)).min(),
            };
            let interest = Interest::READABLE | Interest::ERROR;
            let ready = async {
                match deadline {
                    Some(at) => {
                        tokio::time::timeout_at(clock::tokio_at(at), self.socket.ready(interest)).await.ok().transpose()
                    }
                    None => self.socket.ready(interest).await.map(Some),
                }
            };
            let guard = ready.await.map_err(|source| refused(&self.interface, source))?;
            if let Some(mut guard) = guard {
                if guard.ready().is_error() {
                    let error = self.socket.get_ref().take_error();
                    guard.clear_ready_matching(tokio::io::Ready::ERROR);
                    match error.map_err(|source| refused(&self.interface, source))? {
                        None => {}
                        // The interface was set down or deleted. The kernel reports both with this one error, once, and
                        // resumes when the interface comes up.
                        Some(e) if e.kind() == io::ErrorKind::NetworkDown => self.down = true,
                        Some(source) => return Err(refused(&self.interface, source)),
                    }
                } else if self.ring.is_none() || self.ring.as_ref().is_some_and(Ring::is_ready) {
                    return Ok(());
                } else {
                    guard.clear_ready();
                    continue;
                }
            }
            if self.down {
                if interface::index(&self.interface) != Some(self.index) {
                    return Err(CaptureError::Gone { interface: self.interface.clone() });
                }
                self.down = !interface::is_up(&self.interface);
            }
        }
    }

    /// Hands the available messages to `out` without waiting: one block of the ring or some frames, and overdue
    /// messages. Messages are borrowed, so nothing is copied.
    ///
    /// # Errors
    /// See [`Capture::next`].
    pub fn take(&mut self, out: &mut dyn FnMut(Packet<'_>)) -> Result<(), CaptureError> {
        let now = clock::now();
        let (path, seen) = (&mut self.path, &mut self.seen);
        let mut out = |p: Packet<'_>| {
            *seen += 1;
            out(p);
        };
        if path.next_deadline().is_some_and(|at| at <= now) {
            path.handle_timeout(now, &mut out);
        }
        let (within, impostors) = (self.within, &mut self.impostors);
        let mut handle = |data: &[u8], packet_type: u16, link: Option<[u8; 6]>| {
            let passage = if within { Passage::Within } else { Passage::of_packet_type(packet_type) };
            if let Some((claims, to)) = path.handle_ip(frame::behind_tags(data), passage, now, &mut out) {
                impostors.handle(Impostor { link, claims, to });
            }
        };
        if let Some(ring) = &mut self.ring {
            let mut cut = 0;
            ring.read(&mut |frame| {
                cut += u64::from(frame.cut);
                handle(frame.data, frame.packet_type, frame.link);
            });
            self.cut += cut;
        } else {
            for _ in 0..BATCH {
                match self.socket.try_io(Interest::READABLE, |s| s.receive(&mut self.buffer)) {
                    Ok(got) => handle(&self.buffer[..got.length.min(LONGEST)], got.packet_type, got.link),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) if e.kind() == io::ErrorKind::NetworkDown => self.down = true,
                    Err(source) => return Err(refused(&self.interface, source)),
                }
            }
        }
        self.tell(now);
        Ok(())
    }

    /// Sets whether this host holds the addresses. While it does not, frames that come in from them are the holder's
    /// own.
    pub fn set_holds(&mut self, holds: bool) {
        self.holds = holds;
    }

    fn tell(&mut self, now: Time) {
        if !self.holds {
            self.impostors.forget();
        } else if let Some((count, last)) = self.impostors.poll(now) {
            warn!(
                interface = self.interface,
                "{count} frames came in with an address of this host's server as their source, the last {last}: \
                 another host answers for the address, the network has a loop, or somebody forges frames; keepcall \
                 ignores them"
            );
        }
    }

    /// Counters since the capture was opened.
    pub fn counters(&self) -> CaptureCounters {
        match self.socket.get_ref().drops() {
            Ok((dropped, frozen)) => {
                self.dropped.fetch_add(u64::from(dropped), Ordering::Relaxed);
                self.frozen.fetch_add(u64::from(frozen), Ordering::Relaxed);
            }
            Err(e) => debug!(interface = self.interface, "cannot read the kernel's counter of dropped frames: {e}"),
        }
        let path = self.path.counters();
        CaptureCounters {
            seen: self.seen,
            dropped: self.dropped.load(Ordering::Relaxed),
            frozen: self.frozen.load(Ordering::Relaxed),
            fragments: path.fragments,
            incomplete: path.incomplete,
            malformed: path.malformed,
            cut: self.cut,
            ring: self.ring.is_some(),
            path,
        }
    }
}

fn refused(interface: &str, source: io::Error) -> CaptureError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => CaptureError::Privilege { interface: interface.to_owned() },
        _ => CaptureError::Refused { interface: interface.to_owned(), source },
    }
}
