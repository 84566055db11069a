//! Netlink sockets.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

/// Stops the kernel from repeating a refused request, which may be large, in its answer.
pub(crate) fn short_netlink_errors(socket: &OwnedFd) -> io::Result<()> {
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
