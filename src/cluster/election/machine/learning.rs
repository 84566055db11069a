//! Learns from what etcd answered.

use super::{Election, FRESH};
use crate::cluster::election::types::Action;
use crate::cluster::record::{Alive, MAX_EPOCH, Record, Recorded, View};
use crate::time::Time;
use std::sync::Arc;

/// A read that was answered.
#[derive(Clone, Copy, Debug)]
pub(in crate::cluster::election) struct LastRead {
    /// The lease under which it was sent.
    pub(super) lease: Option<i64>,
    pub(super) sent: Time,
}

/// What this node read from etcd. `learning.rs` changes it; `asking.rs` notes the read, and `restored.rs` forgets what a
/// former etcd said.
#[derive(Clone, Debug)]
pub(in crate::cluster::election) struct EtcdState {
    pub(in crate::cluster::election) view: Option<View>,
    /// The record of `view`, or the last good one if that is unreadable.
    pub(in crate::cluster::election) record: Option<Arc<Record>>,
    /// The record's revision; 0 without a record.
    pub(super) revision: i64,
    pub(super) unreadable: Option<String>,
    /// The last answered read.
    pub(super) last_read: Option<LastRead>,
    /// Since when the conditions of a slow takeover hold.
    pub(in crate::cluster::election) gone: Option<Time>,
    /// Since when this process knows the present epoch.
    pub(super) epoch_since: Time,
}

impl EtcdState {
    pub(super) const fn new(now: Time) -> Self {
        Self { view: None, record: None, revision: 0, unreadable: None, last_read: None, gone: None, epoch_since: now }
    }
}

/// What this node knows of a record that etcd no longer has, or that it never read. `learning.rs` changes it;
/// `asking.rs` notes a ticket that was found, and `restored.rs` takes the record when etcd was exchanged.
#[derive(Clone, Debug)]
pub(in crate::cluster::election) struct LostRecord {
    /// The record before its deletion: a hold may still rest on promises under it.
    pub(in crate::cluster::election) record: Option<Arc<Record>>,
    /// When this node learned that the record is missing, or could last have missed another one's deletion.
    pub(super) since: Time,
    /// This node was master by that record and held the addresses at that time.
    pub(super) held: bool,
    /// A record may have existed that this process never read: an earlier process of its name took part in this
    /// election and left its ticket, or there was time for a record between two reads that found none.
    pub(in crate::cluster::election) unseen: bool,
}

impl LostRecord {
    pub(super) const fn new(now: Time) -> Self {
        Self { record: None, since: now, held: false, unseen: false }
    }
}

impl Election {
    /// Starts the wait for a first election again if another record may have come and gone between two views without a
    /// record. Its master may hold as long as others vouch, as after the first deletion.
    ///
    /// A record that existed for less than [`FRESH`] leaves its master's `alive`, which lives as long as a lease. If all
    /// keys were deleted, this node's ticket is gone too.
    pub(super) fn look_for_gap(&mut self, view: &View, ticket_gone: bool, now: Time) {
        let before = self.etcd.view.as_ref();
        if view.record != Recorded::Missing || before.is_some_and(|b| b.revision > view.revision) {
            return;
        }
        // Without it none of our transactions can succeed. The ticket stays ours until the next one is written: a master
        // goes on with its heartbeats.
        self.requests.doubt |= ticket_gone && self.requests.ticket.is_some();
        let Some(before) = before.filter(|b| b.record == Recorded::Missing) else { return };
        // There in the view before, gone in this one: each deletion of it counts once.
        let ticket_lost = ticket_gone && before.ticket.is_some();
        let epoch = |v: &View| v.alive.map_or(0, |a| a.epoch);
        let newer = epoch(view) > epoch(before).max(self.lost.record.as_ref().map_or(0, |r| r.epoch));
        let gap = self.etcd.last_read.is_none_or(|r| now > r.sent + FRESH);
        #[cfg(test)]
        let (newer, gap) = if self.broken(crate::cluster::election::types::Fault::GapForgotten) {
            (false, false)
        } else {
            (newer, gap)
        };
        if self.etcd.record.is_none() && (newer || gap || ticket_lost) {
            (self.lost.since, self.lost.held, self.lost.unseen) = (now, false, true);
        }
    }

