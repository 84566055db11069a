//! Sends requests to etcd one at a time, and handles the answers.

use super::{Election, InFlight, LastRead, POLL, RETRY, Reading};
use crate::cluster::election::types::{Action, Commit, Failure, Request};
use crate::cluster::record::{Record, View};
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
