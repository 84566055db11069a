//! Raises the election's own thread above all threads of ordinary priority.
#![allow(unsafe_code)] // sched_setscheduler(2) has no safe wrapper in libc or nix

use std::io;

/// Above all ordinary threads and below the kernel's threaded interrupts at 50: the network must come first.
const PRIORITY: libc::c_int = 20;

/// Puts the calling thread under `SCHED_FIFO`. Its children do not inherit the policy.
///
/// # Errors
/// The system's error: EPERM without `CAP_SYS_NICE` or a sufficient `RLIMIT_RTPRIO`.
pub(super) fn raise() -> io::Result<()> {
    let param = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: 0 is the calling thread. `param` lives through the call, which only reads it.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const param) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
