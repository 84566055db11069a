//! Scheduling of threads (sched(7)).

use std::io;

/// The election's own thread: above all ordinary threads and below the kernel's threaded interrupts at 50, because the
/// network must come first.
const ELECTION: libc::c_int = 20;
/// Just below the election, because kernel lease renewals wait for jobs that run here.
const AHEAD: libc::c_int = 19;

/// Puts the calling thread under `SCHED_FIFO`, with the election's priority. Its children do not inherit the policy.
///
/// # Errors
/// The system's error: EPERM without `CAP_SYS_NICE` or a sufficient `RLIMIT_RTPRIO`.
pub(crate) fn raise() -> io::Result<()> {
    schedule(THIS, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, ELECTION)
}

/// Runs `job`, which must be short, at real-time priority; at ordinary priority if the system denies it.
pub(crate) fn ahead<T>(job: impl FnOnce() -> T) -> T {
    /// Restores the thread's priority even if the job panics, because the thread belongs to a pool.
    struct Back;
    impl Drop for Back {
        fn drop(&mut self) {
            let _ = schedule(THIS, libc::SCHED_OTHER, 0);
        }
    }
    let _back = schedule(THIS, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, AHEAD).is_ok().then_some(Back);
    job()
}

/// Gives a thread of this process only idle processor time.
///
/// # Errors
/// The system's error. An ended thread is one.
pub(crate) fn idle_thread(thread: i32) -> io::Result<()> {
    schedule(thread, libc::SCHED_IDLE, 0)
}

/// Stands for the calling thread.
const THIS: i32 = 0;

fn schedule(thread: i32, policy: libc::c_int, priority: libc::c_int) -> io::Result<()> {
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: `param` outlives the call, which only reads it.
    let done = unsafe { libc::sched_setscheduler(thread, policy, &raw const param) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
