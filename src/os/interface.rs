//! Network interfaces.

use nix::net::if_::InterfaceFlags;
use socket2::Socket;
use std::io;
use std::os::fd::AsRawFd as _;

/// The MTU of an interface, in bytes. Any socket works for the query.
pub(crate) fn mtu(socket: &Socket, interface: &str) -> io::Result<usize> {
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

/// The interface is a loopback.
pub(crate) fn is_loopback(interface: &str) -> bool {
    has(interface, InterfaceFlags::IFF_LOOPBACK)
}

/// The interface exists and is up.
pub(crate) fn is_up(interface: &str) -> bool {
    has(interface, InterfaceFlags::IFF_UP)
}

fn has(interface: &str, flag: InterfaceFlags) -> bool {
    nix::ifaddrs::getifaddrs().is_ok_and(|mut all| all.any(|i| i.interface_name == interface && i.flags.contains(flag)))
}
