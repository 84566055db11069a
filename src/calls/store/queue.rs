//! Pending writes: the newest state of each call, oldest change first. Pure.

use crate::calls::model::{Call, CallEvent};
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::BuildHasher as _;

/// Most operations in one transaction: etcd's default `--max-txn-ops`.
pub(super) const MAX_OPS: usize = 128;

/// The newest pending change of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Write this.
    Put(Box<Call>),
    /// Remove it.
    Delete,
}

/// A change in flight to etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InFlight {
    pub(super) id: String,
    pub(super) change: Change,
    /// Nothing of this call can have been in etcd before.
    fresh: bool,
}

/// How a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// All of it is in etcd.
    Written,
    /// None of it is in etcd, and none of it will be.
    Nothing,
    /// The result is unknown.
    Doubt,
}

/// Calls with changes that are not known to be written.
#[derive(Debug)]
pub(super) struct Queue {
    order: VecDeque<String>,
    newest: HashMap<String, Change>,
    max_puts: usize,
    puts: usize,
    in_flight: usize,
    /// The changes in flight were discarded meanwhile, so they must not return if they fail.
    forgotten: bool,
    /// Changes dropped for lack of room.
    pub(super) dropped: u64,
    /// Calls that may have a state in etcd, as hashes of their ids. A wrong entry costs a needless delete. A missing
    /// entry would leave a ghost, so only certain knowledge removes one.
    there: HashSet<u64>,
    /// Whether etcd was read. Before that every call may be there.
    was_read: bool,
    hasher: RandomState,
}

impl Queue {
    /// `max_calls` is the tracker's limit. Each of the two legs of a call may be stored as a call of its own, so the
    /// queue has room for twice as many, and every learnt call fits.
    pub(super) fn new(max_calls: usize) -> Self {
        Self {
            order: VecDeque::new(),
            newest: HashMap::new(),
            max_puts: max_calls.saturating_mul(2),
            puts: 0,
            in_flight: 0,
            forgotten: false,
            dropped: 0,
            there: HashSet::new(),
            was_read: false,
            hasher: RandomState::new(),
        }
    }

    /// Queues a change in place of an older one of the same call. `false` if there was no room.
    ///
    /// In a full queue an emergency call replaces the newest other one. A change of a call that already waits always
    /// has room. A delete whose put was never sent removes both. Deletes have as much room again as puts: a lost delete
    /// would leave a ghost for a day, and it is only a name.
    pub(super) fn push(&mut self, event: CallEvent) -> bool {
        let (id, change) = match event {
            CallEvent::Put(call) => (call.id.clone(), Change::Put(call)),
            CallEvent::Delete { id, .. } => (id, Change::Delete),
        };
        let is_put = change != Change::Delete;
        if let Some(old) = self.newest.get_mut(&id) {
            let was_put = *old != Change::Delete;
            *old = change;
            self.puts = self.puts + usize::from(is_put) - usize::from(was_put);
            if was_put && !is_put && !self.may_be_there(&id) {
                // `take` skips its place in the order later.
                self.newest.remove(&id);
                self.compact();
            }
            return true;
        }
        let full =
            if is_put { self.puts >= self.max_puts } else { self.newest.len() >= self.max_puts.saturating_mul(2) };
        if full {
            self.dropped += 1;
            if !matches!(&change, Change::Put(call) if call.emergency) || !self.make_room() {
                return false;
            }
        }
        self.puts += usize::from(is_put);
        self.newest.insert(id.clone(), change);
        self.order.push_back(id);
        true
    }

    /// Queues another write of a call as it is in etcd, unless a change of it waits. Without room it is left alone.
    pub(super) fn renew(&mut self, call: &Call) {
        if !self.newest.contains_key(&call.id) && self.puts < self.max_puts {
            self.push(CallEvent::Put(Box::new(call.clone())));
        }
    }

    /// Drops the newest put that is no emergency call.
    fn make_room(&mut self) -> bool {
        let least = |id: &&String| matches!(self.newest.get(*id), Some(Change::Put(call)) if !call.emergency);
        let Some(id) = self.order.iter().rev().find(least).cloned() else { return false };
        self.newest.remove(&id);
        self.puts -= 1;
        true
    }

