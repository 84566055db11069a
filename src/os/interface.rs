//! Network interfaces and their addresses, in the network namespace of the calling thread.

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_indextoname, if_nameindex, if_nametoindex};
use nix::sys::socket::LinkAddr;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd as _};

/// The index of an interface; `None` if it does not exist (or no descriptor is free for the question).
pub(crate) fn index(interface: &str) -> Option<u32> {
    if_nametoindex(interface).ok()
}

/// The name of the interface with this index.
pub(crate) fn name(index: u32) -> Option<String> {
    if_indextoname(index).ok()?.into_string().ok()
}

/// The names of all interfaces; none if the kernel does not tell.
pub(crate) fn names() -> Vec<String> {
    if_nameindex().map(|all| all.iter().map(|i| i.name().to_string_lossy().into_owned()).collect()).unwrap_or_default()
}

/// The index and link address of an interface.
pub(crate) fn link(interface: &str) -> Option<(u32, [u8; 6])> {
    getifaddrs().ok()?.filter(|i| i.interface_name == interface).find_map(|i| {
        let link = *i.address?.as_link_addr()?;
        Some((u32::try_from(link.ifindex()).ok()?, link.addr()?))
    })
}

/// The link addresses of this host.
///
/// # Errors
/// The system's error.
pub(crate) fn link_addresses() -> io::Result<Vec<[u8; 6]>> {
    Ok(getifaddrs()?.filter_map(|i| i.address?.as_link_addr().and_then(LinkAddr::addr)).collect())
}

/// The IP addresses of this host, loopback included.
///
/// # Errors
/// The system's error.
pub(crate) fn addresses() -> io::Result<Vec<IpAddr>> {
    let ip = |i: nix::ifaddrs::InterfaceAddress| {
        let address = i.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip())))
    };
    Ok(getifaddrs()?.filter_map(ip).collect())
}

/// Whether the interface is a loopback.
pub(crate) fn is_loopback(interface: &str) -> bool {
    has(interface, InterfaceFlags::IFF_LOOPBACK)
}

/// Whether the interface exists and is up.
pub(crate) fn is_up(interface: &str) -> bool {
    has(interface, InterfaceFlags::IFF_UP)
}

fn has(interface: &str, flag: InterfaceFlags) -> bool {
    getifaddrs().is_ok_and(|mut all| all.any(|i| i.interface_name == interface && i.flags.contains(flag)))
}

/// The MTU of an interface, in bytes. Any socket works for the query.
pub(crate) fn mtu(socket: &impl AsFd, interface: &str) -> io::Result<usize> {
    // SAFETY: ifreq is plain data, and all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte stays zero, because the kernel expects a terminated name.
    if interface.len() >= request.ifr_name.len() {
        return Err(Errno::ENODEV.into());
    }
    for (slot, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *slot = byte as libc::c_char;
    }
    // SAFETY: the descriptor stays open while `socket` is borrowed. SIOCGIFMTU reads the name and writes ifru_mtu, both
    // inside `request`.
    let mtu = unsafe {
        if libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) < 0 {
            return Err(io::Error::last_os_error());
        }
        request.ifr_ifru.ifru_mtu
    };
    usize::try_from(mtu).map_err(|_| Errno::EINVAL.into())
}
