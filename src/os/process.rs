//! Facts about processes and threads, from the kernel and from `/proc` (proc(5)).

use super::clock;
use crate::time::Time;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, SysconfVar, gettid, sysconf};
use std::fs;

/// Fields of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) state: char,
    pub(crate) parent: i32,
    /// In ticks since boot.
    pub(crate) started: u64,
}

/// The number of the calling thread.
pub(crate) fn this_thread() -> i32 {
    gettid().as_raw()
}

/// Kills every process of a group. A group that is gone is what was asked for.
pub(crate) fn kill_group(group: i32) {
    let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
}

/// The numbers of all processes.
pub(crate) fn processes() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok())
}

/// The name that the kernel knows a process by.
pub(crate) fn comm(pid: i32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.strip_suffix('\n').unwrap_or(&name).to_owned())
}

/// The state of a process; `None` if there is none with this number.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    let line = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&String::from_utf8_lossy(&line))
}

/// Wall-clock milliseconds since 1970 of a moment in ticks since boot, by the present clocks. `None` if the kernel tells
/// no length of a tick.
pub(crate) fn unix_ms_of(ticks: u64) -> Option<u64> {
    let per_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok().filter(|t| *t > 0)?;
    // Both count from boot, and go on while the host is suspended (proc(5), `starttime`).
    let since_boot = u64::try_from(clock::now().since(Time::ZERO).as_millis()).ok()?;
    let ago = since_boot.saturating_sub(ticks.saturating_mul(1000) / per_second);
    Some(clock::unix_ms().saturating_sub(ago))
}

/// Fields 3 (state), 4 (parent) and 22 (start, in ticks since boot) of proc(5). The name before them may hold spaces
/// and parentheses, so the count starts at the last parenthesis.
fn parse_stat(line: &str) -> Option<Stat> {
    let fields = line.rsplit_once(')')?.1;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some(Stat { state, parent, started })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_a_name_with_parentheses() {
        let s = parse_stat("7 (a) R (b) S 3 7 7 0 -1 4194304 1 0 0 0 2 3 0 0 20 0 1 0 9876 1 1").unwrap();
        assert_eq!((s.state, s.parent, s.started), ('S', 3, 9876));
        assert!(parse_stat("7 (a").is_none() && parse_stat("7 (a) S").is_none());
    }
}
