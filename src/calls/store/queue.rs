//! What still has to be written: the newest state of each call, oldest change first. Pure.

use crate::calls::model::{Call, CallEvent};
use std::collections::{HashMap, VecDeque};

/// Most operations in one transaction: etcd's default `--max-txn-ops`.
pub(super) const MAX_OPS: usize = 128;
/// Most bytes of values in one transaction: etcd refuses requests over 1.5 MiB by default; keys and framing need some of it.
pub(super) const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// The newest known wish for one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Write this.
    Put(Box<Call>),
    /// Remove it.
    Delete,
}

/// Calls with changes that are not known to be written.
#[derive(Debug)]
pub(super) struct Queue {
    order: VecDeque<String>,
    newest: HashMap<String, Change>,
    max_calls: usize,
    in_flight: usize,
    /// What is in flight was forgotten meanwhile: it must not come back, should it fail.
    forgotten: bool,
    /// Changes that found no room.
    pub(super) dropped: u64,
}

impl Queue {
    pub(super) fn new(max_calls: usize) -> Self {
        Self { order: VecDeque::new(), newest: HashMap::new(), max_calls, in_flight: 0, forgotten: false, dropped: 0 }
    }

    /// Takes a change; it replaces an older one of the same call. `false` if there was no room.
    pub(super) fn push(&mut self, event: CallEvent) -> bool {
        let (id, change) = match event {
            CallEvent::Put(call) => (call.id.clone(), Change::Put(call)),
            CallEvent::Delete { id, .. } => (id, Change::Delete),
        };
        if let Some(old) = self.newest.get_mut(&id) {
            *old = change;
            return true;
        }
        // A call may end and another begin while etcd is away: room for as many ends as there are calls. A delete that is lost
        // would leave a ghost; a put that is lost is made good by the call's next change.
        let room = if change == Change::Delete { self.max_calls.saturating_mul(2) } else { self.max_calls };
        if self.newest.len() >= room {
            self.dropped += 1;
            return false;
        }
        self.newest.insert(id.clone(), change);
        self.order.push_back(id);
        true
    }

    /// The oldest changes, as many as fit a transaction; `size` tells the bytes of one. At least one, if there is any.
    pub(super) fn take(&mut self, size: impl Fn(&Change) -> usize) -> Vec<(String, Change)> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < MAX_OPS
            && let Some(id) = self.order.pop_front()
        {
            let Some(change) = self.newest.remove(&id) else { continue };
            bytes += size(&change);
            if bytes > MAX_BATCH_BYTES && !batch.is_empty() {
                self.newest.insert(id.clone(), change);
                self.order.push_front(id);
                break;
            }
            batch.push((id, change));
        }
        self.in_flight = batch.len();
        self.forgotten = false;
        batch
    }

    /// The batch that was taken last is written.
    pub(super) fn done(&mut self) {
        self.in_flight = 0;
    }

    /// The batch that was taken last is not known to be written: it comes first again, save for calls that changed since, and
    /// unless it was forgotten.
    pub(super) fn put_back(&mut self, batch: Vec<(String, Change)>) {
        self.in_flight = 0;
        if std::mem::take(&mut self.forgotten) {
            return;
        }
        for (id, change) in batch.into_iter().rev() {
            if !self.newest.contains_key(&id) {
                self.newest.insert(id.clone(), change);
                self.order.push_front(id);
            }
        }
    }

    /// Forgets all; how many changes that were. What is in flight may still be written, but is not tried again: else it would
    /// wait here for this node's next right, and then overwrite what the master between has stored.
    pub(super) fn clear(&mut self) -> usize {
        let n = self.len();
        self.order.clear();
        self.newest.clear();
        self.forgotten = true;
        n
    }

    /// Changes not known to be written.
    pub(super) fn len(&self) -> usize {
        self.newest.len() + self.in_flight
    }
}