    /// Whether the last read is young enough that no record can have come and gone unseen since.
    pub(in crate::cluster::election) fn has_read_lately(&self, now: Time) -> bool {
        #[cfg(test)]
        if self.broken(crate::cluster::election::types::Fault::GapForgotten) {
            return true;
        }
        self.etcd.last_read.is_some_and(|r| now < r.sent + FRESH)
    }

    pub(super) fn learn(&mut self, view: View, now: Time) {
        if self.etcd.view.as_ref().is_some_and(|v| v.revision > view.revision) {
            return;
        }
        if self.is_lost(&view) {
            return self.learn_lost(view);
        }
        let old_revision = self.etcd.revision;
        self.promises.top_epoch = self.promises.top_epoch.max(view.alive.map_or(0, |a| a.epoch).min(MAX_EPOCH));
        match &view.record {
            Recorded::Good { revision, record } => {
                (self.etcd.unreadable, self.etcd.revision, self.lost.record, self.restored) =
                    (None, *revision, None, None);
                self.lost.held = false;
                self.promises.top_epoch = self.promises.top_epoch.max(record.epoch);
                self.learn_terms(record.terms);
                let old = self.etcd.record.replace(Arc::clone(record));
                if old.as_ref() != Some(record) {
                    self.actions.push_back(Action::Changed);
                }
                let new_epoch = old.as_ref().map(|r| r.epoch) != Some(record.epoch);
                if new_epoch {
                    self.etcd.epoch_since = now;
                }
                if new_epoch && record.master == self.s.me {
                    self.leading.since = now;
                    self.handover.claim_at = None;
                    self.leading.next_beat = now;
                    for p in self.peers.values_mut() {
                        (p.acked, p.vouched) = (None, None);
                    }
                }
            }
            Recorded::Missing => {
                (self.etcd.unreadable, self.etcd.revision) = (None, 0);
                // The record was deleted. While `alive` is ours no other node can be elected, and we write the record
                // again.
                let speaks = |r: &Record| {
                    let own = self.node.lease.map(|l| Alive { epoch: r.epoch, lease: l.id });
                    r.master == self.s.me && own.is_some() && view.alive == own
                };
                if self.etcd.record.as_deref().is_some_and(speaks) {
                    // The record is still ours.
                } else if let Some(r) = self.etcd.record.take() {
                    // Not in a handover, also one whose commit is unanswered: the next master may have claimed and then
                    // takes the addresses without asking etcd again, even if its `alive` was deleted as well.
                    let next = self.requests.maybe.as_ref().unwrap_or(&r);
                    let ours = r.master == self.s.me && next.master == self.s.me;
                    self.lost.held = ours && self.right.held.is_some_and(|h| now < h.until);
                    (self.lost.record, self.lost.since) = (Some(r), now);
                } else if self.etcd.view.as_ref().is_none_or(|v| v.record != Recorded::Missing) {
                    self.lost.since = now;
                }
            }
            Recorded::Unreadable { revision, why } => {
                if self.etcd.unreadable.as_ref() != Some(why) {
                    self.actions.push_back(Action::Changed);
                }
                (self.etcd.unreadable, self.etcd.revision) = (Some(why.clone()), *revision);
            }
        }
        // A new record has other guards, so the wait starts again. The same applies to a guard that registered in
        // between and is gone again: it may have vouched for its master, although no view showed its key.
        let guards = self.slow_guards(&view);
        let again = guards.iter().flatten().any(|n| view.runs.get(n).copied().unwrap_or(0) != self.run(n));
        let since = self.etcd.gone.filter(|_| self.etcd.revision == old_revision && !again).unwrap_or(now);
        self.etcd.gone = guards.map(|_| since);
        self.etcd.view = Some(view);
        self.name_others();
    }

    /// Revision of a node's last registration, as last seen; 0 without one.
    pub(super) fn run(&self, node: &str) -> i64 {
        self.etcd.view.as_ref().and_then(|v| v.runs.get(node)).copied().unwrap_or(0)
    }
}
