//! Carries each hold into the kernel, and knows what the kernel does not know yet.

use crate::time::Time;
use std::collections::HashMap;
use std::time::Duration;

/// What lets this host answer for the addresses of an instance, and stops it by itself: the kernel, in an agent.
pub trait Keeper: Send {
    /// The host answers for the addresses of `instance` until the given time and no longer; `None`: not from now on. Returns
    /// only when that is in force. It is called on the election's own thread, so it must not block for more than microseconds.
    ///
    /// # Errors
    /// It is not in force, in the user's words. What was set before still is.
    fn keep(&mut self, instance: &str, hold: Option<(u64, Time)>) -> Result<(), String>;
}

/// Keeps nothing: for tests and tools that hold no address.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoKeeper;

impl Keeper for NoKeeper {
    fn keep(&mut self, _: &str, _: Option<(u64, Time)>) -> Result<(), String> {
        Ok(())
    }
}

/// Least time between two tries to prolong what the kernel did not take: well within a hold, and no burden to a kernel that is busy.
const AGAIN: Duration = Duration::from_millis(50);
/// A kernel that takes no hold for so long makes its host silent although it is master: then another node should be.
const UNFIT_AFTER: Duration = Duration::from_secs(2);

/// Why the kernel is not as it should be, since when, and when it was tried last.
struct Trouble {
    why: String,
    since: Time,
    tried: Time,
}

/// What the keeper has in force, for each instance.
pub(super) struct Kept {
    keeper: Box<dyn Keeper>,
    in_force: HashMap<String, (u64, Time)>,
    errors: HashMap<String, Trouble>,
}

impl Kept {
    pub(super) fn new(keeper: Box<dyn Keeper>) -> Self {
        Self { keeper, in_force: HashMap::new(), errors: HashMap::new() }
    }

    /// What a predecessor left in force.
    pub(super) fn inherited(&mut self, instance: &str, epoch: u64, until: Time) {
        self.in_force.insert(instance.to_owned(), (epoch, until));
    }

    /// Brings the keeper to `hold`. Nothing is done if that is in force already. What failed is tried again with each call, but to
    /// prolong a hold only after a pause.
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
                    tracing::info!(instance, "the kernel keeps the addresses again");
                }
            }
            Err(why) => {
                if failed.is_none_or(|t| t.why != why) {
                    tracing::error!(instance, "the kernel does not keep the addresses as the election has it: {why}");
                }
                let since = failed.map_or(now, |t| t.since);
                self.errors.insert(instance.to_owned(), Trouble { why, since, tried: now });
            }
        }
    }

    /// Whether the kernel has taken nothing for so long that this node is not fit to be master.
    pub(super) fn is_unfit(&self, instance: &str, now: Time) -> bool {
        self.errors.get(instance).is_some_and(|t| now >= t.since + UNFIT_AFTER)
    }

    /// Whether the kernel lets this host answer for longer than `hold` allows, because it could not be told.
    pub(super) fn exceeds(&self, instance: &str, hold: Option<(u64, Time)>, now: Time) -> bool {
        let allowed = hold.map_or(Time::ZERO, |h| h.1).max(now);
        self.in_force.get(instance).is_some_and(|h| h.1 > allowed)
    }

    /// Why the kernel is not as it should be.
    pub(super) fn error(&self, instance: &str) -> Option<&str> {
        self.errors.get(instance).map(|t| t.why.as_str())
    }
}

#[cfg(test)]
mod tests;
