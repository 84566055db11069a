//! Watches the server's process. A pidfd reports its death at once; `/proc` reports states that are as bad as death
//! (stopped, or a zombie that nobody has reaped).

use super::hysteresis::Sample;
use super::probe::{Observation, Probe, ticks};
use super::report::WatchedProcess;
use crate::config::{Check, Process};
use crate::os::pidfd::pidfd_open;
use crate::os::process::{Stat, comm, processes, stat, unix_ms_of};
use crate::os::readiness::watch;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Interval, sleep};

/// Mount points of control groups: v2, then the places that systemd uses on v1 and hybrid hosts.
const CGROUPS: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"];
/// Slices nest a few levels (`system.slice/system-asterisk.slice/asterisk@1.service`); anything deeper is inside a
/// container.
const MAX_DEPTH: usize = 6;
/// On a host with more control groups each search would take too long; the unit counts as not found.
const MAX_GROUPS: usize = 20_000;
/// A pidfile holds a number; a longer file is something else.
const MAX_PIDFILE: u64 = 64;

/// How to find the process.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// By the number in a file.
    Pidfile(PathBuf),
    /// By its name as in `/proc/PID/comm`.
    Name(String),
    /// By the control group of a systemd unit.
    Unit(String),
}

/// Why there is no process to watch, in words for the status.
#[derive(Debug, thiserror::Error)]
pub(super) enum Gone {
    #[error("the pidfile {0} does not exist")]
    NoPidfile(PathBuf),
    #[error("cannot read the pidfile {0}: {1}")]
    Unreadable(PathBuf, io::Error),
    #[error("the pidfile {0} contains no process id")]
    NoNumber(PathBuf),
    #[error("process {0} (from {1}) does not exist")]
    Stale(i32, PathBuf),
    #[error("no process has the name {0:?}")]
    NoName(String),
    #[error("unit {0} has no process")]
    NoUnit(String),
    #[error(
        "systemd does not run on this host, so unit {0} cannot be watched: use `pidfile` or `name` instead of `unit`"
    )]
    NoSystemd(String),
    #[error("cannot watch process {0}: {1}")]
    NoWatch(i32, io::Error),
}

/// A watched process.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) pid: i32,
    started: u64,
    fd: AsyncFd<OwnedFd>,
}

/// Watches one process, and the next one when that has ended or is no longer the target.
#[derive(Debug)]
pub(super) struct ProcessCheck {
    target: Target,
    interval: Duration,
    watched: Option<Watched>,
    /// No process is there to watch: look again after the interval.
    pause: bool,
}

#[derive(Debug)]
struct Watched {
    process: Attached,
    tick: Interval,
    /// The last look's sample, until it is known whether the process is still the target.
    seen: Option<Sample>,
}

impl ProcessCheck {
    /// The check of this process; `None` if the configuration names none.
    pub(super) fn of(process: &Process, check: &Check) -> Option<Self> {
        Some(Self { target: Target::of(process)?, interval: check.interval, watched: None, pause: false })
    }

    fn leave(&mut self) {
        (self.watched, self.pause) = (None, true);
    }
}

impl Probe for ProcessCheck {
    async fn next(&mut self) -> Observation {
        loop {
            if std::mem::take(&mut self.pause) {
                sleep(self.interval).await;
            }
            let Some(watched) = &mut self.watched else {
                match self.target.attach() {
                    Ok(process) => {
                        self.watched = Some(Watched { process, tick: ticks(self.interval), seen: None });
                        continue;
                    }
                    Err(gone) => {
                        self.leave();
                        // A missing pidfile may only be in another place.
                        let ended = matches!(gone, Gone::NoName(_) | Gone::NoUnit(_) | Gone::Stale(..));
                        return dead(gone.to_string(), ended);
                    }
                }
            };
            if watched.seen.take().is_some_and(|seen| watched.process.is_over(&self.target, seen)) {
                self.leave();
                continue;
            }
            let ended = tokio::select! {
                biased;
                () = watched.process.ended() => true,
                _ = watched.tick.tick() => false,
            };
            if ended {
                let pid = watched.process.pid;
                self.leave();
                return dead(format!("process {pid} has ended"), true);
            }
            let (sample, detail) = watched.process.look();
            watched.seen = Some(sample);
            let process = watched.process.now();
            return Observation { sample, detail, took: Duration::ZERO, process };
        }
    }
}

