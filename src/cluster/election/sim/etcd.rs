//! A model of etcd: one linear history, leases that expire late, and the two transactions that elections use.

use crate::cluster::election::types::Request;
use crate::cluster::record::{Alive, Record, Recorded, View};
use std::collections::BTreeMap;

/// Lease time to live, in nanoseconds.
pub(super) const TTL: u64 = 2_000_000_000;

#[derive(Default)]
pub(super) struct Etcd {
    pub(super) revision: i64,
    pub(super) record: Option<(i64, Record)>,
    pub(super) alive: Option<Alive>,
    pub(super) nodes: BTreeMap<String, i64>,
    pub(super) leases: BTreeMap<i64, u64>,
    pub(super) tickets: BTreeMap<String, String>,
    next_lease: i64,
    pub(super) down: bool,
}

impl Etcd {
    pub(super) fn expire(&mut self, t: u64) {
        let dead: Vec<i64> = self.leases.iter().filter(|(_, end)| **end < t).map(|(id, _)| *id).collect();
        dead.into_iter().for_each(|id| self.revoke(id));
    }

    pub(super) fn revoke(&mut self, id: i64) {
        if self.leases.remove(&id).is_some() {
            self.revision += 1;
            self.nodes.retain(|_, l| *l != id);
            self.alive = self.alive.filter(|a| a.lease != id);
        }
    }

    /// A new leader gives every lease its full time again.
    pub(super) fn leader_change(&mut self, t: u64) {
        self.leases.values_mut().for_each(|end| *end = t + 1_000_000_000 + TTL);
    }

    /// The lease that a node's key is bound to; 0 if there is no key. Stands for the key's revision.
    pub(super) fn bound(&self, node: &str) -> i64 {
        self.nodes.get(node).copied().unwrap_or(0)
    }

    /// A lease, and the node's key bound to it if the key is still as the node read it. `None`: it is not.
    pub(super) fn grant(&mut self, node: &str, base: i64, t: u64) -> Option<i64> {
        self.next_lease += 1;
        self.leases.insert(self.next_lease, t + TTL);
        if self.bound(node) != base {
            return None;
        }
        self.revision += 1;
        self.nodes.insert(node.to_owned(), self.next_lease);
        Some(self.next_lease)
    }

    pub(super) fn keep_alive(&mut self, id: i64, t: u64) -> bool {
        self.leases.get_mut(&id).map(|end| *end = (*end).max(t + TTL)).is_some()
    }

    fn view(&self, me: &str) -> View {
        View {
            revision: self.revision,
            record: self.record.clone().map_or(Recorded::Missing, |(revision, record)| Recorded::Good { revision, record }),
            alive: self.alive,
            nodes: self.nodes.keys().cloned().collect(),
            ticket: self.tickets.get(me).cloned(),
            paused: None,
        }
    }

    /// `None`: refused, certainly not done.
    pub(super) fn serve(&mut self, me: &str, request: &Request) -> Option<(bool, View)> {
        let c = match request {
            Request::Read => return Some((true, self.view(me))),
            Request::Ticket(t) => {
                self.revision += 1;
                self.tickets.insert(me.to_owned(), t.clone());
                return Some((true, self.view(me)));
            }
            Request::Commit(c) => c,
        };
        let good = self.record.as_ref().map_or(0, |r| r.0) == c.base
            && self.tickets.get(me) == Some(&c.ticket)
            && (!c.alive_gone || self.alive.is_none())
            && c.nodes_gone.iter().all(|n| !self.nodes.contains_key(n));
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
