//! When a part that failed is started again, and when it stays off. Pure.

use crate::time::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// The pause before the first new start, doubled with each failure that follows within [`WINDOW`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Failures that are remembered: what happened longer ago says nothing of the next.
const WINDOW: Duration = Duration::from_secs(600);
/// So many failures within [`WINDOW`] leave the part off: what fails that often fails again, and each start costs calls a re-INVITE.
const MOST: usize = 6;
/// So many threads may ever be left running without end: each takes a processor's idle time, and what it had in memory.
const MOST_ABANDONED: u32 = 3;

/// How a part failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It ended: a panic, or an error that it could not go on with.
    Ended,
    /// It never came back from something; its thread was abandoned.
    Stuck,
}

/// What follows a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Start again after this.
    After(Duration),
    /// Stay off, for this reason.
    Off(&'static str),
}

/// The failures of one part.
#[derive(Debug, Default)]
pub(super) struct Policy {
    failures: VecDeque<Time>,
    abandoned: u32,
}

impl Policy {
    /// Notes a failure at `now`.
    pub(super) fn failed(&mut self, how: Failure, now: Time) -> Next {
        self.failures.retain(|at| now.since(*at) < WINDOW);
        self.failures.push_back(now);
        if how == Failure::Stuck {
            self.abandoned += 1;
        }
        if self.abandoned > MOST_ABANDONED {
            return Next::Off("too many of its threads never ended");
        }
        if self.failures.len() >= MOST {
            return Next::Off("it failed too often");
        }
        let doublings = u32::try_from(self.failures.len() - 1).unwrap_or(u32::MAX).min(16);
        Next::After(FIRST_PAUSE * (1 << doublings))
    }
}

#[cfg(test)]
mod tests;
