//! Scheduling of threads.

use std::io;

/// Above all ordinary threads and below the kernel's threaded interrupts at 50: the network must come first.
const PRIORITY: libc::c_int = 20;

/// Puts the calling thread under `SCHED_FIFO`. Its children do not inherit the policy.
///
/// # Errors
/// The system's error: EPERM without `CAP_SYS_NICE` or a sufficient `RLIMIT_RTPRIO`.
pub(crate) fn raise() -> io::Result<()> {
    let param = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: 0 is the calling thread. `param` lives through the call, which only reads it.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const param) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Just below the election's own thread (20), because kernel lease renewals wait for jobs that run here.
const AHEAD: libc::c_int = 19;

/// Runs `job`, which must be short, at real-time priority; at ordinary priority if the system denies it.
pub(crate) fn ahead<T>(job: impl FnOnce() -> T) -> T {
    /// Restores the thread's priority even if the job panics, because the thread belongs to a pool.
    struct Back;
    impl Drop for Back {
        fn drop(&mut self) {
            let _ = schedule(libc::SCHED_OTHER, 0);
        }
    }
    let _back = schedule(libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, AHEAD).is_ok().then_some(Back);
    job()
}

fn schedule(policy: libc::c_int, priority: libc::c_int) -> io::Result<()> {
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: 0 is the calling thread, and `param` outlives the call, which only reads it.
    let done = unsafe { libc::sched_setscheduler(0, policy, &raw const param) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives a thread of this process only idle processor time.
///
/// # Errors
/// The system's error.
pub(crate) fn idle_thread(thread: i32) -> io::Result<()> {
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: `param` outlives the call, which only reads it. An ended thread is an error.
    let done = unsafe { libc::sched_setscheduler(thread, libc::SCHED_IDLE, &raw const param) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