fn dead(detail: String, ended: bool) -> Observation {
    let process = ended.then_some(WatchedProcess::Ended);
    Observation { sample: Sample::Dead, detail, took: Duration::ZERO, process }
}

impl Attached {
    /// The process's state, as a result.
    fn look(&self) -> (Sample, String) {
        let pid = self.pid;
        match self.stat().map(|s| s.state) {
            None | Some('Z' | 'X') => (Sample::Dead, format!("process {pid} has ended")),
            Some('T') => (Sample::Dead, format!("process {pid} is stopped")),
            // A tracer stops its process for a moment at each system call: only a run of such results is a failure.
            Some('t') => (Sample::Bad, format!("process {pid} is stopped by a debugger")),
            Some(_) => (Sample::Good, format!("process {pid} is running")),
        }
    }

    /// The process for the report. A zombie runs no more.
    fn now(&self) -> Option<WatchedProcess> {
        match self.stat().map(|s| s.state) {
            None | Some('Z' | 'X') => Some(WatchedProcess::Ended),
            Some(_) => Some(WatchedProcess::Running { since_ms: unix_ms_of(self.started)? }),
        }
    }

    /// Whether to look for another process after a result.
    ///
    /// A zombie may wait for its parent for ever beside its replacement, and a server may be replaced while the old
    /// process still ends its calls. If the file or unit is gone for the moment, nothing changes: this process runs.
    fn is_over(&self, target: &Target, seen: Sample) -> bool {
        let replaced = !target.is(self.pid) && target.find().is_ok_and(|now| now != self.pid);
        replaced || (seen == Sample::Dead && self.stat().is_none_or(|s| s.state == 'Z'))
    }

    /// Waits for the end of the process; the kernel wakes the task at that moment.
    pub(super) async fn ended(&self) {
        // epoll only fails on a closed descriptor, and this one is ours and open. If it fails all the same, the watch
        // is over, and the process counts as ended.
        let _ = self.fd.readable().await;
    }

    /// The process's current state; `None` if it has ended (or its number belongs to another process).
    pub(super) fn stat(&self) -> Option<Stat> {
        stat(self.pid).filter(|s| s.started == self.started)
    }
}

impl Target {
    /// The target in the configuration; `None` without one.
    pub(super) fn of(process: &Process) -> Option<Self> {
        match process {
            Process { pidfile: Some(path), .. } => Some(Self::Pidfile(path.clone())),
            Process { name: Some(name), .. } => Some(Self::Name(name.clone())),
            Process { unit: Some(unit), .. } => Some(Self::Unit(unit.clone())),
            _ => None,
        }
    }

    /// Finds the process and attaches to it. Must run in a tokio runtime.
    pub(super) fn attach(&self) -> Result<Attached, Gone> {
        let pid = self.find()?;
        let fd = pidfd_open(pid).map_err(|e| Gone::NoWatch(pid, e))?;
        // Between finding and opening, the number may have passed to another process. Then it is the wrong one, and the
        // next look finds the right one.
        let started = stat(pid)
            .filter(|_| self.is(pid))
            .ok_or_else(|| Gone::NoWatch(pid, io::ErrorKind::NotFound.into()))?
            .started;
        let fd = watch(fd, Interest::READABLE).map_err(|e| Gone::NoWatch(pid, e))?;
        Ok(Attached { pid, started, fd })
    }

