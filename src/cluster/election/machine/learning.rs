//! Learns from what etcd answered.

use super::{Election, FRESH};
use crate::cluster::election::types::Action;
use crate::cluster::record::{Alive, MAX_EPOCH, Recorded, View};
use crate::time::Time;
use std::sync::Arc;

impl Election {
    /// Starts the wait for a first election again if another record may have come and gone between two views without a
    /// record. Its master may hold as long as others vouch, as after the first deletion.
    ///
    /// A record that existed for less than [`FRESH`] leaves its master's `alive`, which lives as long as a lease. If all
    /// keys were deleted, this node's ticket is gone too.
    pub(super) fn look_for_gap(&mut self, view: &View, ticket_gone: bool, now: Time) {
        let Some(before) = self.view.as_ref().filter(|v| v.record == Recorded::Missing) else { return };
        let epoch = |v: &View| v.alive.map_or(0, |a| a.epoch);
        let ticket_lost = ticket_gone && self.ticket.is_some();
        let newer = epoch(view) > epoch(before).max(self.lost.as_ref().map_or(0, |r| r.epoch));
        let gap = self.last_read.is_none_or(|r| now > r.sent + FRESH);
        #[cfg(test)]
        let (newer, gap) = if self.broken(crate::cluster::election::types::Fault::GapForgotten) {
            (false, false)
        } else {
            (newer, gap)
        };
        if view.record == Recorded::Missing && self.record.is_none() && (newer || gap || ticket_lost) {
            (self.lost_since, self.held_at_loss, self.unseen) = (now, false, true);
            self.doubt |= ticket_lost;
        }
    }

    /// Whether the last read is young enough that no record can have come and gone unseen since.
    pub(in crate::cluster::election) fn has_read_lately(&self, now: Time) -> bool {
        #[cfg(test)]
        if self.broken(crate::cluster::election::types::Fault::GapForgotten) {
            return true;
        }
        self.last_read.is_some_and(|r| now < r.sent + FRESH)
    }

    pub(super) fn learn(&mut self, view: View, now: Time) {
        if self.view.as_ref().is_some_and(|v| v.revision > view.revision) {
            return;
        }
        if self.is_lost(&view) {
            return self.learn_lost(view);
        }
        let old_revision = self.revision;
        self.top_epoch = self.top_epoch.max(view.alive.map_or(0, |a| a.epoch).min(MAX_EPOCH));
        match &view.record {
            Recorded::Good { revision, record } => {
                (self.unreadable, self.revision, self.lost, self.restored) = (None, *revision, None, None);
                self.held_at_loss = false;
                self.top_epoch = self.top_epoch.max(record.epoch);
                self.learn_terms(record.terms);
                let old = self.record.replace(Arc::clone(record));
                if old.as_ref() != Some(record) {
                    self.actions.push_back(Action::Changed);
                }
                let new_epoch = old.as_ref().map(|r| r.epoch) != Some(record.epoch);
                if new_epoch {
                    self.epoch_since = now;
                }
                if new_epoch && record.master == self.s.me {
                    self.lead_since = now;
                    self.claim_at = None;
                    self.next_beat = now;
                    for p in self.peers.values_mut() {
                        (p.acked, p.vouched) = (None, None);
                    }
                }
            }
            Recorded::Missing => {
                (self.unreadable, self.revision) = (None, 0);
                // The record was deleted. While `alive` is ours no other node can be elected, and we write the record
                // again.
                let speaks = |r: &Record| {
                    let own = self.lease.map(|l| Alive { epoch: r.epoch, lease: l.id });
                    r.master == self.s.me && own.is_some() && view.alive == own
                };
                if self.record.as_deref().is_some_and(speaks) {
                    // The record is still ours.
                } else if let Some(r) = self.record.take() {
                    self.held_at_loss = self.held.is_some_and(|h| now < h.until);
                    (self.lost, self.lost_since) = (Some(r), now);
                } else if self.view.as_ref().is_none_or(|v| v.record != Recorded::Missing) {
                    self.lost_since = now;
                }
            }
            Recorded::Unreadable { revision, why } => {
                if self.unreadable.as_ref() != Some(why) {
                    self.actions.push_back(Action::Changed);
                }
                (self.unreadable, self.revision) = (Some(why.clone()), *revision);
            }
        }
        // A new record has other guards, so the wait starts again. The same applies to a guard that registered in
        // between and is gone again: it may have vouched for its master, although no view showed its key.
        let guards = self.slow_guards(&view);
        let again = guards.iter().flatten().any(|n| view.runs.get(n).copied().unwrap_or(0) != self.run(n));
        let since = self.gone.filter(|_| self.revision == old_revision && !again).unwrap_or(now);
        self.gone = guards.map(|_| since);
        self.view = Some(view);
        self.name_others();
    }

    /// Revision of a node's last registration, as last seen; 0 without one.
    pub(super) fn run(&self, node: &str) -> i64 {
        self.view.as_ref().and_then(|v| v.runs.get(node)).copied().unwrap_or(0)
    }
}
