//! Waits for missing resources at the start: in one process, with growing pauses, and with one report per problem.
//!
//! Before this node may take any role it needs the control socket, the settings of etcd, the cluster's key and the
//! heartbeat port. Before it may take the role of one instance it needs, in this order: the interface and the kernel
//! lease, the address monitor, the announcement socket, the conflict watch, and for calls the recovery ports, the
//! capture, HEP, the server's port, the relay and the fence. `starting.rs` opens them. etcd itself need not answer,
//! because without etcd no node is elected.

use crate::time::Time;
use std::time::Duration;

/// The first pause: a resource that was released a moment ago is available soon.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause: the agent notices a manual repair within seconds.
const LONGEST: Duration = Duration::from_secs(3);

/// The retry state for missing resources.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    tries: u32,
    /// What is missing, in the user's words.
    why: Option<String>,
    next: Option<Time>,
    since: Option<Time>,
}

impl Waiting {
    /// Records a failed try. Returns whether the reason is new.
    pub(super) fn failed(&mut self, why: &str, now: Time) -> bool {
        let pause = FIRST.saturating_mul(2_u32.saturating_pow(self.tries)).min(LONGEST);
        self.tries = self.tries.saturating_add(1);
        self.next = Some(now + pause);
        self.since.get_or_insert(now);
        let news = self.why.as_deref() != Some(why);
        self.why = Some(why.to_owned());
        news
    }

    /// The time of the next try.
    pub(super) fn next(&self) -> Time {
        self.next.unwrap_or(Time::ZERO)
    }

    /// How long the wait has lasted.
    pub(super) fn lasts(&self, now: Time) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// What is missing, for `status`; `None` before the first failure.
    pub(super) fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }
}

#[cfg(test)]
mod tests;