    /// The process to watch now. Of several (a server with worker processes), the one that started the others; of
    /// several such, the oldest.
    pub(super) fn find(&self) -> Result<i32, Gone> {
        match self {
            Self::Pidfile(path) => {
                let text = pidfile(path)?;
                let pid = text.trim().parse().ok().filter(|p| *p > 0).ok_or_else(|| Gone::NoNumber(path.clone()))?;
                if stat(pid).is_some() { Ok(pid) } else { Err(Gone::Stale(pid, path.clone())) }
            }
            Self::Name(name) => first(processes().filter(|pid| comm(*pid).as_ref() == Some(name)))
                .ok_or_else(|| Gone::NoName(name.clone())),
            Self::Unit(unit) => {
                let group = CGROUPS.iter().find_map(|root| group_of(Path::new(root), unit));
                match group {
                    Some(group) => first(members(&group).into_iter()).ok_or_else(|| Gone::NoUnit(unit.clone())),
                    // sd_booted(3): this directory exists only where systemd runs.
                    None if !Path::new("/run/systemd/system").exists() => Err(Gone::NoSystemd(unit.clone())),
                    None => Err(Gone::NoUnit(unit.clone())),
                }
            }
        }
    }

    /// Whether `pid` is still the target; cheaper than [`Target::find`] where that walks over all processes.
    pub(super) fn is(&self, pid: i32) -> bool {
        match self {
            Self::Name(name) => comm(pid).as_ref() == Some(name),
            Self::Pidfile(_) | Self::Unit(_) => self.find().ok() == Some(pid),
        }
    }
}

fn pidfile(path: &Path) -> Result<String, Gone> {
    use io::Read as _;
    let read = || {
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut text = String::new();
        fs::File::open(path)?.take(MAX_PIDFILE).read_to_string(&mut text)?;
        Ok(text)
    };
    read().map_err(|e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => Gone::NoPidfile(path.to_owned()),
        _ => Gone::Unreadable(path.to_owned(), e),
    })
}

/// The oldest process without a parent in the set. Zombies count only if there is nothing else.
fn first(pids: impl Iterator<Item = i32>) -> Option<i32> {
    let all: Vec<(i32, Stat)> = pids.filter_map(|pid| Some((pid, stat(pid)?))).collect();
    let alive: BTreeSet<i32> = all.iter().filter(|(_, s)| s.state != 'Z').map(|(pid, _)| *pid).collect();
    let counted = |pid: &i32| alive.is_empty() || alive.contains(pid);
    all.iter()
        .filter(|(pid, s)| counted(pid) && !alive.contains(&s.parent))
        .min_by_key(|(pid, s)| (s.started, *pid))
        .map(|(pid, _)| *pid)
}

/// The control group of `unit` below `root`.
fn group_of(root: &Path, unit: &str) -> Option<PathBuf> {
    // Nearly every service is here; the search serves the rest.
    let usual = root.join("system.slice").join(unit);
    if usual.join("cgroup.procs").exists() {
        return Some(usual);
    }
    let mut seen = 0;
    let mut level = vec![root.to_owned()];
    for _ in 0..MAX_DEPTH {
        let mut below = Vec::new();
        for directory in level {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                // A symbolic link (v1 has some between controllers) is no directory here, so no group is walked twice.
                if !entry.file_type().is_ok_and(|t| t.is_dir()) {
                    continue;
                }
                seen += 1;
                if entry.file_name().to_str() == Some(unit) && entry.path().join("cgroup.procs").exists() {
                    return Some(entry.path());
                }
                below.push(entry.path());
            }
            if seen > MAX_GROUPS {
                return None;
            }
        }
        level = below;
    }
    None
}

/// The processes of a control group and of the groups inside it (a service may create some: `Delegate=`).
fn members(group: &Path) -> Vec<i32> {
    let mut pids = Vec::new();
    let mut left = vec![(group.to_owned(), 0)];
    while let Some((directory, depth)) = left.pop() {
        let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        pids.extend(text.lines().filter_map(|l| l.trim().parse::<i32>().ok()).filter(|p| *p > 0));
        if depth < MAX_DEPTH {
            let inner = fs::read_dir(directory).into_iter().flatten().flatten();
            left.extend(inner.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| (e.path(), depth + 1)));
        }
    }
    pids
}

#[cfg(test)]
mod tests;
