//! SIP as it passes an interface, in both directions, read from a packet socket. The kernel filters by port before it copies
//! anything, so the audio never reaches this process.

use super::frame::{self, Udp};
use super::reassembly::Reassembly;
use crate::clock;
use filter::{MAX_PORTS, ports_filter, sample_filter};
use socket2::{Domain, SockFilter, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

mod filter;
mod sys;

/// Kernel buffer for frames that wait: at 1 kB a message some thousand, which a burst of re-registrations can bring.
const BUFFER: usize = 4 << 20;
/// The longest IP packet.
const LONGEST: usize = 65_535;

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

/// A UDP datagram that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who sent it.
    pub src: SocketAddr,
    /// Who it was sent to.
    pub dst: SocketAddr,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// What was seen and what was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureCounters {
    /// Datagrams given out.
    pub seen: u64,
    /// Frames that the kernel dropped because this process was too slow.
    pub dropped: u64,
    /// IP fragments.
    pub fragments: u64,
    /// Fragmented datagrams that never became whole.
    pub incomplete: u64,
    /// Frames that passed the filter but held no well-formed UDP datagram.
    pub malformed: u64,
}

/// A capture on one interface. Belongs to the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Capture {
    socket: AsyncFd<Socket>,
    interface: String,
    ports: Vec<u16>,
    reassembly: Reassembly,
    counters: CaptureCounters,
    buffer: Vec<u8>,
}

impl Capture {
    /// Captures UDP from or to any of `ports` on `interface`; needs a tokio runtime.
    ///
    /// # Errors
    /// As in [`CaptureError`].
    pub fn open(interface: &str, ports: &[u16]) -> Result<Self, CaptureError> {
        let program = ports_filter(ports).ok_or(CaptureError::Ports { count: ports.len() })?;
        Self::with(interface, ports, &program)
    }

    /// Captures a random one of `one_in` of the datagrams to `addresses` and a port of `ports` (first and last), whole ones only:
    /// enough to learn where media comes from, without reading it.
    ///
    /// # Errors
    /// As in [`CaptureError`].
    pub fn sample(interface: &str, addresses: &[IpAddr], ports: (u16, u16), one_in: u32) -> Result<Self, CaptureError> {
        let program = sample_filter(addresses, ports, one_in).ok_or(CaptureError::Ports { count: addresses.len() })?;
        Self::with(interface, &[], &program)
    }

    /// Changes how many are taken by a capture of [`Capture::sample`].
    ///
    /// # Errors
    /// As in [`CaptureError`].
    pub fn resample(&mut self, addresses: &[IpAddr], ports: (u16, u16), one_in: u32) -> Result<(), CaptureError> {
        let program = sample_filter(addresses, ports, one_in).ok_or(CaptureError::Ports { count: addresses.len() })?;
        let refused = |source| CaptureError::Refused { interface: self.interface.clone(), source };
        self.socket.get_ref().attach_filter(&program).map_err(refused)
    }

    fn with(interface: &str, ports: &[u16], program: &[SockFilter]) -> Result<Self, CaptureError> {
        let refused = |source: io::Error| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => CaptureError::Privilege { interface: interface.to_owned() },
            _ => CaptureError::Refused { interface: interface.to_owned(), source },
        };
        let index = nix::net::if_::if_nametoindex(interface).map_err(|_| CaptureError::NoInterface {
            interface: interface.to_owned(),
            there: nix::net::if_::if_nameindex()
                .map(|all| all.iter().map(|i| i.name().to_string_lossy().into_owned()).collect())
                .unwrap_or_default(),
        })?;
        // Protocol 0: nothing is received before the filter is in place and the socket is bound. DGRAM: frames come without
        // their link header, so every kind of link looks the same.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking(), None).map_err(refused)?;
        socket.attach_filter(program).map_err(refused)?;
        // Beyond net.core.rmem_max if CAP_NET_ADMIN is there; else as much as is allowed.
        if sys::force_buffer(&socket, BUFFER).is_err() {
            let _ = socket.set_recv_buffer_size(BUFFER);
        }
        socket.bind(&sys::all_protocols_on(index).map_err(refused)?).map_err(refused)?;
        Ok(Self {
            socket: sys::register(socket).map_err(refused)?,
            interface: interface.to_owned(),
            ports: ports.to_vec(),
            reassembly: Reassembly::new(),
            counters: CaptureCounters::default(),
            buffer: vec![0; LONGEST],
        })
    }

    /// The next datagram. Cancel safe.
    ///
    /// # Errors
    /// The interface went away for good, or the system failed; open a new capture after a pause.
    pub async fn next(&mut self) -> Result<Seen, CaptureError> {
        loop {
            let read = self.socket.async_io(Interest::READABLE, |s| receive(s, &mut self.buffer)).await;
            match read {
                Ok(length) => {
                    if let Some(seen) = self.take(length) {
                        self.counters.seen += 1;
                        return Ok(seen);
                    }
                }
                // The interface was set down: the kernel tells it once, and goes on when it is up again.
                Err(e) if e.raw_os_error() == Some(libc::ENETDOWN) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(CaptureError::Refused { interface: self.interface.clone(), source }),
            }
        }
    }

    /// What was seen and what was not, since [`Capture::open`].
    pub fn counters(&mut self) -> CaptureCounters {
        // Reading resets the kernel's count.
        self.counters.dropped += sys::drops(self.socket.get_ref().as_fd()).map_or(0, u64::from);
        self.counters.incomplete = self.reassembly.given_up();
        self.counters
    }

    fn take(&mut self, length: usize) -> Option<Seen> {
        match self.buffer.get(..length).and_then(frame::udp_in_ip) {
            Some(Udp::Whole { src, dst, payload }) => Some(Seen { src, dst, payload: payload.to_vec() }),
            Some(Udp::Fragment(fragment)) => {
                self.counters.fragments += 1;
                let (src, dst, payload) = self.reassembly.handle_fragment(&fragment, clock::now())?;
                // Later fragments carry no ports, so the kernel lets them through for every datagram.
                let wanted = self.ports.contains(&src.port()) || self.ports.contains(&dst.port());
                wanted.then_some(Seen { src, dst, payload })
            }
            None => {
                self.counters.malformed += 1;
                None
            }
        }
    }
}

fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    use std::os::fd::AsRawFd as _;
    nix::sys::socket::recv(socket.as_raw_fd(), buffer, nix::sys::socket::MsgFlags::empty()).map_err(io::Error::from)
}
