//! Items in flight: their receivers, whether they can still have an effect, and how to describe and compare them.

use super::canon::Canon;
use super::world::{HOLD, Item, NAMES, Node, TTL, Unlike, World};
use crate::cluster::election::types::{Commit, Failure, Kind, Message, Request};
use std::time::Duration;

/// Messages delayed by more than this many ticks are lost: heartbeats and acks of that age give no right.
pub(super) const OLDEST: u32 = 7;

impl Item {
    /// The node whose process handles the item.
    pub(super) const fn reader(&self) -> Option<usize> {
        match self {
            Self::Wake { node }
            | Self::Hint { node }
            | Self::Keep { node }
            | Self::GiveUp { node, .. }
            | Self::Released { node, .. }
            | Self::Served { node, .. }
            | Self::Renewed { node, .. } => Some(*node),
            Self::Message { to, .. } => Some(*to),
            Self::Serve { .. } | Self::Renew { .. } | Self::Expire { .. } => None,
        }
    }

    pub(super) fn tell(&self) -> String {
        match self {
            Self::Message { from, to, message } => {
                format!("{} -> {}: {:?}, epoch {}", NAMES[*from], NAMES[*to], message.kind, message.epoch)
            }
            Self::Serve { node, id, request, .. } => match &**request {
                Request::Commit(Commit { record, .. }) => format!(
                    "request {id} of {} to etcd: commit epoch {} master {} successor {:?} members {:?} handover {:?}",
                    NAMES[*node], record.epoch, record.master, record.successor, record.members, record.handover
                ),
                other => format!("request {id} of {} to etcd: {other:?}", NAMES[*node]),
            },
            Self::Served { node, id, answer, .. } => {
                format!("etcd's answer to request {id} of {}: {:?}", NAMES[*node], answer.as_ref().map(|a| a.0))
            }
            Self::Renew { node, lease, .. } => format!("renewal of {}, lease {lease:?}, to etcd", NAMES[*node]),
            Self::Renewed { node, lease, .. } => {
                format!("etcd's answer to the renewal of {}: lease {lease:?}", NAMES[*node])
            }
            other => format!("{other:?}"),
        }
    }
}

/// Whether the item can have no visible effect any more, so that it equals a lost one.
pub(super) fn is_dead(w: &World, since: u32, item: &Item) -> bool {
    let waits =
        |node: usize, boot: u64, id: u64| w.is_current(node, boot) && w.nodes[node].open.iter().any(|o| o.0 == id);
    match item {
        Item::Message { to, message, .. } => w.tick - since > OLDEST || is_dead_ack(w, *to, message),
        Item::Served { node, boot, id, .. } => !waits(*node, *boot, *id),
        Item::Serve { node, boot, id, request, .. } => {
            !waits(*node, *boot, *id)
                && match &**request {
                    Request::Read => true,
                    // The record's revision only rises, unless the record is deleted, and no ticket is ever written
                    // again.
                    Request::Commit(c) => {
                        let other = c.base != w.store.record.as_ref().map_or(0, |r| r.0);
                        (other && c.base != 0) || !w.store.has_ticket(*node, &c.ticket)
                    }
                    Request::Ticket(_) => false,
                }
        }
        Item::Renewed { node, boot, sent, .. } => !is_waited_for(w, *node, *boot, *sent),
        Item::Renew { node, boot, sent, lease, base } => {
            !is_waited_for(w, *node, *boot, *sent)
                && lease.map_or_else(|| w.store.bound(*node) != *base, |id| !w.store.has(id))
        }
        Item::Expire { lease } => !w.store.leases.iter().any(|l| l.0 == *lease && l.1 <= w.tick),
        Item::Released { node, boot, .. } => !w.is_current(*node, *boot),
        Item::Wake { .. } | Item::Hint { .. } | Item::Keep { .. } | Item::GiveUp { .. } => false,
    }
}

pub(super) fn is_waited_for(w: &World, node: usize, boot: u64, sent: crate::time::Time) -> bool {
    w.is_current(node, boot) && w.nodes[node].keeping == Some(sent)
}

/// An ack of another run's heartbeat, or of one older than `hold`.
fn is_dead_ack(w: &World, to: usize, m: &Message) -> bool {
    let Kind::Ack { beat, boot, .. } = m.kind else { return false };
    let now = w.clock(to);
    // A broken rule that counts from the receipt must not benefit from this check.
    let old = |at: crate::time::Time| at + HOLD <= now && w.fault().is_none();
    let e = w.nodes[to].election.as_ref().filter(|_| w.nodes[to].boot == boot);
    e.is_none_or(|e| e.leading.sent.iter().find(|s| s.0 == beat).is_none_or(|s| old(s.1)))
}

