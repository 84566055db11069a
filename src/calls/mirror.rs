//! This node's view of the stored calls of one instance. Pure.

use crate::budget::Budget;
use crate::calls::model::Call;
use std::collections::{BTreeMap, BTreeSet};

/// Emergency calls have extra room beyond the limit: this fraction of it.
const EMERGENCY_PART: usize = 8;
/// Bytes for each call of the limit, as many as the tracker has for its two legs.
const CALL: usize = 16 << 10;

/// The calls in etcd, by id. Bounded, because a master with a higher limit, or a stranger, may have written more than
/// this node should keep.
///
/// The limit equals the tracker's: two legs for each of `max_calls`, and 16 KiB. Beyond it new calls are left out and
/// counted. Emergency calls have an eighth more. This node does not recover a call that was left out. Once there is
/// room again, a new read brings it.
#[derive(Debug)]
pub struct Stored {
    // Boxed: a tree allocates up to twice the places that it needs.
    calls: BTreeMap<String, Box<Call>>,
    legs: usize,
    max_legs: usize,
    bytes: Budget,
    left_out: BTreeSet<String>,
    /// More calls were left out than `left_out` remembers.
    more_left_out: bool,
}

impl Stored {
    /// An empty mirror; see [`crate::calls::table::TableSettings::max_calls`].
    #[must_use]
    pub fn new(max_calls: usize) -> Self {
        Self {
            calls: BTreeMap::new(),
            legs: 0,
            max_legs: max_calls.saturating_mul(2),
            bytes: Budget::new(max_calls.saturating_mul(CALL)),
            left_out: BTreeSet::new(),
            more_left_out: false,
        }
    }

    /// Stores the state of a call. `false` if it was left out. A call that is already here always has room.
    pub fn put(&mut self, call: Box<Call>) -> bool {
        let before = self.calls.get(&call.id).map(|c| (c.legs.len(), c.bytes()));
        let room = if call.emergency { self.max_legs + self.max_legs / EMERGENCY_PART } else { self.max_legs };
        let bytes = call.bytes();
        let light = call.emergency || self.bytes.fits(bytes);
        if before.is_none() && (self.legs + call.legs.len() > room || !light) {
            self.leave_out(call.id);
            return false;
        }
        let (legs_before, bytes_before) = before.unwrap_or((0, 0));
        self.legs = self.legs + call.legs.len() - legs_before;
        self.bytes.give(bytes_before);
        self.bytes.take(bytes);
        self.left_out.remove(&call.id);
        self.calls.insert(call.id.clone(), call);
        true
    }

    /// Compares with a read of a replaced etcd. Known calls stay as they are here, whatever etcd says. Unknown calls
    /// are added if `add` is set. Returns the ids of known calls that etcd lacks or holds in another state, and the ids
    /// of unknown calls.
    pub fn compare(&mut self, calls: Vec<Call>, add: bool) -> (Vec<String>, Vec<String>) {
        let (known, unknown): (Vec<_>, Vec<_>) = calls.into_iter().partition(|c| self.contains(&c.id));
        let right: BTreeSet<&str> =
            known.iter().filter(|c| self.get(&c.id) == Some(*c)).map(|c| c.id.as_str()).collect();
        let missing = self.ids().filter(|id| !right.contains(id)).map(str::to_owned).collect();
        let ids = unknown.iter().map(|c| c.id.clone()).collect();
        if add {
            for call in unknown {
                self.put(Box::new(call));
            }
        }
        (missing, ids)
    }

    fn leave_out(&mut self, id: String) {
        // A tenth is enough to report. The rest counts as "more".
        if self.left_out.len() < self.max_legs / 10 + 10 {
            self.left_out.insert(id);
        } else {
            self.more_left_out |= !self.left_out.contains(&id);
        }
    }

    /// Removes a call.
    pub fn remove(&mut self, id: &str) -> Option<Box<Call>> {
        self.left_out.remove(id);
        let call = self.calls.remove(id)?;
        self.legs -= call.legs.len();
        self.bytes.give(call.bytes());
        Some(call)
    }

    /// Replaces everything except what `keep` names, emergency calls first and then the oldest. Returns the calls that
    /// are no longer there.
    ///
    /// An unchanged call keeps its memory, which the tracker or the engine may share.
    pub fn replace(&mut self, mut calls: Vec<Call>, keep: impl Fn(&str) -> bool) -> Vec<Box<Call>> {
        let mut old = std::mem::take(&mut self.calls);
        (self.legs, self.more_left_out) = (0, false);
        self.bytes.clear();
        self.left_out.clear();
        let legs: usize = calls.iter().map(|c| c.legs.len()).sum();
        if legs > self.max_legs || !self.bytes.fits(calls.iter().map(Call::bytes).sum()) {
            calls.sort_by_key(|c| (!c.emergency, c.confirmed_ms));
        }
        for call in calls {
            let before = old.remove(&call.id);
            self.put(match before {
                Some(before) if *before == call => before,
                _ => Box::new(call),
            });
        }
        let (kept, gone): (Vec<_>, Vec<_>) = old.into_values().partition(|c| keep(&c.id));
        for call in kept {
            self.put(call);
        }
        gone
    }

    /// Least number of calls that were left out.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out.len() + usize::from(self.more_left_out)
    }

    /// Whether a new read would bring calls that were left out: an eighth of the room is free again.
    #[must_use]
    pub fn wants_reading(&self) -> bool {
        let calls = self.max_legs / 2;
        let light = self.bytes.fits((calls / EMERGENCY_PART).saturating_mul(CALL));
        self.left_out() > 0 && light && self.legs <= self.max_legs - self.max_legs / EMERGENCY_PART
    }

    /// One call.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Call> {
        self.calls.get(id).map(|c| &**c)
    }

    /// Whether the call is here.
    #[must_use]
    pub fn contains(&self, id: &str) -> bool {
        self.calls.contains_key(id)
    }

    /// All calls, in the order of their ids.
    pub fn values(&self) -> impl Iterator<Item = &Call> {
        self.calls.values().map(|c| &**c)
    }

    /// All ids, in order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.calls.keys().map(String::as_str)
    }

    /// The ids after `id`, in order.
    pub fn ids_after(&self, id: &str) -> impl Iterator<Item = &str> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.calls.range::<str, _>((Excluded(id), Unbounded)).map(|(k, _)| k.as_str())
    }

    /// Number of calls.
    #[must_use]
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether nothing is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }
}

#[cfg(test)]
mod tests;
