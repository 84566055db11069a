//! Brings each hold into the kernel, and tracks what the kernel has not accepted yet.

use crate::time::Time;
use std::collections::HashMap;
use std::time::Duration;

/// Lets this host answer for an instance's addresses, and stops it at the deadline: in an agent, the kernel does.
pub trait Keeper: Send {
    /// Lets the host answer for the addresses of `instance` until the given time and no longer; `None` means stop now.
    /// Returns only when that is in force. The election's own thread calls it, so it must not block for more than
    /// microseconds.
    ///
    /// # Errors
    /// The change is not in force, with the reason in the user's words. The previous setting stays in force.
    fn keep(&mut self, instance: &str, hold: Option<(u64, Time)>) -> Result<(), String>;
}

/// Keeps nothing: for tests and tools without addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoKeeper;

impl Keeper for NoKeeper {
    fn keep(&mut self, _: &str, _: Option<(u64, Time)>) -> Result<(), String> {
        Ok(())
    }
}

/// Shortest pause between attempts to prolong a hold that the kernel refused: well within a hold, and no load on a busy
/// kernel.
const AGAIN: Duration = Duration::from_millis(50);
/// After refusing every hold for this long, the kernel leaves its master silent: another node should take over.
const UNFIT_AFTER: Duration = Duration::from_secs(2);

/// A lasting kernel error, its start, and the last attempt.
struct Trouble {
    why: String,
    since: Time,
    tried: Time,
}

/// The keeper's hold in force, for each instance.
pub(super) struct Kept {
    keeper: Box<dyn Keeper>,
    in_force: HashMap<String, (u64, Time)>,
    errors: HashMap<String, Trouble>,
}

impl Kept {
    pub(super) fn new(keeper: Box<dyn Keeper>) -> Self {
        Self { keeper, in_force: HashMap::new(), errors: HashMap::new() }
    }

    /// Records the hold that a predecessor left in force.
    pub(super) fn inherited(&mut self, instance: &str, epoch: u64, until: Time) {
        self.in_force.insert(instance.to_owned(), (epoch, until));
    }

    /// Brings the keeper to `hold`, unless that is in force already. Each call retries a failed change, but prolonging
    /// a hold waits for a pause.
    pub(super) fn set(&mut self, instance: &str, hold: Option<(u64, Time)>, now: Time) {
        let in_force = self.in_force.get(instance).copied();
        let failed = self.errors.get(instance);
        if in_force == hold && failed.is_none() {
            return;
        }
        let lower = hold.map_or(Time::ZERO, |h| h.1) < in_force.map_or(Time::ZERO, |h| h.1);
        if !lower && failed.is_some_and(|t| now < t.tried + AGAIN) {
            return;
        }
        match self.keeper.keep(instance, hold) {
            Ok(()) => {
                match hold {
                    Some(h) => drop(self.in_force.insert(instance.to_owned(), h)),
                    None => drop(self.in_force.remove(instance)),
                }
                if self.errors.remove(instance).is_some() {
                    tracing::info!(instance, "the kernel applies the hold again");
                }
            }
            Err(why) => {
                if failed.is_none_or(|t| t.why != why) {
                    tracing::error!(instance, "the kernel does not apply the hold: {why}");
                }
                let since = failed.map_or(now, |t| t.since);
                self.errors.insert(instance.to_owned(), Trouble { why, since, tried: now });
            }
        }
    }

    /// Whether the kernel has refused holds for so long that this node is unfit as master.
    pub(super) fn is_unfit(&self, instance: &str, now: Time) -> bool {
        self.errors.get(instance).is_some_and(|t| now >= t.since + UNFIT_AFTER)
    }

    /// Whether the kernel lets this host answer for longer than `hold` allows, because a change failed.
    pub(super) fn exceeds(&self, instance: &str, hold: Option<(u64, Time)>, now: Time) -> bool {
        let allowed = hold.map_or(Time::ZERO, |h| h.1).max(now);
        self.in_force.get(instance).is_some_and(|h| h.1 > allowed)
    }

    /// The kernel's error, if any.
    pub(super) fn error(&self, instance: &str) -> Option<&str> {
        self.errors.get(instance).map(|t| t.why.as_str())
    }
}

#[cfg(test)]
mod tests;
