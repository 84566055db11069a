//! A thread of its own for the election, ahead of everything that merely uses the processor.
#![allow(unsafe_code)] // sched_setscheduler(2) has no safe wrapper in libc or nix

use std::io;

/// Above all ordinary threads and below what kernels run at 50 (threaded interrupts): the network must come before us.
const PRIORITY: libc::c_int = 20;

/// Puts the calling thread under `SCHED_FIFO`. What it starts does not inherit that.
///
/// # Errors
/// The system's; EPERM without `CAP_SYS_NICE` or a sufficient `RLIMIT_RTPRIO`.
pub(super) fn raise() -> io::Result<()> {
    let param = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: 0 is the calling thread, and `param` lives through the call, which only reads it.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const param) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