    /// Removes stale places once they are the majority, so that short calls during an etcd outage do not add up.
    fn compact(&mut self) {
        if self.order.len() > 2 * self.newest.len() + MAX_OPS {
            // A call may have left two places. The first counts.
            let mut seen = HashSet::new();
            self.order.retain(|id| self.newest.contains_key(id) && seen.insert(id.clone()));
        }
    }

    /// The oldest changes, at most `most` and one transaction's worth, while they `fit`. At least one if any is
    /// pending.
    pub(super) fn take(&mut self, most: usize, mut fit: impl FnMut(&Change) -> bool) -> Vec<InFlight> {
        let mut batch = Vec::new();
        while batch.len() < most.min(MAX_OPS)
            && let Some(id) = self.order.pop_front()
        {
            let Some(change) = self.newest.remove(&id) else { continue };
            if !fit(&change) && !batch.is_empty() {
                self.newest.insert(id.clone(), change);
                self.order.push_front(id);
                break;
            }
            let fresh = !self.may_be_there(&id);
            if change != Change::Delete {
                self.puts -= 1;
                self.seen(&id);
            }
            batch.push(InFlight { id, change, fresh });
        }
        self.in_flight = batch.len();
        self.forgotten = false;
        batch
    }

    /// Only part of the last batch is sent. `rest` comes first next time.
    pub(super) fn shorten(&mut self, rest: Vec<InFlight>, sent: usize) {
        let forgotten = self.forgotten;
        self.ended(rest, End::Nothing);
        self.in_flight = sent;
        self.forgotten = forgotten;
    }

    /// Result of the last batch. Changes not known to be written come first again, unless the call changed since or the
    /// queue was cleared.
    pub(super) fn ended(&mut self, batch: Vec<InFlight>, end: End) {
        self.in_flight = 0;
        let forgotten = std::mem::take(&mut self.forgotten);
        for InFlight { id, change, fresh } in batch.into_iter().rev() {
            let is_put = change != Change::Delete;
            let gone = (end == End::Written && !is_put) || (end == End::Nothing && fresh);
            if gone {
                self.unseen(&id);
            }
            if end == End::Written || forgotten {
                continue;
            }
            match self.newest.get(&id) {
                // The call began and ended while its failed write was in flight.
                Some(Change::Delete) if gone => {
                    self.newest.remove(&id);
                }
                Some(_) => {}
                None => {
                    self.puts += usize::from(is_put);
                    self.newest.insert(id.clone(), change);
                    self.order.push_front(id);
                }
            }
        }
        self.compact();
    }

    /// A state of this call is in etcd.
    pub(super) fn seen(&mut self, id: &str) {
        self.there.insert(self.hasher.hash_one(id));
    }

    /// This call is no longer in etcd, and this node does not write it.
    pub(super) fn unseen(&mut self, id: &str) {
        self.there.remove(&self.hasher.hash_one(id));
    }

    /// Everything in etcd was read. `exact` means that this node does not write, so nothing else can be there.
    pub(super) fn seen_all<'a>(&mut self, ids: impl Iterator<Item = &'a str>, exact: bool) {
        if exact {
            self.there.clear();
        }
        self.was_read = true;
        self.there.extend(ids.map(|id| self.hasher.hash_one(id)));
    }

    fn may_be_there(&self, id: &str) -> bool {
        !self.was_read || self.there.contains(&self.hasher.hash_one(id))
    }

    /// Discards all changes and returns their number. A batch in flight may still be written, but is not retried. A
    /// retry would wait until this node is master again, and then overwrite the state that the master in between has
    /// stored.
    pub(super) fn clear(&mut self) -> usize {
        let n = self.len();
        self.order = VecDeque::new();
        self.newest = HashMap::new();
        self.puts = 0;
        self.forgotten = true;
        n
    }

    /// Changes not known to be written.
    pub(super) fn len(&self) -> usize {
        self.newest.len() + self.in_flight
    }
}

#[cfg(test)]
mod tests;
