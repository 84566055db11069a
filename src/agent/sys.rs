//! How the C library is to hand out memory.
#![allow(unsafe_code)] // mallopt(3) has no safe wrapper in libc or nix

/// One heap for all threads. glibc makes one for each thread that meets another in the allocator, and what each has used once
/// stays in it. This agent's threads are few and seldom allocate at the same time. Other C libraries have one heap anyway.
pub(super) fn one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes two integers, and sets a limit that is looked at when a heap would be made.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
