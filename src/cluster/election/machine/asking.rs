//! Sends requests to etcd one at a time, and learns from the answers.

use super::{Election, FRESH, InFlight, LastRead, POLL, RETRY, Reading};
use crate::cluster::election::types::{Action, Commit, Failure, Request};
use crate::cluster::record::{Alive, MAX_EPOCH, Record, Recorded, View};
use crate::time::Time;
use std::sync::Arc;
use std::time::Duration;

/// Conditions that must stop a transaction, besides another change of the record.
pub(in crate::cluster::election) enum Unless {
    Other,
    /// This node is up, or was up in between.
    Up(String),
    /// The master lives, or one of these nodes is up or was up in between: the guards of a slow takeover.
    Alive(Vec<String>),
}

impl Election {
    /// Sends a transaction on the record, after lowering the hold to what both outcomes allow.
    ///
    /// `automatic`: no operator requested this change of master, so a pause forbids it.
    pub(in crate::cluster::election) fn propose(
        &mut self,
        record: impl Into<Arc<Record>>,
        unless: Unless,
        automatic: bool,
        now: Time,
    ) {
        let Some(lease) = self.lease else { return };
        let Some(ticket) = self.ticket.clone() else { return };
        let record = record.into();
        if self.record.as_ref() != Some(&record) && !self.keeps_inherited() {
            self.inherited = None;
        }
        let mine = record.master == self.s.me;
        let first = self.record.is_none();
        let left = first && self.view.as_ref().is_some_and(|v| self.alive_is_left(v));
        let (nodes_gone, alive_gone) = match unless {
            Unless::Other => (Vec::new(), false),
            #[cfg(test)]
            Unless::Up(_) if self.broken(crate::cluster::election::types::Fault::ForgetLiving) => (Vec::new(), false),
            Unless::Up(node) => (vec![node], false),
            Unless::Alive(guards) => (guards, true),
        };
        #[cfg(test)]
        let automatic = automatic && !self.broken(crate::cluster::election::types::Fault::PauseForgotten);
        let commit = Commit {
            base: self.revision,
            ticket,
            runs: nodes_gone.iter().map(|n| (n.clone(), self.run(n))).collect(),
            nodes_gone,
            alive_gone: (alive_gone || first) && !left,
            automatic,
            alive: mine.then_some(lease.id),
            drop_alive: !mine,
            record: Arc::clone(&record),
        };
        self.requests += 1;
        // Only the master's own transaction needs a hold that suits both outcomes. A standby holds nothing either way.
        let master = self.record.as_ref().is_some_and(|r| r.master == self.s.me);
        self.maybe = master.then(|| Arc::clone(&record));
        self.inflight = Some(InFlight { id: self.requests, record });
        self.settle_hold(now);
        self.actions.push_back(Action::Store { id: self.requests, request: Request::Commit(commit) });
    }

    /// Handles the answer to a read, a ticket or a commit. `succeeded` matters for commits only.
    pub fn handle_reply(&mut self, id: u64, succeeded: bool, view: View, now: Time) {
        if self.inflight.as_ref().is_some_and(|f| f.id == id) {
            let f = self.inflight.take();
            self.maybe = None;
            if succeeded {
                let ours = f.is_some_and(|f| f.record.master == self.s.me);
                if let Some(w) = self.won.as_mut().filter(|w| ours && w.committed.is_none()) {
                    w.committed = Some(now);
                }
            } else {
                // A different ticket means that another process of our name wrote one. Our transactions cannot succeed
                // until we write a new one.
                self.doubt |= view.ticket != self.ticket;
                // etcd refused without a visible change: do not retry in a tight loop.
                self.propose_not_before = now + Duration::from_millis(5);
            }
            self.look_for_gap(&view, view.ticket.is_none(), now);
            self.learn(view, now);
        } else if let Some(read) = self.reading.take_if(|r| r.id == id) {
            // A ticket that this read wrote replaced the former one, if that was still there.
            let kept = if read.ticket.is_some() { view.rewritten } else { view.ticket.is_some() };
            self.unseen |= self.ticket.is_none() && read.ticket.is_some() && view.rewritten;
            self.look_for_gap(&view, !kept, now);
            self.last_read = Some(LastRead { lease: read.lease, sent: read.sent });
            self.learn(view, now);
            // A ticket sent before a later transaction of ours does not void that transaction.
            if let Some(t) = read.ticket.filter(|_| self.inflight.is_none()) {
                self.ticket = Some(t);
                self.doubt = false;
                self.maybe = None;
            }
        }
        self.advance(now);
    }

    /// Handles a failed request.
    pub fn handle_failure(&mut self, id: u64, failure: Failure, now: Time) {
        if self.inflight.as_ref().is_some_and(|f| f.id == id) {
            self.inflight = None;
            self.propose_not_before = now + RETRY;
            match failure {
                Failure::Definite => self.maybe = None,
                // `maybe` stays: until a new ticket is in etcd, both outcomes are possible.
                Failure::InDoubt => self.doubt = true,
            }
            #[cfg(test)]
            if self.broken(crate::cluster::election::types::Fault::TicketKept) {
                (self.doubt, self.maybe) = (false, None);
            }
            self.want_read = true;
        } else if self.reading.take_if(|r| r.id == id).is_some() {
            self.want_read = true;
            self.read_not_before = now + RETRY;
        }
        self.advance(now);
    }

    /// Starts the wait for a first election again if another record may have come and gone between two views without a
    /// record. Its master may hold as long as others vouch, as after the first deletion.
    ///
    /// A record that existed for less than [`FRESH`] leaves its master's `alive`, which lives as long as a lease. If all
    /// keys were deleted, this node's ticket is gone too.
    fn look_for_gap(&mut self, view: &View, ticket_gone: bool, now: Time) {
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

    fn learn(&mut self, view: View, now: Time) {
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
    fn run(&self, node: &str) -> i64 {
        self.view.as_ref().and_then(|v| v.runs.get(node)).copied().unwrap_or(0)
    }

    /// Sends at most one read at a time, with a ticket if a transaction may still be in flight.
    pub(super) fn ask_store(&mut self, now: Time) {
        if self.reading.is_some() {
            return;
        }
        let ticket = self.doubt && self.inflight.is_none();
        let due = self.want_read || ticket || now >= self.next_poll;
        if !due {
            self.wake_at(self.next_poll);
            return;
        }
        if now < self.read_not_before {
            self.wake_at(self.read_not_before);
            return;
        }
        self.want_read = false;
        self.next_poll = now + POLL;
        self.requests += 1;
        let ticket = ticket.then(|| {
            self.tickets += 1;
            format!("{:016x}-{}", self.s.boot, self.tickets)
        });
        let lease = self.lease.map(|l| l.id);
        self.reading = Some(Reading { id: self.requests, lease, ticket: ticket.clone(), sent: now });
        let request = ticket.map_or(Request::Read, Request::Ticket);
        self.actions.push_back(Action::Store { id: self.requests, request });
    }
}
