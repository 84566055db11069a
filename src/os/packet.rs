//! Packet sockets.

use nix::sys::socket::LinkAddr;
use socket2::{SockAddr, Socket};
use std::io;
use std::os::fd::AsRawFd as _;

/// The address that binds a packet socket to all protocols of one interface. Only this binding shows outgoing frames
/// too.
pub(crate) fn all_protocols_on(index: u32) -> io::Result<SockAddr> {
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

/// A link-layer destination. Frames sent to it leave through the interface `index` with their own header.
pub(crate) fn link_address(index: u32, mac: [u8; 6]) -> io::Result<SockAddr> {
    packet_address(index, 0, mac)
}

/// The bind address of a packet socket that receives `protocol` (an `ETH_P_*`) from the interface `index`.
pub(crate) fn listen_address(index: u32, protocol: libc::c_int) -> io::Result<SockAddr> {
    let protocol = u16::try_from(protocol).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    packet_address(index, protocol, [0; 6])
}

fn packet_address(index: u32, protocol: u16, mac: [u8; 6]) -> io::Result<SockAddr> {
    let index = i32::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
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

/// A frame received without a ring.
pub(crate) struct Got {
    pub(crate) length: usize,
    /// `sll_pkttype` of packet(7).
    pub(crate) packet_type: u16,
    /// The sender's link address, if it has six bytes.
    pub(crate) link: Option<[u8; 6]>,
}

/// Receives one frame, without its link header.
pub(crate) fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<Got> {
    let (length, from) = nix::sys::socket::recvfrom::<LinkAddr>(socket.as_raw_fd(), buffer).map_err(io::Error::from)?;
    // A packet socket names the sender of every frame. A frame without a type never counts as the server's.
    let packet_type = from.as_ref().map_or(u16::MAX, |a| u16::from(a.pkttype()));
    Ok(Got { length, packet_type, link: from.filter(|a| a.halen() == 6).and_then(|a| a.addr()) })
}

/// Sets the receive buffer, in bytes, beyond the system's limit (needs CAP_NET_ADMIN).
pub(crate) fn force_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::RcvBufForce, &bytes).map_err(io::Error::from)
}

/// Values of packet socket options.
pub(crate) trait PacketOption {}
impl PacketOption for libc::c_int {}
impl PacketOption for libc::tpacket_req3 {}

/// Sets a packet socket option.
pub(crate) fn set_option<T: PacketOption>(socket: &Socket, name: libc::c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the descriptor is open for the borrow, `value` has the given length, and the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, name, std::ptr::from_ref(value).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Counts since the last call: frames dropped for lack of room, and times the ring was full.
pub(crate) fn drops(socket: &Socket) -> io::Result<(u32, u32)> {
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
