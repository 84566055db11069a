//! A model of etcd: one linear history, the transactions that elections use, and leases as etcd really keeps them.
//!
//! Four properties matter and are easily forgotten. A loop checks leases every 500 ms, so a lease outlives its time. A
//! new leader restarts every lease with its full time. Without a leader nothing expires. A deposed leader answers
//! renewals a little longer, which is harmless only because the next leader restarts all leases.

use crate::cluster::election::types::Request;
use crate::cluster::record::{Alive, Record, Recorded, View};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Interval of etcd's check for expired leases, in nanoseconds.
pub(super) const TICK: u64 = 500_000_000;

/// A node's key.
#[derive(Clone, Copy)]
struct NodeKey {
    lease: i64,
    revision: i64,
}

#[derive(Clone, Default)]
pub(super) struct Etcd {
    pub(super) revision: i64,
    pub(super) record: Option<(i64, Arc<Record>)>,
    pub(super) alive: Option<Alive>,
    nodes: BTreeMap<String, NodeKey>,
    /// Revision of each node's last registration.
    runs: BTreeMap<String, i64>,
    leases: BTreeMap<i64, u64>,
    /// Each node's ticket, and whether it replaced an earlier one.
    tickets: BTreeMap<String, (String, bool)>,
    /// Tickets that an operator deleted.
    deleted: BTreeMap<String, String>,
    pub(super) paused: Option<String>,
    next_lease: i64,
    /// Granted time to live, in nanoseconds of the world.
    ttl: u64,
    /// etcd serves nothing and nothing expires: no leader, or no members at all.
    pub(super) down: bool,
    /// Skips the comparison of a transaction's guards: a test shows that this is noticed.
    blind: bool,
    /// Registrations leave no trace.
    forgetful: bool,
}

impl Etcd {
    pub(super) fn new(ttl: u64, blind: bool, forgetful: bool) -> Self {
        Self { ttl, blind, forgetful, ..Self::default() }
    }

    /// Ends expired leases. Returns whether a key vanished.
    pub(super) fn tick(&mut self, t: u64) -> bool {
        if self.down {
            return false;
        }
        let dead: Vec<i64> = self.leases.iter().filter(|(_, end)| **end < t).map(|(id, _)| *id).collect();
        dead.iter().for_each(|id| self.revoke(*id));
        !dead.is_empty()
    }

    pub(super) fn revoke(&mut self, id: i64) {
        if self.leases.remove(&id).is_some() {
            self.revision += 1;
            self.nodes.retain(|_, k| k.lease != id);
            self.alive = self.alive.filter(|a| a.lease != id);
        }
    }

    /// A leader was elected: every lease restarts with its full time.
    pub(super) fn elected(&mut self, t: u64) {
        self.down = false;
        self.leases.values_mut().for_each(|end| *end = t + self.ttl);
    }

    /// Revision of a node's key; 0 without one.
    pub(super) fn key(&self, node: &str) -> i64 {
        self.nodes.get(node).map_or(0, |k| k.revision)
    }

    pub(super) fn has_key(&self, node: &str) -> bool {
        self.nodes.contains_key(node)
    }

    /// Whether a process of this node ever wrote its ticket.
    pub(super) fn has_ticket(&self, node: &str) -> bool {
        self.tickets.contains_key(node)
    }

    pub(super) fn grant(&mut self, t: u64) -> i64 {
        self.next_lease += 1;
        self.leases.insert(self.next_lease, t + self.ttl);
        self.next_lease
    }

    /// Puts a node's key, if it has not changed since the node read it and the lease lives.
    pub(super) fn register(&mut self, node: &str, base: i64, lease: i64) -> bool {
        if self.key(node) != base || !self.leases.contains_key(&lease) {
            return false;
        }
        self.revision += 1;
        if !self.forgetful {
            self.runs.insert(node.to_owned(), self.revision);
        }
        self.nodes.insert(node.to_owned(), NodeKey { lease, revision: self.revision });
        true
    }

    pub(super) fn renew(&mut self, id: i64, t: u64) -> bool {
        self.leases.get_mut(&id).map(|end| *end = (*end).max(t + self.ttl)).is_some()
    }

    /// An operator deletes the record.
    pub(super) fn lose_record(&mut self) {
        self.revision += 1;
        self.record = None;
    }

    /// An operator deletes all keys of the instance.
    pub(super) fn lose_all(&mut self) {
        self.revision += 1;
        (self.record, self.alive) = (None, None);
        self.deleted.extend(std::mem::take(&mut self.tickets).into_iter().map(|(node, t)| (node, t.0)));
    }

    pub(super) fn pause(&mut self, value: Option<String>) {
        self.revision += 1;
        self.paused = value;
    }

    fn view(&self, me: &str) -> View {
        View {
            revision: self.revision,
            record: self
                .record
                .clone()
                .map_or(Recorded::Missing, |(revision, record)| Recorded::Good { revision, record }),
            alive: self.alive,
            nodes: self.nodes.keys().cloned().collect::<BTreeSet<_>>(),
            runs: self.runs.clone(),
            ticket: self.tickets.get(me).map(|t| t.0.clone()),
            rewritten: self.tickets.get(me).is_some_and(|t| t.1),
            paused: self.paused.clone(),
        }
    }

    /// Serves a request; `None` means refused, certainly not executed.
    pub(super) fn serve(&mut self, me: &str, request: &Request) -> Option<(bool, View)> {
        let c = match request {
            Request::Read => return Some((true, self.view(me))),
            Request::Ticket(t) => {
                self.revision += 1;
                // By assumption 7 no agent is started after all keys were deleted. A started one keeps its ticket here.
                let boot = |ticket: &str| ticket.split('-').next().map(str::to_owned);
                let started = self.deleted.get(me).is_some_and(|d| boot(d) != boot(t));
                let rewritten = self.tickets.contains_key(me) || started;
                self.tickets.insert(me.to_owned(), (t.clone(), rewritten));
                return Some((true, self.view(me)));
            }
            Request::Commit(c) => c,
        };
        let runs = c.runs.iter().all(|(n, r)| self.runs.get(n).copied().unwrap_or(0) == *r);
        let gone = self.blind
            || (runs && (!c.alive_gone || self.alive.is_none()) && c.nodes_gone.iter().all(|n| !self.has_key(n)));
        let good = self.record.as_ref().map_or(0, |r| r.0) == c.base
            && self.tickets.get(me).is_some_and(|t| t.0 == c.ticket)
            && (!c.automatic || self.paused.is_none())
            && gone;
        if good {
            if c.alive.is_some_and(|l| !self.leases.contains_key(&l)) {
                return None;
            }
            self.revision += 1;
            self.record = Some((self.revision, c.record.clone()));
            if let Some(lease) = c.alive {
                self.alive = Some(Alive { epoch: c.record.epoch, lease });
            } else if c.drop_alive {
                self.alive = None;
            }
        }
        Some((good, self.view(me)))
    }
}
