//! Datagrams with the kernel's count of drops.

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _};

/// Asks the kernel to report with each datagram how many were dropped before it (`SO_RXQ_OVFL`).
pub(crate) fn count_drops(socket: &impl AsFd) {
    // Without it drops are not counted, and nothing else changes.
    let _ = setsockopt(socket, sockopt::RxqOvfl, &1);
}

/// A received datagram.
pub(crate) struct Datagram {
    pub(crate) length: usize,
    pub(crate) source: SocketAddr,
    /// All drops of this socket so far.
    pub(crate) dropped: Option<u32>,
}

/// Receives one datagram without waiting.
///
/// # Errors
/// The system's error.
pub(crate) fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<Datagram> {
    let mut slices = [IoSliceMut::new(buffer)];
    let mut control = nix::cmsg_space!(u32);
    let got = recvmsg::<SockaddrStorage>(
        socket.as_fd().as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let dropped = got.cmsgs()?.find_map(|c| match c {
        ControlMessageOwned::RxqOvfl(count) => Some(count),
        _ => None,
    });
    let address = got.address.as_ref();
    let v4 = address.and_then(SockaddrStorage::as_sockaddr_in).map(|a| SocketAddr::from(*a));
    let source = v4.or_else(|| address.and_then(SockaddrStorage::as_sockaddr_in6).map(|a| SocketAddr::from(*a)));
    // Sockets of these families always report it. A datagram without a sender must not be trusted.
    let source = source.ok_or_else(|| io::Error::other("a datagram without a sender"))?;
    Ok(Datagram { length: got.bytes, source, dropped })
}
