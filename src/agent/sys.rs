//! How memory is handed out and kept, and how a thread that never ends is kept from the processor.
#![allow(unsafe_code)] // mallopt(3), mlockall(2) with MCL_ONFAULT and sched_setscheduler(2) have no safe wrapper in libc or nix

use std::io;

/// The bit of `CAP_IPC_LOCK` in a capability set (capabilities(7)).
const CAP_IPC_LOCK: u32 = 14;

/// One heap for all threads. glibc makes one for each thread that meets another in the allocator, and what each has used once
/// stays in it. This agent's threads are few and seldom allocate at the same time. Other C libraries have one heap anyway.
pub(super) fn one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes two integers, and sets a limit that is looked at when a heap would be made.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Keeps all memory of this process from being swapped out, each page from its first use on: an agent that waits for a disk
/// loses its right. Pages that are never used stay unused, so this costs no memory.
///
/// # Errors
/// The system's, or `PermissionDenied` without `CAP_IPC_LOCK`: with a mere limit, later allocations could fail.
pub(super) fn lock_memory() -> io::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let effective =
        status.lines().find_map(|l| l.strip_prefix("CapEff:")).and_then(|v| u64::from_str_radix(v.trim(), 16).ok());
    if effective.is_none_or(|set| set & 1 << CAP_IPC_LOCK == 0) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    // SAFETY: the call takes flags only.
    let done = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives a thread of this process only the processor's time that nobody else wants.
///
/// # Errors
/// The system's.
pub(super) fn idle_thread(thread: i32) -> io::Result<()> {
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: `param` lives through the call, which only reads it; a thread that is gone is an error.
    let done = unsafe { libc::sched_setscheduler(thread, libc::SCHED_IDLE, &raw const param) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads this program and its libraries into memory, whole, and keeps them there. What a takeover needs may never have run before,
/// and would come from the disk page by page in that moment, behind whatever else the disk does.
///
/// # Errors
/// The system's; what was read by then stays.
pub(super) fn load_program() -> io::Result<()> {
    for (start, length) in program(&std::fs::read_to_string("/proc/self/maps")?) {
        // SAFETY: mlock reads no memory of ours and changes none; a range that is no longer mapped is an error.
        if unsafe { libc::mlock(start as *const libc::c_void, length) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Start and length of each part of a file that is mapped and not writable: code and constants (proc_pid_maps(5)).
fn program(maps: &str) -> Vec<(usize, usize)> {
    let part = |line: &str| {
        let mut words = line.split_whitespace();
        let (from, to) = words.next()?.split_once('-')?;
        let rights = words.next()?;
        let path = words.nth(3)?;
        let (from, to) = (usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?);
        let wanted = rights.starts_with('r') && rights.as_bytes().get(1) == Some(&b'-') && path.starts_with('/');
        wanted.then(|| (from, to.saturating_sub(from)))
    };
    maps.lines().filter_map(part).collect()
}

#[cfg(test)]
mod tests;
