//! What is waited for at the start, and how: in one process, with longer and longer pauses, told once.
//!
//! Before this node may take any role: the control socket, the settings of etcd, the cluster's key and the heartbeat port. Before it
//! may take that of one instance, in this order: its interface and kernel lease, the news of its addresses, the socket for
//! announcements, the neighbours' news, and of its calls the recovery ports, the capture, HEP, the server's port, relay and fence.
//! `starting.rs` opens them. etcd itself need not answer: without it nobody is elected.

use crate::time::Time;
use std::time::Duration;

/// The first pause: what was let go of a moment ago is there soon.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause: what is repaired by hand is noticed before the hand has left the keyboard.
const LONGEST: Duration = Duration::from_secs(3);

/// Waits for what is not there.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    tries: u32,
    /// What is missing, in the user's words.
    why: Option<String>,
    next: Option<Time>,
    since: Option<Time>,
}

impl Waiting {
    /// A try failed; whether that is news.
    pub(super) fn failed(&mut self, why: &str, now: Time) -> bool {
        let pause = FIRST.saturating_mul(2_u32.saturating_pow(self.tries)).min(LONGEST);
        self.tries = self.tries.saturating_add(1);
        self.next = Some(now + pause);
        self.since.get_or_insert(now);
        let news = self.why.as_deref() != Some(why);
        self.why = Some(why.to_owned());
        news
    }

    /// When to try again.
    pub(super) fn next(&self) -> Time {
        self.next.unwrap_or(Time::ZERO)
    }

    /// How long it has been waited for.
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
