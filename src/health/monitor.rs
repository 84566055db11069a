//! Runs the checks of one instance, one task each, and joins their states.

use super::hysteresis::{Hysteresis, Sample};
use super::kinds::CheckKind;
use super::probe::{Observation, Probe as _};
use super::report::WatchedProcess;
use super::{CheckState, CheckStatus, ProbeResult, Verdict};
use crate::config::Check;
use crate::os::clock;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

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
            let Some(probe) = CheckKind::of(check) else { continue };
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
                    () = runner.run(probe) => {}
                    () = monitor.verdict.closed() => {}
                }
            });
        }
        receiver
    }

    /// Enters the state of one check. Wakes the receivers only for changes that they act on or show at once.
    fn report(
        &self,
        index: usize,
        state: CheckState,
        changed: bool,
        last: ProbeResult,
        process: Option<WatchedProcess>,
    ) {
        self.verdict.send_if_modified(|verdict| {
            let since = verdict.server_since_ms();
            let mut checks = std::mem::take(&mut verdict.checks);
            if let Some(check) = checks.get_mut(index) {
                if changed {
                    check.since_ms = clock::unix_ms();
                }
                check.state = state;
                check.last = Some(last);
                check.process = process.or(check.process);
            }
            let before = (verdict.fit, std::mem::take(&mut verdict.summary), since);
            *verdict = Verdict::of(checks);
            changed || before != (verdict.fit, verdict.summary.clone(), verdict.server_since_ms())
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
    async fn run(mut self, mut probe: CheckKind) {
        loop {
            let result = probe.next().await;
            self.report(result);
        }
    }

    fn report(&mut self, Observation { sample, detail, took, process }: Observation) {
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
        let last = ProbeResult { ok: sample == Sample::Good, detail, took_ms };
        self.monitor.report(self.index, state, changed, last, process);
    }
}

#[cfg(test)]
mod tests;
