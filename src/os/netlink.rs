//! Netlink sockets (netlink(7)).

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, getsockopt, setsockopt, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

/// The kernel's own share of the send buffer (`netlink_sendmsg`), with a margin.
pub(crate) const SEND_OVERHEAD: usize = 256;

/// A connection to a part of the kernel, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    /// A connection to netfilter. `wait_ms` limits each wait for the kernel, and `buffer` is the room for its answers
    /// in bytes.
    ///
    /// # Errors
    /// The kernel cannot provide such a socket.
    pub(crate) fn to_netfilter(wait_ms: i64, buffer: usize) -> io::Result<Self> {
        let socket = socket::socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        // Port 0 is the kernel. A connected socket receives from the kernel alone.
        socket::connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(wait_ms))?;
        setsockopt(&socket, sockopt::SendTimeout, &TimeVal::milliseconds(wait_ms))?;
        if setsockopt(&socket, sockopt::RcvBufForce, &buffer).is_err() {
            // In a container the limit applies. There is then less room for errors, and losing them is an error too.
            setsockopt(&socket, sockopt::RcvBuf, &buffer)?;
        }
        short_errors(&socket)?;
        Ok(Self(socket))
    }

    /// Bytes that fit into one request.
    pub(crate) fn room(&self) -> usize {
        getsockopt(&self.0, sockopt::SndBuf).unwrap_or(0).saturating_sub(SEND_OVERHEAD)
    }

    /// Asks for a larger send buffer. In a container the system's limit applies.
    pub(crate) fn grow(&self, bytes: usize) {
        if setsockopt(&self.0, sockopt::SndBufForce, &bytes).is_err() {
            let _ = setsockopt(&self.0, sockopt::SndBuf, &bytes);
        }
    }

    /// Sends a request. Returns the number of bytes sent.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn send(&self, bytes: &[u8]) -> nix::Result<usize> {
        loop {
            match socket::send(self.0.as_raw_fd(), bytes, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                other => return other,
            }
        }
    }

    /// Receives one datagram. Returns its length, which is larger than the buffer's if the rest was cut off.
    ///
    /// # Errors
    /// The system's error. `EAGAIN` means that there was none, and `ENOBUFS` that some were lost for want of room.
    pub(crate) fn receive(&self, buffer: &mut [u8], wait: bool) -> nix::Result<usize> {
        let flags = if wait { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
        loop {
            match socket::recv(self.0.as_raw_fd(), buffer, flags | MsgFlags::MSG_TRUNC) {
                Err(Errno::EINTR) => {}
                other => return other,
            }
        }
    }
}

/// Stops the kernel from repeating a refused request, which may be large, in its answer.
fn short_errors(socket: &OwnedFd) -> io::Result<()> {
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
