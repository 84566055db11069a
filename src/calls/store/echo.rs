//! What this node wrote and has not heard back from etcd yet. Pure.
//!
//! The watch brings each write of a node back to it. Told apart from what others write, it costs no second copy in memory (what was
//! written is what the tracker has), and no decoding.

use super::queue::{Change, Taken};
use super::value::Stamp;
use crate::calls::model::Call;
use std::collections::{HashMap, VecDeque};

/// Most writes that are remembered: some batches. What comes back after more of them is read like anybody's.
const MAX: usize = 1024;

enum Sent {
    Put { value: Vec<u8>, call: Box<Call>, stamp: Stamp },
    Delete,
}

/// Writes that are under way, or not heard back.
#[derive(Default)]
pub(super) struct Echo {
    sent: HashMap<String, Sent>,
    /// Oldest first; a call that was written again has several places.
    order: VecDeque<String>,
}

impl Echo {
    /// Before a write is sent: it may be heard of before it is answered.
    pub(super) fn sending(&mut self, taken: &Taken, value: Vec<u8>, stamp: Stamp) {
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

    /// Whether something of this call is under way, or not heard back.
    pub(super) fn contains(&self, id: &str) -> bool {
        self.sent.contains_key(id)
    }

    /// The call and its stamp, if this very value was written by this node.
    pub(super) fn put(&mut self, id: &str, value: &[u8]) -> Option<(Box<Call>, Stamp)> {
        // Something else that this node wrote of the call may still be on its way.
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

    /// These were not written.
    pub(super) fn unsent(&mut self, batch: &[Taken]) {
        for taken in batch {
            self.sent.remove(&taken.id);
        }
    }

    /// Everything was read: what comes later was written later.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests;
