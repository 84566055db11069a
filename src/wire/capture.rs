//! SIP as it passes an interface, in both directions, read from a packet socket. The kernel filters by port and host before it copies
//! anything, so the audio never reaches this process.

use crate::clock;
use crate::sip::Transport;
use crate::time::Time;
use crate::wire::Packet;
use crate::wire::frame;
use crate::wire::passage::{Impostor, Impostors, Passage};
use crate::wire::path::{Path, PathCounters, PathSettings};
use filter::{MAX_PORTS, ports_filter, sample_filter};
use nix::net::if_::if_nametoindex;
use ring::Ring;
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockFilter, Socket, Type};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::{debug, warn};

mod filter;
mod program;
mod ring;
mod sys;

/// Memory of the ring. It is full after half a second in which this process does not run, even if each block holds one frame only, and
/// holds some thousand messages, which a burst of re-registrations can bring.
const RING: usize = 8 << 20;
/// Kernel buffer for frames that wait, where there is no ring.
const BUFFER: usize = 4 << 20;
/// The longest IP packet that is received without a ring.
const LONGEST: usize = 128 << 10;
/// Frames read in one go without a ring, so that other work has its turn.
const BATCH: usize = 256;
/// How often it is looked whether an interface that went down is still there: the kernel does not say when one goes that is down.
const LOOK: Duration = Duration::from_secs(1);

/// Why a capture cannot be.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// No such interface.
    #[error("there is no interface {interface} to capture on; there are: {}", there.join(", "))]
    NoInterface {
        /// The name that was asked for.
        interface: String,
        /// The interfaces that exist.
        there: Vec<String>,
    },
    /// More ports than a filter has room for, or none.
    #[error("a capture takes 1 to {MAX_PORTS} SIP ports, not {count}")]
    Ports {
        /// How many were asked for.
        count: usize,
    },
    /// More addresses than a filter has room for.
    #[error("a capture takes at most {MAX_PORTS} addresses, not {count}")]
    Hosts {
        /// How many were asked for.
        count: usize,
    },
    /// The interface is no longer there, or has another name now.
    #[error("interface {interface} is gone; it is looked for again")]
    Gone {
        /// The interface.
        interface: String,
    },
    /// The kernel refused for want of a capability.
    #[error("cannot capture on {interface}: no privilege; the agent needs CAP_NET_RAW")]
    Privilege {
        /// The interface.
        interface: String,
    },
    /// The system refused.
    #[error("cannot capture on {interface}: {source}")]
    Refused {
        /// The interface.
        interface: String,
        /// The system's error.
        source: io::Error,
    },
}

/// A SIP message, or for a sample a UDP datagram, that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who sent it.
    pub src: SocketAddr,
    /// Who it was sent to.
    pub dst: SocketAddr,
    /// Over what.
    pub transport: Transport,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// What was seen and what was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureCounters {
    /// Messages given out.
    pub seen: u64,
    /// Frames that the kernel dropped because this process was too slow.
    pub dropped: u64,
    /// How often the ring was full.
    pub frozen: u64,
    /// IP fragments.
    pub fragments: u64,
    /// Fragmented packets that never became whole.
    pub incomplete: u64,
    /// Frames that passed the filter but held no well-formed packet.
    pub malformed: u64,
    /// Frames that were longer than what there is room for.
    pub cut: u64,
    /// Whether the kernel shares a ring with this process; else each frame is a system call.
    pub ring: bool,
    /// All of it by kind.
    pub path: PathCounters,
}

/// What to capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureSettings {
    /// The interface's name. There is no "any": the server's addresses are on one.
    pub interface: String,
    /// Ports of SIP, over UDP and TCP.
    pub ports: Vec<u16>,
    /// The server's addresses: only what goes to or comes from one of them is captured. None for any.
    pub hosts: Vec<IpAddr>,
    /// Bytes of the ring that the kernel shares with this process; 0 for none.
    pub ring: usize,
}

