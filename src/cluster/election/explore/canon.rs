//! Turns a state into numbers, equal for states with the same future: times become distances from now, names of leases
//! and tickets their order of appearance, revisions their rank.

use crate::cluster::record::{Record, Recorded, Terms, View};
use crate::time::Time;
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

/// Collects the numbers of one state.
pub(in crate::cluster::election) struct Canon {
    out: Vec<i64>,
    /// Positions of revisions in `out`.
    revisions: Vec<usize>,
    /// Positions of epochs in `out`.
    epochs: Vec<usize>,
    leases: Vec<i64>,
    tickets: Vec<String>,
    /// Whether the record may still be deleted.
    pub(in crate::cluster::election) deletable: bool,
    /// The clock of the node whose state is being written.
    pub(in crate::cluster::election) now: Time,
}

impl Canon {
    pub(super) fn new(deletable: bool) -> Self {
        let out = Vec::with_capacity(256);
        Self {
            out,
            revisions: Vec::with_capacity(16),
            epochs: Vec::with_capacity(32),
            leases: Vec::new(),
            tickets: Vec::new(),
            deletable,
            now: Time::ZERO,
        }
    }

    pub(in crate::cluster::election) fn number(&mut self, n: impl TryInto<i64>) {
        self.out.push(n.try_into().unwrap_or(i64::MAX));
    }

    pub(in crate::cluster::election) fn flags(&mut self, flags: &[bool]) {
        self.out.push(flags.iter().fold(1, |n, b| n << 1 | i64::from(*b)));
    }

    /// An instant on the node's clock. All instants more than `back` in the past are equal: nothing waits longer for
    /// them.
    pub(in crate::cluster::election) fn time(&mut self, t: Time, back: Duration) {
        let since = self.now.since(t).min(back).as_nanos();
        let until = t.since(self.now).as_nanos();
        self.number(i64::try_from(until).unwrap_or(i64::MAX) - i64::try_from(since).unwrap_or(0));
    }

    pub(in crate::cluster::election) fn maybe_time(&mut self, t: Option<Time>, back: Duration) {
        match t {
            Some(t) => self.time(t, back),
            None => self.number(i64::MIN),
        }
    }

    /// Only equality and order of revisions matter.
    pub(in crate::cluster::election) fn revision(&mut self, r: i64) {
        self.revisions.push(self.out.len());
        self.out.push(r);
    }

    /// Only equality, order and direct succession matter.
    pub(in crate::cluster::election) fn epoch(&mut self, e: u64) {
        self.epochs.push(self.out.len());
        self.number(e);
    }

    pub(in crate::cluster::election) fn maybe_epoch(&mut self, e: Option<u64>) {
        self.epoch(e.unwrap_or(0));
    }

    /// Leases are only compared for equality, so their order of appearance names them.
    pub(in crate::cluster::election) fn lease(&mut self, id: Option<i64>) {
        let Some(id) = id.filter(|id| *id != 0) else { return self.number(-1) };
        let at = self.leases.iter().position(|l| *l == id).unwrap_or_else(|| {
            self.leases.push(id);
            self.leases.len() - 1
        });
        self.number(at);
    }

    pub(in crate::cluster::election) fn ticket(&mut self, ticket: Option<&str>) {
        let Some(ticket) = ticket else { return self.number(-1) };
        let at = self.tickets.iter().position(|t| t == ticket).unwrap_or_else(|| {
            self.tickets.push(ticket.to_owned());
            self.tickets.len() - 1
        });
        self.number(at);
    }

    pub(in crate::cluster::election) fn name(&mut self, node: Option<&str>) {
        self.number(node.map_or(-1, |n| super::world::index(n).map_or(-2, |i| i as i64)));
    }

    pub(in crate::cluster::election) fn names<'a>(&mut self, nodes: impl IntoIterator<Item = &'a String>) {
        let set = nodes.into_iter().filter_map(|n| super::world::index(n)).fold(0_i64, |n, i| n | 1 << i);
        self.number(set);
    }

    /// The decisive part of a record; the rest is for display.
    pub(in crate::cluster::election) fn record(&mut self, r: Option<&Record>) {
        let Some(r) = r else { return self.number(-1) };
        let Record {
            schema: _,
            epoch,
            master,
            successor,
            members,
            since_ms: _,
            reason: _,
            handover,
            flaps,
            addresses: _,
            terms,
            vips,
        } = r;
        self.epoch(*epoch);
        self.name(Some(master));
        self.name(successor.as_deref());
        self.names(members);
        self.name(handover.as_deref());
        self.number(*flaps);
        self.terms(*terms);
        self.number(vips.len());
    }

    pub(in crate::cluster::election) fn terms(&mut self, t: Option<Terms>) {
        self.number(t.map_or(0, |t| t.hold_ns));
    }

    /// A view in flight to a node.
    pub(super) fn view(&mut self, v: &View) {
        let View { revision, record, alive, nodes, runs, ticket, rewritten, paused } = v;
        self.revision(*revision);
        match record {
            Recorded::Good { revision, record } => {
                self.revision(*revision);
                self.record(Some(record));
            }
            Recorded::Missing | Recorded::Unreadable { .. } => self.record(None),
        }
        self.maybe_epoch(alive.map(|a| a.epoch));
        self.lease(alive.map(|a| a.lease));
        self.names(nodes);
        runs.values().for_each(|r| self.revision(*r));
        self.ticket(ticket.as_deref());
        self.flags(&[paused.is_some(), *rewritten]);
    }

    /// Replaces each number by its rank; numbers without direct succession are `gap` apart.
    fn rank(&mut self, places: &[usize], gap: i64) {
        let mut all: Vec<i64> = places.iter().map(|i| self.out[*i]).collect();
        all.sort_unstable();
        all.dedup();
        let (mut ranks, mut rank) = (Vec::with_capacity(all.len()), 0);
        for (i, n) in all.iter().enumerate() {
            rank += if i > 0 && *n != all[i - 1] + 1 { gap } else { 1 };
            ranks.push(rank);
        }
        for i in places {
            self.out[*i] = all.binary_search(&self.out[*i]).map_or(-1, |at| ranks[at]);
        }
    }

    /// Returns 128 bits that identify the state.
    pub(super) fn finish(mut self) -> u128 {
        let (revisions, epochs) = (std::mem::take(&mut self.revisions), std::mem::take(&mut self.epochs));
        self.rank(&revisions, 1);
        self.rank(&epochs, 2);
        let bytes: Vec<u8> = self.out.iter().flat_map(|n| n.to_le_bytes()).collect();
        let half = |salt: u64| {
            let mut h = DefaultHasher::new();
            h.write_u64(salt);
            h.write(&bytes);
            h.finish()
        };
        u128::from(half(1)) << 64 | u128::from(half(2))
    }
}
