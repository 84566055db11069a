//! The few system calls of packet sockets that the crates in use have no safe form for.

#![allow(unsafe_code)]

use socket2::{SockAddr, Socket};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The address that binds a packet socket to all protocols of one interface: only that shows what leaves, too.
pub(super) fn all_protocols_on(index: u32) -> io::Result<SockAddr> {
    let index = i32::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    // SAFETY: `storage` is a zeroed sockaddr_storage, which is larger than and at least as aligned as sockaddr_ll; the length
    // that is set is that of sockaddr_ll, and every byte of it is initialised (zeroes or the fields below).
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

/// Hands the socket to the tokio runtime, for reading.
pub(super) fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a Socket owns its descriptor: it is the same for as long as the Socket lives, and is closed only when it drops.
    unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(io::Error::from)
}

/// Sets the receive buffer, in bytes, even beyond the system's limit (needs CAP_NET_ADMIN).
pub(super) fn force_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::RcvBufForce, &bytes).map_err(io::Error::from)
}

/// Frames dropped for want of buffer since the last call.
pub(super) fn drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: the descriptor is open for the borrow; `stats` and `length` live over the call, and the kernel writes at most
    // `length` bytes.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, (&raw mut stats).cast(), &raw mut length)
    };
    if result == 0 { Ok(stats.tp_drops) } else { Err(io::Error::last_os_error()) }
}
