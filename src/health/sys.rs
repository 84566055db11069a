//! The one system call without a wrapper in our crates, and its registration with the runtime.
#![allow(unsafe_code)] // pidfd_open(2) has no safe wrapper in libc or nix; AsyncFd's constructors that are not deprecated are unsafe

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor that becomes readable when process `pid` ends. Needs no rights over the process.
///
/// # Errors `ESRCH` if there is no such process; `ENOSYS` before Linux 5.3.
pub(super) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and no pointer.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just created this descriptor for us (with close-on-exec set), and nothing else holds
        // it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets the runtime watch a pidfd. Must run in a tokio runtime.
///
/// # Errors
/// `EMFILE` and the like.
pub(super) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd always returns the same descriptor, and keeps it open for the life of the AsyncFd that holds
    // it.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}
