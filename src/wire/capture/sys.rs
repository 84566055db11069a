//! System calls of packet sockets without a safe form in the crates in use.

#![allow(unsafe_code)]

use nix::net::if_::InterfaceFlags;
use nix::sys::socket::LinkAddr;
use socket2::{SockAddr, Socket};
use std::io;
use std::os::fd::AsRawFd as _;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The address that binds a packet socket to all protocols of one interface. Only this binding shows outgoing frames
/// too.
pub(super) fn all_protocols_on(index: u32) -> io::Result<SockAddr> {
    let index = i32::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    // SAFETY: `storage` is a zeroed sockaddr_storage, which is larger than and at least as aligned as sockaddr_ll. The
    // length is set to that of sockaddr_ll, and every byte of it is initialised (zeroes or the fields below).
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let link = storage.cast::<libc::sockaddr_ll>();
            (*link).sll_family = libc::AF_PACKET as u16;
            (*link).sll_protocol = (libc::ETH_P_ALL as u16).to_be();
            (*link).sll_ifindex = index;
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })?
    };
    Ok(address)
}

/// Registers the socket with the tokio runtime, for reading. The removal of an interface shows as an error only.
pub(super) fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a Socket owns its descriptor. The descriptor stays the same while the Socket lives and is closed only
    // when it drops.
    unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE | Interest::ERROR) }.map_err(io::Error::from)
}

/// A frame received without a ring.
pub(super) struct Got {
    pub(super) length: usize,
    /// `sll_pkttype` of packet(7).
    pub(super) packet_type: u16,
    /// The sender's link address, if it has six bytes.
    pub(super) link: Option<[u8; 6]>,
}

/// Receives one frame, without its link header.
pub(super) fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<Got> {
    let (length, from) = nix::sys::socket::recvfrom::<LinkAddr>(socket.as_raw_fd(), buffer).map_err(io::Error::from)?;
    // A packet socket names the sender of every frame. A frame without a type never counts as the server's.
    let packet_type = from.as_ref().map_or(u16::MAX, |a| u16::from(a.pkttype()));
    Ok(Got { length, packet_type, link: from.filter(|a| a.halen() == 6).and_then(|a| a.addr()) })
}

/// Sets the receive buffer, in bytes, beyond the system's limit (needs CAP_NET_ADMIN).
pub(super) fn force_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::RcvBufForce, &bytes).map_err(io::Error::from)
}

/// Values of packet socket options.
pub(super) trait PacketOption {}
impl PacketOption for libc::c_int {}
impl PacketOption for libc::tpacket_req3 {}

/// Sets a packet socket option.
pub(super) fn set_option<T: PacketOption>(socket: &Socket, name: libc::c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the descriptor is open for the borrow, `value` has the given length, and the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, name, std::ptr::from_ref(value).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Counts since the last call: frames dropped for lack of room, and times the ring was full.
pub(super) fn drops(socket: &Socket) -> io::Result<(u32, u32)> {
    let mut stats = libc::tpacket_stats_v3 { tp_packets: 0, tp_drops: 0, tp_freeze_q_cnt: 0 };
    let mut length = size_of::<libc::tpacket_stats_v3>() as libc::socklen_t;
    // SAFETY: the descriptor is open for the borrow. `stats` and `length` outlive the call, and the kernel writes at
    // most `length` bytes (without a ring only the first two numbers).
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut stats).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok((stats.tp_drops, stats.tp_freeze_q_cnt)) } else { Err(io::Error::last_os_error()) }
}

/// The interface is a loopback.
pub(super) fn is_loopback(interface: &str) -> bool {
    has(interface, InterfaceFlags::IFF_LOOPBACK)
}

/// The interface exists and is up.
pub(super) fn is_up(interface: &str) -> bool {
    has(interface, InterfaceFlags::IFF_UP)
}

fn has(interface: &str, flag: InterfaceFlags) -> bool {
    nix::ifaddrs::getifaddrs().is_ok_and(|mut all| all.any(|i| i.interface_name == interface && i.flags.contains(flag)))
}