/// A capture on one interface. Belongs to the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Capture {
    // Before the socket, so that it is unmapped before that is closed.
    ring: Option<Ring>,
    socket: AsyncFd<Socket>,
    interface: String,
    index: u32,
    /// The interface went down, and was not seen up since.
    down: bool,
    path: Path,
    /// Everything on the interface stays inside this host.
    within: bool,
    impostors: Impostors,
    /// This host holds the addresses: frames that come in from them are told.
    holds: bool,
    /// Messages of a batch that [`Capture::next`] has still to give out.
    waiting: VecDeque<Seen>,
    /// Messages given out, and frames too long.
    seen: u64,
    cut: u64,
    /// What the kernel told of its drops so far: it forgets them when it is asked.
    dropped: AtomicU64,
    frozen: AtomicU64,
    buffer: Vec<u8>,
}

impl Capture {
    /// Captures SIP over UDP and TCP from or to any of `ports` on `interface`, whoever takes part; needs a tokio runtime.
    ///
    /// # Errors
    /// As in [`CaptureError`].
    pub fn open(interface: &str, ports: &[u16]) -> Result<Self, CaptureError> {
        Self::open_for(interface, ports, &[])
    }

    /// Captures SIP over UDP and TCP between one of `hosts` (any, if there are none) with one of `ports` at either end, and anybody, on
    /// `interface`; needs a tokio runtime. Frames with VLAN tags count like others: a host takes what is sent to its addresses from any
    /// interface.
    ///
    /// # Errors
    /// As in [`CaptureError`].
    pub fn open_for(interface: &str, ports: &[u16], hosts: &[IpAddr]) -> Result<Self, CaptureError> {
        Self::with(CaptureSettings {
            interface: interface.to_owned(),
            ports: ports.to_vec(),
            hosts: hosts.to_vec(),
            ring: RING,
        })
    }

    /// As [`Capture::open_for`]. If the kernel refuses the ring, it goes without.
    ///
    /// # Errors
    /// As in [`CaptureError`].
    pub fn with(settings: CaptureSettings) -> Result<Self, CaptureError> {
        let CaptureSettings { interface, ports, hosts, ring } = settings;
        if hosts.len() > MAX_PORTS {
            return Err(CaptureError::Hosts { count: hosts.len() });
        }
        let program = ports_filter(&ports, &hosts).ok_or(CaptureError::Ports { count: ports.len() })?;
        Self::start(&interface, PathSettings { ports: Some(ports), hosts }, &program, ring)
    }

    /// Captures a random one of `one_in` of the datagrams to `addresses` and a port of `ports` (first and last), whole ones only:
    /// enough to learn where media comes from, without reading it. Without a ring: there are few, and each is to be known at once.
    ///
    /// # Errors
    /// As in [`CaptureError`].
    pub fn sample(interface: &str, addresses: &[IpAddr], ports: (u16, u16), one_in: u32) -> Result<Self, CaptureError> {
        let program = sample_filter(addresses, ports, one_in).ok_or(CaptureError::Hosts { count: addresses.len() })?;
        // The filter has seen to ports; it lets nothing through but whole datagrams.
        Self::start(interface, PathSettings { ports: None, hosts: addresses.to_vec() }, &program, 0)
    }

    /// Changes how many are taken by a capture of [`Capture::sample`].
    ///
    /// # Errors
    /// As in [`CaptureError`].
    pub fn resample(&mut self, addresses: &[IpAddr], ports: (u16, u16), one_in: u32) -> Result<(), CaptureError> {
        let program = sample_filter(addresses, ports, one_in).ok_or(CaptureError::Hosts { count: addresses.len() })?;
        self.socket.get_ref().attach_filter(&program).map_err(|source| refused(&self.interface, source))
    }

