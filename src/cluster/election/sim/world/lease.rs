//! The keeper of a node's lease, as in `cluster/lease.rs`: read the key, get a lease, put the key if it has not
//! changed, renew. One request at a time, each with a time-out.

use super::super::plan::{PAUSE, RPC_TIMEOUT};
use super::network::Ask;
use super::{Event, World};
use crate::cluster::election::Election;
use crate::cluster::election::types::{Fault, LeaseState};
use crate::time::Time;
use std::time::Duration;

/// Renewals per time to live.
const RENEWALS: u64 = 6;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Look,
    Grant {
        base: i64,
    },
    Put {
        base: i64,
        lease: i64,
    },
    Renew {
        lease: i64,
    },
    Revoke {
        lease: i64,
    },
}

#[derive(Default)]
pub(super) struct Keeper {
    phase: Phase,
    /// Number of the request in flight; answers to older ones are ignored.
    seq: u64,
    /// Send times of the request, and of the grant.
    sent: Time,
    granted: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseAnswer {
    Key(i64),
    Granted(i64),
    Done,
    Gone,
    Failed,
}

impl World {
    pub(super) fn register(&mut self, node: usize) {
        self.nodes[node].keeper.phase = Phase::Look;
        self.lease_ask(node);
    }

    fn lease_ask(&mut self, node: usize) {
        self.n += 1;
        let (now, boot, seq) = (self.clock(node), self.nodes[node].boot, self.n);
        let k = &mut self.nodes[node].keeper;
        (k.seq, k.sent) = (seq, now);
        let phase = k.phase;
        if matches!(phase, Phase::Grant { .. }) {
            k.granted = now;
        }
        self.at(RPC_TIMEOUT, Event::LeaseExpired { node, boot, seq });
        self.ask(node, Ask::Lease { seq, phase });
    }

    fn lease_pause(&mut self, node: usize, pause: u64) {
        self.n += 1;
        let (boot, seq) = (self.nodes[node].boot, self.n);
        self.nodes[node].keeper.seq = seq;
        self.at(pause, Event::LeaseNext { node, boot, seq });
    }

    pub(super) fn lease_next(&mut self, node: usize, boot: u64, seq: u64) {
        if self.present(node, boot) && self.nodes[node].keeper.seq == seq {
            self.lease_ask(node);
        }
    }

    pub(super) fn lease_done(&mut self, node: usize, boot: u64, seq: u64, answer: LeaseAnswer) {
        if !self.present(node, boot) || self.nodes[node].keeper.seq != seq {
            return;
        }
        let next = self.plan.ttl / RENEWALS;
        let k = &mut self.nodes[node].keeper;
        match (k.phase, answer) {
            (Phase::Look, LeaseAnswer::Key(base)) => {
                k.phase = Phase::Grant { base };
                self.lease_ask(node);
            }
            (Phase::Grant { base }, LeaseAnswer::Granted(lease)) => {
                k.phase = Phase::Put { base, lease };
                self.lease_ask(node);
            }
            (Phase::Put { lease, .. }, LeaseAnswer::Done) => {
                k.phase = Phase::Renew { lease };
                let granted = k.granted;
                self.nodes[node].named = true;
                self.set_lease(node, lease, granted);
                self.lease_pause(node, next);
            }
            (Phase::Renew { lease }, LeaseAnswer::Done) => {
                let sent = k.sent;
                self.set_lease(node, lease, sent);
                self.lease_pause(node, next);
            }
            (Phase::Renew { lease }, LeaseAnswer::Gone) => {
                k.phase = Phase::Revoke { lease };
                self.nodes[node].lease = None;
                self.with(node, |e, now| e.set_lease(None, now));
                self.lease_ask(node);
            }
            (Phase::Renew { .. }, _) => self.lease_pause(node, PAUSE.min(next)),
            (Phase::Revoke { .. }, _) => self.register(node),
            _ => {
                k.phase = Phase::Look;
                self.lease_pause(node, PAUSE);
            }
        }
    }

    fn set_lease(&mut self, node: usize, id: i64, sent: Time) {
        let from = if self.broken(Fault::LeaseFromReply) { self.clock(node) } else { sent };
        let drift = if self.broken(Fault::LeaseNoDrift) { 0.0 } else { self.plan.drift };
        let until = from + Duration::from_nanos(self.plan.ttl).mul_f64(1.0 - drift);
        let lease = Some(LeaseState { id, until });
        self.nodes[node].lease = lease;
        self.with(node, |e: &mut Election, now| e.set_lease(lease, now));
    }

    /// etcd's side.
    pub(super) fn serve_lease(&mut self, node: usize, phase: Phase) -> LeaseAnswer {
        let name = self.nodes[node].name;
        match phase {
            Phase::Look => LeaseAnswer::Key(self.etcd.key(name)),
            Phase::Grant { .. } => LeaseAnswer::Granted(self.etcd.grant(self.t)),
            Phase::Put { base, lease } => {
                if self.etcd.register(name, base, lease) {
                    LeaseAnswer::Done
                } else {
                    LeaseAnswer::Failed
                }
            }
            Phase::Renew { lease } => {
                if self.etcd.renew(lease, self.t) {
                    LeaseAnswer::Done
                } else {
                    LeaseAnswer::Gone
                }
            }
            Phase::Revoke { lease } => {
                self.etcd.revoke(lease);
                LeaseAnswer::Done
            }
        }
    }
}
