//! Registration of descriptors with the runtime.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// An owner of a descriptor.
///
/// # Safety
/// `as_raw_fd` always returns the same descriptor, which stays open for as long as the value lives.
pub(crate) unsafe trait Owner: AsRawFd {}

// SAFETY: an OwnedFd never changes its descriptor, and closes it only when it drops.
unsafe impl Owner for OwnedFd {}

/// Lets the runtime watch a descriptor. Must run in a tokio runtime.
///
/// # Errors
/// `EMFILE` and the like.
pub(crate) fn watch<T: Owner>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: that is what an Owner promises, and the AsyncFd keeps it.
    unsafe { AsyncFd::register_with_interest(owner, interest) }.map_err(io::Error::from)
}
