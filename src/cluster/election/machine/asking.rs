//! Sends requests to etcd one at a time, and handles the answers.

use super::learning::LastRead;
use super::{Election, POLL, RETRY};
use crate::cluster::election::types::{Action, Commit, Failure, Request};
use crate::cluster::record::{Record, View};
use crate::time::Time;
use std::sync::Arc;
use std::time::Duration;

/// Our transaction that was sent and not answered.
#[derive(Clone, Debug)]
pub(in crate::cluster::election) struct InFlight {
    pub(in crate::cluster::election) id: u64,
    pub(super) record: Arc<Record>,
}

/// A read that was sent and not answered. It may write a ticket.
#[derive(Clone, Debug)]
pub(in crate::cluster::election) struct Reading {
    pub(in crate::cluster::election) id: u64,
    pub(super) lease: Option<i64>,
    pub(super) ticket: Option<String>,
    pub(super) sent: Time,
}

/// The requests to etcd, and what may still become of them. `asking.rs` changes it; the other files only ask for a read,
/// or raise the doubt when a ticket is lost.
#[derive(Clone, Debug)]
pub(in crate::cluster::election) struct Requests {
    pub(super) ticket: Option<String>,
    /// Number of tickets so far.
    pub(super) tickets: u64,
    /// A transaction of ours, or of the previous process, may still arrive at etcd.
    pub(super) doubt: bool,
    /// The record that etcd may have instead of the one that was read.
    pub(in crate::cluster::election) maybe: Option<Arc<Record>>,
    pub(in crate::cluster::election) inflight: Option<InFlight>,
    pub(super) reading: Option<Reading>,
    pub(super) want_read: bool,
    pub(super) read_not_before: Time,
    pub(super) propose_not_before: Time,
    pub(super) next_poll: Time,
    /// Number of requests so far.
    pub(super) count: u64,
}

impl Requests {
    /// At the start, a transaction of the previous process may still be on its way.
    pub(super) const fn new(now: Time) -> Self {
        Self {
            ticket: None,
            tickets: 0,
            doubt: true,
            maybe: None,
            inflight: None,
            reading: None,
            want_read: true,
            read_not_before: now,
            propose_not_before: now,
            next_poll: now,
            count: 0,
        }
    }
}

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
        let Some(lease) = self.node.lease else { return };
        let Some(ticket) = self.requests.ticket.clone() else { return };
        let record = record.into();
        if self.etcd.record.as_ref() != Some(&record) && !self.keeps_inherited() {
            self.right.inherited = None;
        }
        let mine = record.master == self.s.me;
        let first = self.etcd.record.is_none();
        let left = first && self.etcd.view.as_ref().is_some_and(|v| self.alive_is_left(v));
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
            base: self.etcd.revision,
            ticket,
            runs: nodes_gone.iter().map(|n| (n.clone(), self.run(n))).collect(),
            nodes_gone,
            alive_gone: (alive_gone || first) && !left,
            automatic,
            alive: mine.then_some(lease.id),
            drop_alive: !mine,
            record: Arc::clone(&record),
        };
        self.requests.count += 1;
        // Only the master's own transaction needs a hold that suits both outcomes. A standby holds nothing either way.
        let master = self.etcd.record.as_ref().is_some_and(|r| r.master == self.s.me);
        self.requests.maybe = master.then(|| Arc::clone(&record));
        self.requests.inflight = Some(InFlight { id: self.requests.count, record });
        self.settle_hold(now);
        self.actions.push_back(Action::Store { id: self.requests.count, request: Request::Commit(commit) });
    }

    /// Handles the answer to a read, a ticket or a commit. `succeeded` matters for commits only.
    pub fn handle_reply(&mut self, id: u64, succeeded: bool, view: View, now: Time) {
        if self.requests.inflight.as_ref().is_some_and(|f| f.id == id) {
            let f = self.requests.inflight.take();
            self.requests.maybe = None;
            if succeeded {
                let ours = f.is_some_and(|f| f.record.master == self.s.me);
                if let Some(w) = self.right.won.as_mut().filter(|w| ours && w.committed.is_none()) {
                    w.committed = Some(now);
                }
            } else {
                // A different ticket means that another process of our name wrote one. Our transactions cannot succeed
                // until we write a new one.
                self.requests.doubt |= view.ticket != self.requests.ticket;
                // etcd refused without a visible change: do not retry in a tight loop.
                self.requests.propose_not_before = now + Duration::from_millis(5);
            }
            self.look_for_gap(&view, view.ticket.is_none(), now);
            self.learn(view, now);
        } else if let Some(read) = self.requests.reading.take_if(|r| r.id == id) {
            // A ticket that this read wrote replaced the former one, if that was still there.
            let kept = if read.ticket.is_some() { view.rewritten } else { view.ticket.is_some() };
            self.lost.unseen |= self.requests.ticket.is_none() && read.ticket.is_some() && view.rewritten;
            self.look_for_gap(&view, !kept, now);
            self.etcd.last_read = Some(LastRead { lease: read.lease, sent: read.sent });
            self.learn(view, now);
            // A ticket sent before a later transaction of ours does not void that transaction.
            if let Some(t) = read.ticket.filter(|_| self.requests.inflight.is_none()) {
                self.requests.ticket = Some(t);
                self.requests.doubt = false;
                self.requests.maybe = None;
            }
        }
        self.advance(now);
    }

    /// Handles a failed request.
    pub fn handle_failure(&mut self, id: u64, failure: Failure, now: Time) {
        if self.requests.inflight.as_ref().is_some_and(|f| f.id == id) {
            self.requests.inflight = None;
            self.requests.propose_not_before = now + RETRY;
            match failure {
                Failure::Definite => self.requests.maybe = None,
                // `maybe` stays: until a new ticket is in etcd, both outcomes are possible.
                Failure::InDoubt => self.requests.doubt = true,
            }
            #[cfg(test)]
            if self.broken(crate::cluster::election::types::Fault::TicketKept) {
                (self.requests.doubt, self.requests.maybe) = (false, None);
            }
            self.requests.want_read = true;
        } else if self.requests.reading.take_if(|r| r.id == id).is_some() {
            self.requests.want_read = true;
            self.requests.read_not_before = now + RETRY;
        }
        self.advance(now);
    }

    /// Sends at most one read at a time, with a ticket if a transaction may still be in flight.
    pub(super) fn ask_store(&mut self, now: Time) {
        if self.requests.reading.is_some() {
            return;
        }
        let ticket = self.requests.doubt && self.requests.inflight.is_none();
        let due = self.requests.want_read || ticket || now >= self.requests.next_poll;
        if !due {
            self.wake_at(self.requests.next_poll);
            return;
        }
        if now < self.requests.read_not_before {
            self.wake_at(self.requests.read_not_before);
            return;
        }
        self.requests.want_read = false;
        self.requests.next_poll = now + POLL;
        self.requests.count += 1;
        let ticket = ticket.then(|| {
            self.requests.tickets += 1;
            format!("{:016x}-{}", self.s.boot, self.requests.tickets)
        });
        let lease = self.node.lease.map(|l| l.id);
        self.requests.reading = Some(Reading { id: self.requests.count, lease, ticket: ticket.clone(), sent: now });
        let request = ticket.map_or(Request::Read, Request::Ticket);
        self.actions.push_back(Action::Store { id: self.requests.count, request });
    }
}
