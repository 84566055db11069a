//! A program on a host of the lab.

use super::wait;
use anyhow::{Context, Result, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// A cold start of Asterisk reads some 60 modules from disk.
const READY: Duration = Duration::from_secs(60);

/// A running program. Dropping it kills the program.
pub struct Proc {
    child: Child,
    /// File of the program's output.
    pub log: PathBuf,
}

impl Proc {
    /// Takes a started program with its output in `log`.
    pub const fn new(child: Child, log: PathBuf) -> Self {
        Self { child, log }
    }

    /// Process id of the program.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("process id")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot send {signal} to {pid}"))
    }

    /// The process and its descendants, the youngest generation first.
    pub fn family(&self) -> Result<Vec<Pid>> {
        let mut parents = Vec::new();
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
            // A process that has ended meanwhile is nobody's child. The name, in parentheses, may contain anything.
            let text = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let parent =
                text.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<i32>().ok());
            parents.extend(parent.map(|parent| (pid, parent)));
        }
        let mut family = vec![i32::try_from(self.child.id()).context("process id")?];
        let mut next = 0;
        while let Some(&one) = family.get(next) {
            family.extend(parents.iter().filter(|(_, parent)| *parent == one).map(|(pid, _)| *pid));
            next += 1;
        }
        Ok(family.into_iter().rev().map(Pid::from_raw).collect())
    }

    /// The exit status, if the program has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until `ready` has no objection. Fails at once if the program has ended.
    pub fn wait_ready(&mut self, name: &str, mut ready: impl FnMut() -> Result<(), String>) -> Result<()> {
        wait::until(&format!("{name} to be ready"), READY, || match self.ended() {
            Ok(Some(status)) => Ok(Err(anyhow!("{name} ended with {status}: {}", self.tail()))),
            _ => ready().map(Ok).map_err(|why| format!("{why}\n{}", self.tail())),
        })?
    }

    /// Asks the program to stop, and kills it after `limit`. Returns whether the program stopped by itself.
    pub fn stop(&mut self, limit: Duration) -> Result<bool> {
        if self.ended()?.is_some() {
            return Ok(true);
        }
        self.signal(Signal::SIGTERM)?;
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if self.ended()?.is_some() {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
        Ok(false)
    }

    /// Kills the program.
    pub fn kill(&mut self) {
        // If the program has ended already, there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The last lines of the output, for an error message.
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

/// Sends a signal to all of these processes, in this order. Skips those that have ended.
pub fn signal_all(pids: &[Pid], signal: Signal) -> Result<()> {
    for &pid in pids {
        match kill(pid, signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(e) => return Err(e).with_context(|| format!("cannot send {signal} to {pid}")),
        }
    }
    Ok(())
}

impl Drop for Proc {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_program_that_ends_is_not_waited_for() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let child =
            Command::new("sh").args(["-c", "echo no such module; exit 3"]).stdout(log.reopen().unwrap()).spawn();
        let mut proc = Proc::new(child.unwrap(), log.path().to_owned());
        let why = proc.wait_ready("sh", || Err("not yet".to_owned())).unwrap_err().to_string();
        assert!(why.starts_with("sh ended with") && why.ends_with("no such module"), "{why}");
    }
}
