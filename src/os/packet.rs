//! Packet sockets (packet(7)): frames as an interface receives and sends them.

use super::readiness::Owner;
use nix::errno::Errno;
use nix::sys::socket::{LinkAddr, recvfrom, setsockopt, sockopt};
use socket2::{Domain, SockAddr, SockFilter, Socket, Type};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// A packet socket, in the network namespace of the thread that opened it. Nothing waits: a full or empty queue is an
/// error. It receives nothing before it is bound, so no frame gets past a filter that was set before.
#[derive(Debug)]
pub(crate) struct PacketSocket(Socket);

/// The frames that a bound socket receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frames {
    /// Of every protocol, in both directions. No other binding shows outgoing frames.
    All,
    /// ARP that comes in.
    Arp,
    /// IPv6 that comes in.
    Ipv6,
}

/// A received frame.
pub(crate) struct Got {
    pub(crate) length: usize,
    /// `sll_pkttype` of packet(7).
    pub(crate) packet_type: u16,
    /// The sender's link address, if it has six bytes.
    pub(crate) link: Option<[u8; 6]>,
}

impl PacketSocket {
    /// For frames without their link header, so that every link type looks the same.
    pub(crate) fn without_link_header() -> io::Result<Self> {
        Socket::new(Domain::PACKET, Type::DGRAM.nonblocking(), None).map(Self)
    }

    /// For frames with their link header.
    pub(crate) fn with_link_header() -> io::Result<Self> {
        Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None).map(Self)
    }

    /// Receives only the frames that `program` accepts. Replaces an earlier program.
    pub(crate) fn attach_filter(&self, program: &[SockFilter]) -> io::Result<()> {
        self.0.attach_filter(program)
    }

    /// Starts to receive from the interface `index`.
    pub(crate) fn bind(&self, index: u32, frames: Frames) -> io::Result<()> {
        let protocol = match frames {
            Frames::All => libc::ETH_P_ALL,
            Frames::Arp => libc::ETH_P_ARP,
            Frames::Ipv6 => libc::ETH_P_IPV6,
        };
        self.0.bind(&address(index, protocol as u16, [0; 6])?)
    }

    /// Sends a frame that has its own link header through the interface `index`.
    pub(crate) fn send(&self, frame: &[u8], index: u32, to: [u8; 6]) -> io::Result<()> {
        self.0.send_to(frame, &address(index, 0, to)?).map(drop)
    }

    /// Receives one frame.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Got> {
        let (length, from) = recvfrom::<LinkAddr>(self.0.as_raw_fd(), buffer)?;
        // A packet socket names the sender of every frame. A frame without a type never counts as the server's.
        let packet_type = from.as_ref().map_or(u16::MAX, |a| u16::from(a.pkttype()));
        Ok(Got { length, packet_type, link: from.filter(|a| a.halen() == 6).and_then(|a| a.addr()) })
    }

    /// The error that the kernel noted since the last call.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.0.take_error()
    }

    /// Sets the receive buffer in bytes, within the system's limit.
    pub(crate) fn set_buffer(&self, bytes: usize) -> io::Result<()> {
        self.0.set_recv_buffer_size(bytes)
    }

    /// Sets the receive buffer in bytes, beyond the system's limit (needs CAP_NET_ADMIN).
    pub(crate) fn force_buffer(&self, bytes: usize) -> io::Result<()> {
        setsockopt(&self.0, sockopt::RcvBufForce, &bytes).map_err(io::Error::from)
    }

    /// Receives no frames that this host sends. Kernels before 4.20 cannot do that.
    pub(crate) fn ignore_outgoing(&self) -> io::Result<()> {
        self.set_option(libc::PACKET_IGNORE_OUTGOING, &1)
    }

    /// Counts since the last call: frames dropped for lack of room, and times the ring was full.
    pub(crate) fn drops(&self) -> io::Result<(u32, u32)> {
        let mut stats = libc::tpacket_stats_v3 { tp_packets: 0, tp_drops: 0, tp_freeze_q_cnt: 0 };
        let mut length = size_of::<libc::tpacket_stats_v3>() as libc::socklen_t;
        // SAFETY: the descriptor is open for the borrow. `stats` and `length` outlive the call, and the kernel writes at
        // most `length` bytes (without a ring only the first two numbers).
        let result = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut length,
            )
        };
        if result == 0 { Ok((stats.tp_drops, stats.tp_freeze_q_cnt)) } else { Err(io::Error::last_os_error()) }
    }

    /// Sets an option of packet sockets.
    pub(super) fn set_option<T: PacketOption>(&self, name: libc::c_int, value: &T) -> io::Result<()> {
        let length = size_of::<T>() as libc::socklen_t;
        // SAFETY: the descriptor is open for the borrow, `value` has the given length, and the kernel only reads it.
        let result = unsafe {
            libc::setsockopt(self.0.as_raw_fd(), libc::SOL_PACKET, name, std::ptr::from_ref(value).cast(), length)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

// SAFETY: a Socket owns its descriptor. The descriptor stays the same while the Socket lives, and is closed only when
// it drops.
unsafe impl Owner for PacketSocket {}

/// Values of packet socket options.
pub(super) trait PacketOption {}
impl PacketOption for libc::c_int {}
impl PacketOption for libc::tpacket_req3 {}

/// An address on the link of the interface `index`.
fn address(index: u32, protocol: u16, mac: [u8; 6]) -> io::Result<SockAddr> {
    let index = i32::try_from(index).map_err(|_| Errno::ENODEV)?;
    // SAFETY: `storage` is a zeroed sockaddr_storage, which is larger than and at least as aligned as sockaddr_ll. The
    // code sets the length of sockaddr_ll, and every byte of it is initialised (zeroes or the fields below).
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let link = storage.cast::<libc::sockaddr_ll>();
            (*link).sll_family = libc::AF_PACKET as u16;
            (*link).sll_protocol = protocol.to_be();
            (*link).sll_ifindex = index;
            (*link).sll_halen = 6;
            (&mut (*link).sll_addr)[..6].copy_from_slice(&mac);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })?
    };
    Ok(address)
}
