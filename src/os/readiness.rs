//! Registration of descriptors with the runtime.

use socket2::Socket;
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers the socket with the tokio runtime, for reading. The removal of an interface shows as an error only.
pub(crate) fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a Socket owns its descriptor. The descriptor stays the same while the Socket lives and is closed only
    // when it drops.
    unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE | Interest::ERROR) }.map_err(io::Error::from)
}

/// Lets the runtime watch a pidfd. Must run in a tokio runtime.
///
/// # Errors
/// `EMFILE` and the like.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd always returns the same descriptor, and keeps it open for the life of the AsyncFd that holds
    // it.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}

/// Lets the runtime watch a descriptor for input. Must run in a tokio runtime.
pub(crate) fn readable(fd: std::os::fd::OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>> {
    // SAFETY: an OwnedFd always returns the same descriptor and keeps it open for the life of the AsyncFd that holds
    // it.
    unsafe { tokio::io::unix::AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) }
        .map_err(io::Error::from)
}