pub(super) fn fingerprint(w: &World, item: &Item, c: &mut Canon) {
    // Request numbers, boots and beats matter only by what they match.
    let open =
        |node: usize, boot: u64, id: u64| w.is_current(node, boot) && w.nodes[node].open.iter().any(|o| o.0 == id);
    match item {
        Item::Wake { node } => c.number(1 + 16 * node),
        Item::Hint { node } => c.number(2 + 16 * node),
        Item::Keep { node } => c.number(3 + 16 * node),
        Item::GiveUp { node, .. } => c.number(4 + 16 * node),
        Item::Released { node, epoch, .. } => {
            c.number(5 + 16 * node);
            c.epoch(*epoch);
        }
        Item::Message { from, to, message } => {
            c.number(6 + 16 * (from + 8 * to));
            let Message { kind, epoch, fit, priority: _, reported } = message;
            c.epoch(*epoch);
            let beats = |node: usize, boot: u64| {
                let e = w.nodes[node].election.as_ref().filter(|_| w.nodes[node].boot == boot);
                e.map(|e| e.leading.beat)
            };
            let (kind, back, vouch) = match kind {
                Kind::Beat { beat, boot } => (1, beats(*from, *boot).map(|b| b - beat), false),
                Kind::Ack { beat, boot, vouch } => (2, beats(*to, *boot).map(|b| b - beat), *vouch),
                Kind::Claimed => (3, None, false),
                Kind::Go => (4, None, false),
            };
            c.number(kind);
            c.number(back.map_or(-1, |b| i64::try_from(b).unwrap_or(i64::MAX)));
            c.flags(&[*fit, vouch]);
            c.terms(reported.map(|t| t.terms));
            c.number(reported.map_or(0, |t| t.vips));
        }
        Item::Serve { node, boot, id, request, copied } => {
            c.number(7 + 16 * node);
            c.flags(&[open(*node, *boot, *id), *copied]);
            match &**request {
                Request::Read => c.number(1),
                Request::Ticket(t) => c.ticket(Some(t)),
                Request::Commit(Commit {
                    base,
                    ticket,
                    nodes_gone,
                    runs,
                    alive_gone,
                    automatic,
                    record,
                    alive,
                    drop_alive,
                }) => {
                    c.revision(*base);
                    c.ticket(Some(ticket));
                    c.names(nodes_gone);
                    runs.iter().for_each(|r| c.revision(r.1));
                    c.flags(&[*alive_gone, *automatic, *drop_alive]);
                    c.record(Some(record));
                    c.lease(*alive);
                }
            }
        }
        Item::Served { node, boot, id, answer } => {
            c.number(8 + 16 * node);
            let reads = w.nodes[*node]
                .election
                .as_ref()
                .is_some_and(|e| e.requests.inflight.as_ref().is_none_or(|f| f.id != *id));
            let doubt = matches!(answer, Err(Failure::InDoubt));
            c.flags(&[open(*node, *boot, *id), reads, answer.is_ok(), doubt, answer.as_ref().is_ok_and(|a| a.0)]);
            if let Ok((_, v)) = answer {
                c.view(v);
            }
        }
        Item::Renew { node, boot, sent, lease, base } => {
            c.number(9 + 16 * node);
            c.flags(&[is_waited_for(w, *node, *boot, *sent)]);
            c.lease(*lease);
            c.lease(Some(*base));
        }
        Item::Renewed { node, boot, sent, asked, lease } => {
            c.number(10 + 16 * node);
            c.flags(&[is_waited_for(w, *node, *boot, *sent)]);
            c.lease(*asked);
            c.lease(*lease);
        }
        Item::Expire { lease } => {
            c.number(11);
            c.lease(Some(*lease));
        }
    }
}

impl World {
    /// Everything that decides the future from here on.
    pub(super) fn fingerprint(&self, deletable: bool) -> u128 {
        let mut c = Canon::new(deletable);
        for (i, n) in self.nodes.iter().enumerate() {
            let Node {
                rate: _,
                boot: _,
                starts,
                election,
                kernel,
                frozen,
                backlog,
                open,
                lease,
                keep_at,
                keeping,
                unplugged,
                stopping,
                preferred,
            } = n;
            c.now = self.clock(i);
            c.flags(&[election.is_some(), *frozen, *unplugged, *stopping, *preferred]);
            c.number(if self.unlike == Unlike::No { 0 } else { starts % 2 });
            if let Some(e) = election {
                e.fingerprint(&mut c);
            }
            let live = kernel.filter(|k| k.1 > c.now);
            c.maybe_epoch(live.map(|k| k.0));
            c.maybe_time(live.map(|k| k.1), Duration::ZERO);
            open.iter().for_each(|o| c.number(o.1.saturating_sub(self.tick)));
            // The election has the same lease.
            c.flags(&[lease.is_some()]);
            c.number(keep_at.saturating_sub(self.tick));
            c.maybe_time(*keeping, TTL);
            c.number(backlog.len());
            backlog.iter().for_each(|item| fingerprint(self, item, &mut c));
        }
        self.store.fingerprint(&mut c, self.tick);
        // Master and members of an existing record are already included.
        let deleted = self.newest.as_ref().filter(|_| self.store.record.is_none());
        c.flags(&[self.down, self.asked, deleted.is_some()]);
        if let Some((epoch, master, members)) = deleted {
            c.epoch(*epoch);
            c.names(std::slice::from_ref(master));
            c.names(members);
        }
        self.cut.iter().for_each(|(a, b)| c.number(a * 8 + b));
        for (since, item) in &self.stuck {
            c.number(if matches!(item, Item::Message { .. }) { self.tick - since } else { 0 });
            fingerprint(self, item, &mut c);
        }
        c.finish()
    }
}
