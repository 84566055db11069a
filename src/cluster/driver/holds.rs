//! Publishes the holds to every reader without a lock: the election's real-time thread must not wait for a preempted
//! ordinary thread with the lock.

use crate::time::Time;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// End and epoch of each instance's hold. Only one thread writes.
#[derive(Debug, Default)]
pub(super) struct Holds(BTreeMap<String, Hold>);

#[derive(Debug, Default)]
struct Hold {
    /// Odd while the writer is between its first and last store.
    version: AtomicU64,
    epoch: AtomicU64,
    /// Nanoseconds; 0 without a hold.
    until: AtomicU64,
}

impl Holds {
    pub(super) fn new<'a>(instances: impl Iterator<Item = &'a str>) -> Self {
        Self(instances.map(|name| (name.to_owned(), Hold::default())).collect())
    }

    pub(super) fn set(&self, instance: &str, hold: Option<(u64, Time)>) {
        let Some(h) = self.0.get(instance) else { return };
        let (epoch, until) = hold.map_or((0, 0), |(epoch, until)| (epoch, until.as_nanos()));
        h.version.fetch_add(1, Ordering::SeqCst);
        h.epoch.store(epoch, Ordering::SeqCst);
        h.until.store(until, Ordering::SeqCst);
        h.version.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn get(&self, instance: &str) -> Option<(u64, Time)> {
        let h = self.0.get(instance)?;
        loop {
            let before = h.version.load(Ordering::SeqCst);
            let (epoch, until) = (h.epoch.load(Ordering::SeqCst), h.until.load(Ordering::SeqCst));
            if before.is_multiple_of(2) && before == h.version.load(Ordering::SeqCst) {
                return (until > 0).then(|| (epoch, Time::from_nanos(until)));
            }
            // The writer outranks all ordinary threads, so this wait is short.
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests;
