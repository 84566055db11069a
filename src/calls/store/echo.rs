//! This node's own writes that etcd's watch has not returned yet. Pure.
//!
//! The watch returns each write to the node that made it. Recognising it saves a second copy in memory (the tracker has
//! the call already) and the decoding.

use super::queue::{Change, InFlight};
use super::value::Stamp;
use crate::calls::model::Call;
use std::collections::{HashMap, VecDeque};

/// Most writes kept: some batches. An echo beyond that is read like anybody's write.
const MAX: usize = 1024;

enum Sent {
    Put { value: Vec<u8>, call: Box<Call>, stamp: Stamp },
    Delete,
}

/// Writes in progress, or without an echo.
#[derive(Default)]
pub(super) struct Echo {
    sent: HashMap<String, Sent>,
    /// Oldest first. A call that was written again has several places.
    order: VecDeque<String>,
}

impl Echo {
    /// Called before a write is sent, because its echo may arrive before its answer.
    pub(super) fn sending(&mut self, taken: &InFlight, value: Vec<u8>, stamp: Stamp) {
        let sent = match &taken.change {
            Change::Put(call) => Sent::Put { value, call: call.clone(), stamp },
            Change::Delete => Sent::Delete,
        };
        if self.sent.insert(taken.id.clone(), sent).is_none() {
            self.order.push_back(taken.id.clone());
        }
        while self.sent.len() > MAX || self.order.len() > 2 * MAX {
            let Some(oldest) = self.order.pop_front() else { return };
            self.sent.remove(&oldest);
        }
    }

    /// Whether a write of this call is in progress or without an echo.
    pub(super) fn contains(&self, id: &str) -> bool {
        self.sent.contains_key(id)
    }

    /// The call and its stamp, if this node wrote exactly this value.
    pub(super) fn put(&mut self, id: &str, value: &[u8]) -> Option<(Box<Call>, Stamp)> {
        // Another write of this node for the call may still be on its way.
        if !matches!(self.sent.get(id), Some(Sent::Put { value: sent, .. }) if sent == value) {
            return None;
        }
        match self.sent.remove(id) {
            Some(Sent::Put { call, stamp, .. }) => Some((call, stamp)),
            _ => None,
        }
    }

    /// Whether this node has deleted it.
    pub(super) fn delete(&mut self, id: &str) -> bool {
        let own = matches!(self.sent.get(id), Some(Sent::Delete));
        if own {
            self.sent.remove(id);
        }
        own
    }

    /// Removes changes that were not written.
    pub(super) fn unsent(&mut self, batch: &[InFlight]) {
        for taken in batch {
            self.sent.remove(&taken.id);
        }
    }

    /// Clears after a full read: whatever comes later was written later.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests;
