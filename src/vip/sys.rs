//! The few system calls without a safe form in the crates in use.

#![allow(unsafe_code)]

use socket2::{SockAddr, Socket};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

/// A link-layer destination. Frames sent to it leave through the interface `index` with their own header.
pub(super) fn link_address(index: u32, mac: [u8; 6]) -> io::Result<SockAddr> {
    packet_address(index, 0, mac)
}

/// The bind address of a packet socket that receives `protocol` (an `ETH_P_*`) from the interface `index`.
pub(super) fn listen_address(index: u32, protocol: libc::c_int) -> io::Result<SockAddr> {
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

/// The MTU of an interface, in bytes. Any socket works for the query.
pub(super) fn mtu(socket: &Socket, interface: &str) -> io::Result<usize> {
    // SAFETY: ifreq is plain data, and all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte stays zero, because the kernel expects a terminated name.
    if interface.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (slot, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *slot = byte as libc::c_char;
    }
    // SAFETY: the descriptor stays open while `socket` is borrowed. SIOCGIFMTU reads the name and writes ifru_mtu, both
    // inside `request`.
    let mtu = unsafe {
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) < 0 {
            return Err(io::Error::last_os_error());
        }
        request.ifr_ifru.ifru_mtu
    };
    usize::try_from(mtu).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Lets the runtime watch a descriptor for input. Must run in a tokio runtime.
pub(super) fn readable(fd: std::os::fd::OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>> {
    // SAFETY: an OwnedFd always returns the same descriptor and keeps it open for the life of the AsyncFd that holds
    // it.
    unsafe { tokio::io::unix::AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) }
        .map_err(io::Error::from)
}

/// Just below the election's own thread (20), because kernel lease renewals wait for jobs that run here.
const AHEAD: libc::c_int = 19;

/// Runs `job`, which must be short, at real-time priority; at ordinary priority if the system denies it.
pub(super) fn ahead<T>(job: impl FnOnce() -> T) -> T {
    /// Restores the thread's priority even if the job panics, because the thread belongs to a pool.
    struct Back;
    impl Drop for Back {
        fn drop(&mut self) {
            let _ = schedule(libc::SCHED_OTHER, 0);
        }
    }
    let _back = schedule(libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, AHEAD).is_ok().then_some(Back);
    job()
}

fn schedule(policy: libc::c_int, priority: libc::c_int) -> io::Result<()> {
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: 0 is the calling thread, and `param` outlives the call, which only reads it.
    let done = unsafe { libc::sched_setscheduler(0, policy, &raw const param) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Stops the kernel from repeating a refused request, which may be large, in its answer.
pub(super) fn short_netlink_errors(socket: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor stays open while `socket` is borrowed. The option is an int, and `on` outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_CAP_ACK,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