    fn start(interface: &str, path: PathSettings, program: &[SockFilter], ring: usize) -> Result<Self, CaptureError> {
        let refused = |source: io::Error| refused(interface, source);
        let index = if_nametoindex(interface).map_err(|_| CaptureError::NoInterface {
            interface: interface.to_owned(),
            there: nix::net::if_::if_nameindex()
                .map(|all| all.iter().map(|i| i.name().to_string_lossy().into_owned()).collect())
                .unwrap_or_default(),
        })?;
        let bare = || {
            // Protocol 0: nothing is received before the filter is in place and the socket is bound. DGRAM: frames come without
            // their link header, so every kind of link looks the same.
            let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking(), None)?;
            socket.attach_filter(program)?;
            if sys::is_loopback(interface) {
                // What goes out there comes in again in the same moment. Kernels before 4.20 do not know the option: then each is
                // seen twice, which changes nothing.
                let _ = sys::set_option(&socket, libc::PACKET_IGNORE_OUTGOING, &1);
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
                        "the kernel gives no ring for the capture ({e}); each frame costs a system call now"
                    );
                    // The version of the ring would change what the socket says of itself.
                    socket = bare().map_err(refused)?;
                    None
                }
            },
        };
        if ring.is_none() {
            // Beyond net.core.rmem_max if CAP_NET_ADMIN is there; else as much as is allowed.
            if sys::force_buffer(&socket, BUFFER).is_err() {
                let _ = socket.set_recv_buffer_size(BUFFER);
            }
        }
        socket.bind(&sys::all_protocols_on(index).map_err(refused)?).map_err(refused)?;
        Ok(Self {
            buffer: if ring.is_some() { Vec::new() } else { vec![0; LONGEST] },
            seen: 0,
            cut: 0,
            dropped: AtomicU64::new(0),
            frozen: AtomicU64::new(0),
            ring,
            socket: sys::register(socket).map_err(refused)?,
            interface: interface.to_owned(),
            index,
            down: false,
            path: Path::new(path),
            within: sys::is_loopback(interface),
            impostors: Impostors::default(),
            holds: false,
            waiting: VecDeque::new(),
        })
    }

    /// The next message. Cancel safe.
    ///
    /// # Errors
    /// The interface went away for good, or the system failed; open a new capture after a pause.
    pub async fn next(&mut self) -> Result<Seen, CaptureError> {
        loop {
            if let Some(seen) = self.waiting.pop_front() {
                return Ok(seen);
            }
            self.ready().await?;
            let mut waiting = std::mem::take(&mut self.waiting);
            let taken = self.take(&mut |p| {
                waiting.push_back(Seen { src: p.src, dst: p.dst, transport: p.transport, payload: p.payload.to_vec() });
            });
            self.waiting = waiting;
            taken?;
            if self.waiting.is_empty() {
                // Frames without a message may fill the ring faster than they are read; nothing else would ever have its turn.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Waits until [`Capture::take`] has something to do. Cancel safe.
    ///
    /// # Errors
    /// As [`Capture::next`].
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
                        // The interface was set down, or deleted: the kernel says both so, once, and goes on if it is up again.
                        Some(e) if e.raw_os_error() == Some(libc::ENETDOWN) => self.down = true,
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
                if if_nametoindex(self.interface.as_str()) != Ok(self.index) {
                    return Err(CaptureError::Gone { interface: self.interface.clone() });
                }
                self.down = !sys::is_up(&self.interface);
            }
        }
    }

    /// Hands what is there to `out`, without waiting: a block of the ring, or some frames, and what has waited for long enough. Messages
    /// are lent, so that nothing is copied.
    ///
    /// # Errors
    /// As [`Capture::next`].
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
                match self.socket.try_io(Interest::READABLE, |s| sys::receive(s, &mut self.buffer)) {
                    Ok(got) => handle(&self.buffer[..got.length.min(LONGEST)], got.packet_type, got.link),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) if e.raw_os_error() == Some(libc::ENETDOWN) => self.down = true,
                    Err(source) => return Err(refused(&self.interface, source)),
                }
            }
        }
        self.tell(now);
        Ok(())
    }

    /// Says whether this host holds the addresses. While it does not, frames that come in from them are the holder's own.
    pub fn set_holds(&mut self, holds: bool) {
        self.holds = holds;
    }

    fn tell(&mut self, now: Time) {
        if !self.holds {
            self.impostors.forget();
        } else if let Some((count, last)) = self.impostors.poll(now) {
            warn!(
                interface = self.interface,
                "{count} frames came in with an address of this host's server as their source, the last {last}: another host answers \
                 for the address, the network has a loop, or somebody forges them; none of them is believed"
            );
        }
    }

    /// What was seen and what was not, since [`Capture::open`].
    pub fn counters(&self) -> CaptureCounters {
        match sys::drops(self.socket.get_ref()) {
            Ok((dropped, frozen)) => {
                self.dropped.fetch_add(u64::from(dropped), Ordering::Relaxed);
                self.frozen.fetch_add(u64::from(frozen), Ordering::Relaxed);
            }
            Err(e) => debug!(interface = self.interface, "the kernel does not tell its drops: {e}"),
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
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => CaptureError::Privilege { interface: interface.to_owned() },
        _ => CaptureError::Refused { interface: interface.to_owned(), source },
    }
}
