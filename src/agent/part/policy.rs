//! Decides when a failed part restarts, and when it stays off. Pure.

use crate::time::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// The pause before the first restart. Each further failure within [`WINDOW`] doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How long failures count. Older failures say nothing about the next one.
const WINDOW: Duration = Duration::from_secs(600);
/// This many failures within [`WINDOW`] turn the part off: it would fail again, and each restart costs calls a
/// re-INVITE.
const MOST: usize = 6;
/// Limit of abandoned threads. Each takes a processor's idle time and keeps its memory.
const MOST_ABANDONED: u32 = 3;

/// How a part failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The part ended with a panic or a fatal error.
    Ended,
    /// The part hung, and its thread was abandoned.
    Stuck,
}

/// The reaction to a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Restart after this pause.
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
    /// Records a failure at `now`.
    pub(super) fn failed(&mut self, how: Failure, now: Time) -> Next {
        self.failures.retain(|at| now.since(*at) < WINDOW);
        self.failures.push_back(now);
        if how == Failure::Stuck {
            self.abandoned += 1;
        }
        if self.abandoned > MOST_ABANDONED {
            return Next::Off("too many of its threads are stuck");
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
