//! Descriptors of processes (pidfd_open(2)).

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

/// A descriptor that becomes readable when process `pid` ends. Needs no rights over the process.
///
/// # Errors `ESRCH` if there is no such process; `ENOSYS` before Linux 5.3.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and no pointer.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just created this descriptor for us (with close-on-exec set), and nothing else holds
        // it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
