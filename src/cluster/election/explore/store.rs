//! etcd in the exploration: one linear history in which each request takes effect at one instant. The world ends a
//! lease at its end or later.

use super::canon::Canon;
use super::world::{NAMES, TTL_TICKS};
use crate::cluster::election::types::Request;
use crate::cluster::record::{Alive, Record, Recorded, View};
use std::sync::Arc;

#[derive(Clone, Default)]
pub(super) struct Store {
    pub(super) revision: i64,
    /// Revision of the last change, and the record.
    pub(super) record: Option<(i64, Arc<Record>)>,
    alive: Option<Alive>,
    /// For each node, the lease of its key; 0 without a key. Stands for the key's revision too.
    nodes: [i64; NAMES.len()],
    /// For each node, the revision of its last registration, which outlives its key.
    runs: [i64; NAMES.len()],
    /// Number, and tick of its end.
    pub(super) leases: Vec<(i64, u32)>,
    tickets: [Option<String>; NAMES.len()],
    /// Whether each ticket replaced an earlier one.
    rewritten: [bool; NAMES.len()],
    next_lease: i64,
    /// An operator forbids automatic changes of master.
    pub(super) paused: bool,
}

impl Store {
    pub(super) fn has(&self, lease: i64) -> bool {
        self.leases.iter().any(|l| l.0 == lease)
    }

    pub(super) fn revoke(&mut self, lease: i64) {
        if self.has(lease) {
            self.leases.retain(|l| l.0 != lease);
            self.revision += 1;
            self.nodes.iter_mut().filter(|l| **l == lease).for_each(|l| *l = 0);
            self.alive = self.alive.filter(|a| a.lease != lease);
        }
    }

    /// A new leader restarts every lease with its full time.
    pub(super) fn new_leader(&mut self, tick: u32) {
        self.leases.iter_mut().for_each(|l| l.1 = tick + TTL_TICKS);
    }

    pub(super) fn bound(&self, node: usize) -> i64 {
        self.nodes[node]
    }

    /// Grants a lease and binds the node's key to it, if the key has not changed since the node read it.
    pub(super) fn grant(&mut self, node: usize, base: i64, tick: u32) -> Option<i64> {
        if self.nodes[node] != base {
            return None;
        }
        self.next_lease += 1;
        self.revision += 1;
        self.leases.push((self.next_lease, tick + TTL_TICKS));
        self.nodes[node] = self.next_lease;
        self.runs[node] = self.revision;
        Some(self.next_lease)
    }

    pub(super) fn keep_alive(&mut self, lease: i64, tick: u32) -> bool {
        let found = self.leases.iter_mut().find(|l| l.0 == lease);
        found.map(|l| l.1 = l.1.max(tick + TTL_TICKS)).is_some()
    }

    pub(super) fn has_ticket(&self, node: usize, ticket: &str) -> bool {
        self.tickets[node].as_deref() == Some(ticket)
    }

    fn view(&self, me: usize) -> View {
        View {
            revision: self.revision,
            record: self
                .record
                .clone()
                .map_or(Recorded::Missing, |(revision, record)| Recorded::Good { revision, record }),
            alive: self.alive,
            nodes: (0..NAMES.len()).filter(|n| self.nodes[*n] != 0).map(|n| NAMES[n].to_owned()).collect(),
            runs: NAMES.iter().zip(self.runs).filter(|r| r.1 != 0).map(|(n, r)| ((*n).to_owned(), r)).collect(),
            ticket: self.tickets[me].clone(),
            rewritten: self.rewritten[me],
            paused: self.paused.then(String::new),
        }
    }

    fn compares_hold(&self, me: usize, c: &crate::cluster::election::types::Commit) -> bool {
        self.record.as_ref().map_or(0, |r| r.0) == c.base
            && self.tickets[me].as_ref() == Some(&c.ticket)
            && !(c.automatic && self.paused)
            && (!c.alive_gone || self.alive.is_none())
            && c.nodes_gone.iter().all(|n| super::world::index(n).is_none_or(|n| self.nodes[n] == 0))
            && c.runs.iter().all(|(n, run)| super::world::index(n).is_none_or(|n| self.runs[n] == *run))
    }

    /// Serves a request; `None` means refused, certainly not executed.
    pub(super) fn serve(&mut self, me: usize, request: &Request) -> Option<(bool, View)> {
        let c = match request {
            Request::Read => return Some((true, self.view(me))),
            Request::Ticket(t) => {
                self.revision += 1;
                self.rewritten[me] = self.tickets[me].is_some();
                self.tickets[me] = Some(t.clone());
                return Some((true, self.view(me)));
            }
            Request::Commit(c) => c,
        };
        let good = self.compares_hold(me, c);
        if good {
            if c.alive.is_some_and(|l| !self.has(l)) {
                return None;
            }
            self.revision += 1;
            self.record = Some((self.revision, c.record.clone()));
            match c.alive {
                Some(lease) => self.alive = Some(Alive { epoch: c.record.epoch, lease }),
                None if c.drop_alive => self.alive = None,
                None => {}
            }
        }
        Some((good, self.view(me)))
    }

    pub(super) fn fingerprint(&self, c: &mut Canon, tick: u32) {
        let Self { revision, record, alive, nodes, runs, leases, tickets, rewritten, next_lease: _, paused } = self;
        c.flags(&[*paused]);
        c.revision(*revision);
        c.revision(record.as_ref().map_or(0, |r| r.0));
        c.record(record.as_ref().map(|r| &*r.1));
        c.maybe_epoch(alive.map(|a| a.epoch));
        c.lease(alive.map(|a| a.lease));
        nodes.iter().for_each(|l| c.lease(Some(*l)));
        runs.iter().for_each(|r| c.revision(*r));
        for (id, end) in leases {
            c.lease(Some(*id));
            c.number(end.saturating_sub(tick));
        }
        tickets.iter().for_each(|t| c.ticket(t.as_deref()));
        c.flags(rewritten);
    }
}
