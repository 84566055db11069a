//! One heap, and memory that stays locked.

use std::io;

/// The bit of `CAP_IPC_LOCK` in a capability set (capabilities(7)).
const CAP_IPC_LOCK: u32 = 14;

/// One heap for all threads. glibc makes a heap for each thread that meets contention in the allocator, and memory once
/// used stays in that heap. This agent has few threads, and they seldom allocate at the same time. Other C libraries
/// have one heap anyway.
pub(crate) fn one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes two integers and sets a limit that glibc checks before it makes a heap.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Locks all memory of this process, each page from its first use on, because an agent that waits for a disk loses its
/// right. Unused pages stay unused, so the lock costs no memory.
///
/// # Errors
/// The system's error, or `PermissionDenied` without `CAP_IPC_LOCK`: with only a resource limit, later allocations
/// could fail.
pub(crate) fn lock_memory() -> io::Result<()> {
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

/// Reads this program and its libraries into memory completely, and locks them there. A takeover may run code for the
/// first time, and would otherwise read it from the disk page by page, behind all other disk work.
///
/// # Errors
/// The system's error. Parts already read stay locked.
pub(crate) fn load_program() -> io::Result<()> {
    for (start, length) in program(&std::fs::read_to_string("/proc/self/maps")?) {
        // SAFETY: mlock neither reads nor changes our memory. An unmapped range is an error.
        if unsafe { libc::mlock(start as *const libc::c_void, length) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The start and length of each readable, non-writable file mapping: code and constants (proc_pid_maps(5)).
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
