//! Runs the checks of one instance, one task each, and joins their states.

use super::hysteresis::{Hysteresis, Sample};
use super::options::Options;
use super::process::{Attached, Target};
use super::{CheckState, CheckStatus, Probe, Verdict};
use crate::config::Check;
use crate::os::clock;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// A server that starts with the agent needs some seconds to answer. Until then it is "unknown", which is not fit
/// either, but does not read as a failure.
const START_GRACE: Duration = Duration::from_secs(10);

/// The running checks of one instance.
#[derive(Debug)]
pub struct Monitor {
    verdict: watch::Sender<Verdict>,
}

impl Monitor {
    /// Starts a task for each check. The receiver always holds the newest results, and is notified when a state or the
    /// summary changes. The tasks end with the last receiver. Must be called in a tokio runtime.
    #[must_use]
    pub fn start(checks: &[Check]) -> watch::Receiver<Verdict> {
        let since_ms = clock::unix_ms();
        let status =
            |c: &Check| CheckStatus { name: c.name.clone(), fatal: c.fatal, since_ms, ..CheckStatus::default() };
        let (verdict, receiver) = watch::channel(Verdict::of(checks.iter().map(status).collect()));
        let monitor = Arc::new(Self { verdict });
        for (index, check) in checks.iter().enumerate() {
            let check = check.clone();
            let monitor = Arc::clone(&monitor);
            tokio::spawn(async move {
                let runner = Runner {
                    hysteresis: Hysteresis::new(check.rise, check.fall, START_GRACE, clock::now()),
                    monitor: &monitor,
                    check: &check,
                    index,
                };
                tokio::select! {
                    () = runner.run() => {}
                    () = monitor.verdict.closed() => {}
                }
            });
        }
        receiver
    }

    /// Enters the state of one check. Wakes the receivers only for changes that they act on or show at once.
    fn report(&self, index: usize, state: CheckState, changed: bool, last: Probe) {
        self.verdict.send_if_modified(|verdict| {
            let mut checks = std::mem::take(&mut verdict.checks);
            if let Some(check) = checks.get_mut(index) {
                if changed {
                    check.since_ms = clock::unix_ms();
                }
                check.state = state;
                check.last = Some(last);
            }
            let before = (verdict.fit, std::mem::take(&mut verdict.summary));
            *verdict = Verdict::of(checks);
            changed || before != (verdict.fit, verdict.summary.clone())
        });
    }
}

/// A running check.
struct Runner<'a> {
    monitor: &'a Monitor,
    check: &'a Check,
    index: usize,
    hysteresis: Hysteresis,
}

impl Runner<'_> {
    async fn run(mut self) {
        if let Some(config) = &self.check.sip_options {
            let options = Options::new(config);
            self.ask(options).await;
        } else if let Some(target) = self.check.process.as_ref().and_then(Target::of) {
            self.watch(target).await;
        }
    }

    fn report(&mut self, sample: Sample, detail: String, took: Duration) {
        let changed = self.hysteresis.handle(sample, clock::now());
        let state = self.hysteresis.state();
        if changed {
            let name = &self.check.name;
            match state {
                CheckState::Failed => tracing::warn!(check = name, %detail, "check failed"),
                _ => tracing::info!(check = name, %detail, "check is good"),
            }
        }
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.monitor.report(self.index, state, changed, Probe { ok: sample == Sample::Good, detail, took_ms });
    }

    async fn ask(&mut self, mut options: Options) {
        let mut tick = interval(self.check.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let probe = options.probe(self.check.timeout).await;
            let sample = if probe.ok { Sample::Good } else { Sample::Bad };
            self.report(sample, probe.detail, Duration::from_millis(probe.took_ms));
        }
    }

    async fn watch(&mut self, target: Target) {
        loop {
            match target.attach() {
                Ok(process) => self.stay(&target, &process).await,
                Err(gone) => self.report(Sample::Dead, gone.to_string(), Duration::ZERO),
            }
            sleep(self.check.interval).await;
        }
    }

    /// Watches one process until it ends or is no longer the target.
    async fn stay(&mut self, target: &Target, process: &Attached) {
        let pid = process.pid;
        let mut tick = interval(self.check.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = process.ended() => {
                    return self.report(Sample::Dead, format!("process {pid} has ended"), Duration::ZERO);
                }
                _ = tick.tick() => {}
            }
            let (sample, detail) = match process.stat().map(|s| s.state) {
                None | Some('Z' | 'X') => (Sample::Dead, format!("process {pid} has ended")),
                Some('T') => (Sample::Dead, format!("process {pid} is stopped")),
                // A tracer stops its process for a moment at each system call: only a run of such results is a failure.
                Some('t') => (Sample::Bad, format!("process {pid} is stopped by a debugger")),
                Some(_) => (Sample::Good, format!("process {pid} is running")),
            };
            let dead = sample == Sample::Dead;
            self.report(sample, detail, Duration::ZERO);
            // A zombie may wait for its parent for ever beside its replacement, and a server may be replaced while the
            // old process still ends its calls: look again. If the file or unit is gone for the moment, nothing
            // changes: this process runs.
            let replaced = !target.is(pid) && target.find().is_ok_and(|now| now != pid);
            if replaced || (dead && process.stat().is_none_or(|s| s.state == 'Z')) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
